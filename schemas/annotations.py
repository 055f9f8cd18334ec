"""Question files: every published format comes in as `VideoQuestion`s, row by row.

A row that cannot be read is an `UnreadableRow` with its place and reason, and the rest goes on.
Nothing here opens media or judges their paths; that is the media room's matter.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.annotation_formats import (
    Fields,
    NextGqaCsv,
    SeedBenchR1,
    next_gqa_json,
    own_jsonl,
    perception_test,
    perception_test_questions,
    video_r1,
)
from schemas.ids import content_id
from schemas.question_files import find_files, guess_layout, read_json_beside
from schemas.questions import VideoQuestion
from schemas.record_fields import FieldError, Record, shown
from schemas.record_files import BadRecord, Layout, read_records
from schemas.samples import Reason

FORMATS = (
    "auto",
    "video-r1",
    "videop2r",
    "nextgqa",
    "perception-test",
    "seed-bench-r1",
    "jsonl",
)
_RECORDS_LOOKED_AT = 20  # to tell the format


@dataclass(frozen=True)
class UnreadableRow:
    """A row of a question file that is no question. `line` counts from 1, where it is known."""

    row: int
    line: int | None
    reason: Reason
    detail: str
    problem_id: str = ""
    data_source: str = ""
    problem_type: str = ""

    @cached_property
    def question_id(self) -> str:
        """Content id of its place and what is wrong with it; the file's name plays no part."""
        return content_id(
            "unreadable", {"row": self.row, "reason": self.reason.value, "detail": self.detail}
        )


def read_questions(
    path: Path, *, format: str = "auto", strip_prefix: tuple[str, ...] = ()
) -> Iterator[VideoQuestion | UnreadableRow]:
    """The rows of a question file, numbered from 0 in file order; duplicates are unreadable.

    `path` is one file, gzipped or not; where no such file exists its name may be a pattern
    (`VideoP2R-263k_rl.part*.json.gz`) whose files are read in order. Each of `strip_prefix` is
    taken off the front of media paths. Raises ValueError, before the first row, with one sentence:
    no such file, a directory, empty, an unknown format.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}: expected one of {', '.join(FORMATS)}")
    if any(not prefix.strip("/") for prefix in strip_prefix):
        raise ValueError("a path prefix to strip must name a folder, got an empty one")
    files = [_open_file(file, format) for file in find_files(path)]
    return _Reader(files, strip_prefix).rows()


@dataclass(frozen=True)
class _QuestionFile:
    path: Path
    layout: Layout
    fields: Callable[[Record], Fields]
    holds_videos: bool = False  # each record is a video with several questions


def _open_file(path: Path, format: str) -> _QuestionFile:
    layout = guess_layout(path)
    first = list(islice(read_records(path, layout), _RECORDS_LOOKED_AT))
    if not first:
        raise ValueError(f"{path} holds no questions: expected at least one row")
    objects = [
        record.value
        for record in first
        if not isinstance(record, BadRecord) and isinstance(record.value, dict)
    ]
    found = next((name for name in map(_format_of, objects) if name), None)
    if found is None and (format == "auto" or not objects):
        raise ValueError(f"cannot tell the format of {path}: {_what_was_seen(first)}")
    if format in ("auto", "nextgqa") and layout == "csv":
        return _QuestionFile(path, layout, _next_gqa_csv(path).fields)
    chosen = found if format == "auto" or (format, found) in _SAME_FAMILY else format
    if chosen == "seed-bench-r1":
        return _QuestionFile(path, layout, SeedBenchR1(path.name).fields)
    return _QuestionFile(path, layout, _READERS[chosen or format], chosen == "perception-test")


_READERS: dict[str, Callable[[Record], Fields]] = {
    "video-r1": video_r1,
    "videop2r": video_r1,
    "nextgqa": next_gqa_json,
    "perception-test": perception_test,
    "jsonl": own_jsonl,
}
# APPO publishes its Perception Test questions in Video-R1's layout.
_SAME_FAMILY = frozenset({("perception-test", "video-r1"), ("perception-test", "videop2r")})


def _format_of(record: dict[str, Any]) -> str | None:
    """The format whose fields the record has."""
    if "problem" in record and "media" in record:
        return "jsonl"
    if "problem" in record and "path" in record:
        return "videop2r" if isinstance(record.get("options"), str) else "video-r1"
    if "question" in record and {"video_id", "a0", "answer"} <= record.keys():
        return "nextgqa"
    if "question" in record and ("video_path" in record or "glue" in record):
        return "nextgqa"
    if "golden_choice_idx" in record or "negative_answers" in record:
        return "seed-bench-r1"
    if "mc_question" in record:
        return "perception-test"
    return None


def _what_was_seen(first: list[Any]) -> str:
    for record in first:
        if not isinstance(record, BadRecord):
            value = record.value
            if isinstance(value, dict):
                names = ", ".join(list(value)[:12])
                return (
                    f"its first record has the fields {names[:200]}; known are"
                    f" {', '.join(FORMATS[1:])}"
                )
            return f"its first record is {shown(value)}, expected an object"
    return f"line {first[0].line}: {first[0].detail}"


def _next_gqa_csv(path: Path) -> NextGqaCsv:
    split = path.name.split(".")[0]
    spans = read_json_beside(path, f"gsub_{split}.json")
    folders = read_json_beside(path, "map_vid_vidorID.json")
    return NextGqaCsv(split, spans, folders)


class _Reader:
    """Reads files one after the other; rows and duplicates are counted over all of them."""

    def __init__(self, files: list[_QuestionFile], strip_prefix: tuple[str, ...]) -> None:
        self._files = files
        prefixes = (prefix.removeprefix("./").rstrip("/") + "/" for prefix in strip_prefix)
        self._prefixes = sorted(prefixes, key=len, reverse=True)
        self._row = 0
        self._first_rows: dict[bytes, int] = {}  # digest of a question -> its first row

    def rows(self) -> Iterator[VideoQuestion | UnreadableRow]:
        for file in self._files:
            prefix = f"{file.path.name}: " if len(self._files) > 1 else ""
            for record in read_records(file.path, file.layout):
                if isinstance(record, BadRecord):
                    yield self._unreadable(
                        record.line, Reason.UNREADABLE_ROW, prefix + record.detail
                    )
                    continue
                if not isinstance(record.value, dict):
                    detail = f"{prefix}expected an object, got {shown(record.value)}"
                    yield self._unreadable(record.line, Reason.UNREADABLE_ROW, detail)
                    continue
                for item in self._questions(file, record.value):
                    yield self._read(file, item, record.line, prefix)

    def _questions(self, file: _QuestionFile, value: Record) -> Iterator[Record | FieldError]:
        if not file.holds_videos:
            yield value
            return
        try:
            yield from perception_test_questions(value)
        except FieldError as error:
            yield error

    def _read(
        self, file: _QuestionFile, item: Record | FieldError, line: int, prefix: str
    ) -> VideoQuestion | UnreadableRow:
        try:
            if isinstance(item, FieldError):
                raise item
            fields = file.fields(item)
            fields["media"] = [self._media_ref(*pair) for pair in fields["media"]]
            question = VideoQuestion(row=self._row, **fields)
        except FieldError as error:
            detail = f"{prefix}{error}"
            return self._unreadable(line, Reason.INVALID_QUESTION, detail, item)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            field = ".".join(map(str, first["loc"])) or "problem_type"
            detail = f"{prefix}field {field!r}: {first['msg']}"
            return self._unreadable(line, Reason.INVALID_QUESTION, detail, item)
        digest = bytes.fromhex(question.question_id.removeprefix("question-"))
        first_row = self._first_rows.setdefault(digest, self._row)
        if first_row != self._row:
            detail = f"{prefix}the same question, media and gold answer as row {first_row}"
            return self._unreadable(line, Reason.DUPLICATE, detail, fields)
        self._row += 1
        return question

    def _media_ref(self, kind: str, path: str) -> dict[str, str]:
        if "\0" in path:
            raise FieldError("path", f"a path cannot hold a NUL character, got {shown(path)}")
        path = _without_dots(path)
        for prefix in self._prefixes:
            if path.startswith(prefix):
                path = _without_dots(path.removeprefix(prefix).lstrip("/"))
                break
        if not path:
            raise FieldError("path", "is empty once its prefix is stripped")
        return {"kind": kind, "path": path}

    def _unreadable(
        self, line: int, reason: Reason, detail: str, item: Record | FieldError | None = None
    ) -> UnreadableRow:
        record = {} if item is None or isinstance(item, FieldError) else item
        row = UnreadableRow(
            self._row,
            line,
            reason,
            _storable(detail),
            _named(record, "problem_id"),
            _named(record, "data_source"),
            _named(record, "problem_type"),
        )
        self._row += 1
        return row


def _without_dots(path: str) -> str:
    """`./a/b` -> `a/b`; anything else, `..` included, stays for the media room to judge."""
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path


def _named(record: Record, field: str) -> str:
    """What an unreadable record says of itself, as far as that can be told."""
    value = record.get(field)
    return _storable(str(value)[:200]) if isinstance(value, str | int) else ""


def _storable(text: str) -> str:
    """One line without the lone surrogates that undecodable bytes leave."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())
