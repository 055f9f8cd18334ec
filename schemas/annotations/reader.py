"""Question files: every annotation format comes in as `VideoQuestion`s, row by row.

A row that cannot be read is an `UnreadableRow` with its place and reason, and the rest goes on.
Nothing here opens media or checks their paths; `media.paths` does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.annotations.fields import FieldError, Fields, FormatError, Record, shown
from schemas.annotations.files import find_files, guess_layout
from schemas.annotations.formats import (
    AUTO,
    FORMATS,
    AnnotationFormat,
    FieldReader,
    check_format,
    csv_columns,
    format_of,
)
from schemas.annotations.records import BadRecord, Layout, read_records
from schemas.questions import VideoQuestion
from schemas.samples import Reason
from schemas.serialization import CODING_ERRORS, content_id, error_words, one_line

_RECORDS_LOOKED_AT = 20  # to recognise the format


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
    check_format(format)
    if any(not prefix.strip("/") for prefix in strip_prefix):
        raise ValueError("a path prefix to strip must name a folder, got an empty one")
    files = [_open_file(file, format) for file in find_files(path)]
    return _Reader(files, strip_prefix).rows()


@dataclass(frozen=True)
class _QuestionFile:
    path: Path
    format: str
    layout: Layout
    fields: FieldReader
    questions_of: Callable[[Any], Iterator[Record]] | None


def _open_file(path: Path, format: str) -> _QuestionFile:
    layout = guess_layout(path, csv_columns())
    first = list(islice(read_records(path, layout), _RECORDS_LOOKED_AT))
    if not first:
        raise ValueError(f"{path} holds no questions: expected at least one row")
    chosen = _format_of_file(first, format)
    if chosen is None:
        raise ValueError(f"cannot tell the format of {path}: {_what_was_seen(first)}")
    return _QuestionFile(
        path, chosen.name, layout, _reader_of(chosen, path, layout), chosen.questions_of
    )


def _reader_of(chosen: AnnotationFormat, path: Path, layout: Layout) -> FieldReader:
    try:
        return chosen.reader_of(path, layout)
    except ValueError:
        raise  # already a sentence about a file
    except CODING_ERRORS as error:
        raise ValueError(
            f"the format {chosen.name!r} cannot read {path} ({error_words(error)}); "
            "its `reader_of` takes a path and a layout and returns a function of a record: see "
            "every_file"
        ) from error


def _format_of_file(first: Sequence[Any], name: str) -> AnnotationFormat | None:
    """The format to read a file in that begins with these records; None where none fits."""
    objects = [
        record.value
        for record in first
        if not isinstance(record, BadRecord) and isinstance(record.value, dict)
    ]
    found = next((row for row in map(format_of, objects) if row is not None), None)
    if name == AUTO or not objects:
        return found
    if found is not None and found.name in FORMATS[name].variants:
        return found
    return FORMATS[name]


def _what_was_seen(first: list[Any]) -> str:
    for record in first:
        if not isinstance(record, BadRecord):
            value = record.value
            if isinstance(value, dict):
                names = ", ".join(list(value)[:12])
                return (
                    f"its first record has the fields {names[:200]}; known are {', '.join(FORMATS)}"
                )
            return f"its first record is {shown(value)}, expected an object"
    return f"line {first[0].line}: {first[0].detail}"


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
        if file.questions_of is None:
            yield value
            return
        try:
            yield from file.questions_of(value)
        except FieldError as error:
            yield error
        except CODING_ERRORS as error:
            yield FormatError(file.format, error_words(error))

    def _read(
        self, file: _QuestionFile, item: Record | FieldError, line: int, prefix: str
    ) -> VideoQuestion | UnreadableRow:
        try:
            if isinstance(item, FieldError):
                raise item
            fields = self._fields(file, item)
            question = VideoQuestion(**(fields | {"row": self._row}))
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

    def _fields(self, file: _QuestionFile, item: Record) -> Fields:
        """Arguments of VideoQuestion. Raises FieldError, also for a mistake in the format."""
        try:
            found = file.fields(item)
            if not isinstance(found, dict) or "media" not in found:
                raise FormatError(
                    file.format,
                    f"gave {shown(found)} for the record; expected a dict with problem, solution, "
                    "media and problem_type",
                )
            return found | {"media": [self._media_ref(*pair) for pair in found["media"]]}
        except FieldError:
            raise
        except CODING_ERRORS as error:
            raise FormatError(file.format, error_words(error)) from error

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
        record = item if isinstance(item, Mapping) else {}
        row = UnreadableRow(
            self._row,
            line,
            reason,
            one_line(detail),
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
    """A field of an unreadable record, where it can be stored; empty otherwise."""
    value = record.get(field)
    return one_line(str(value)[:200]) if isinstance(value, str | int) else ""
