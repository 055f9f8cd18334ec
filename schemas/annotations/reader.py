"""Question files: every annotation format comes in as `VideoQuestion`s, row by row.

A row that cannot be read is an `UnreadableRow` with its place and reason, and the rest goes on.
Nothing here opens media or checks their paths; `media.paths` does.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from schemas.annotations.columns import Columns
from schemas.annotations.fields import FieldError, Fields, FormatError, Record, shown
from schemas.annotations.files import find_files, guess_layout
from schemas.annotations.formats import (
    AUTO,
    FORMATS,
    AnnotationFormat,
    FieldReader,
    check_format,
    csv_columns,
    the_format,
)
from schemas.annotations.records import BadRecord, Layout, read_records
from schemas.questions import MediaRef, VideoQuestion
from schemas.samples import Reason
from schemas.serialization import CODING_ERRORS, content_id, error_words, one_line

_MARK = "answerable_blind"
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
    path: Path,
    *,
    format: str = "auto",
    strip_prefix: tuple[str, ...] = (),
    columns: Mapping[str, str] | None = None,
    media_root: Path | None = None,
) -> Iterator[VideoQuestion | UnreadableRow]:
    """The rows of a question file, numbered from 0 in file order; duplicates are unreadable.

    `path` is one file, gzipped or not; where no such file exists its name may be a pattern
    (`VideoP2R-263k_rl.part*.json.gz`) whose files are read in order. Each of `strip_prefix` is
    taken off the front of media paths, and so is `media_root` where a path is absolute. `columns`
    are names of columns, by what they hold (see `schemas.annotations.columns`). Raises ValueError,
    before the first row, with one sentence: no such file, empty, an unknown format, two that fit.
    """
    if any(not prefix.strip("/") for prefix in strip_prefix):
        raise ValueError("a path prefix to strip must name a folder, got an empty one")
    files = _open_files(path, format, columns or {})
    if media_root is not None:
        roots = {os.path.abspath(media_root), os.path.realpath(media_root)}
        strip_prefix = (*strip_prefix, *sorted(roots - {"/"}))
    return _Reader(files, strip_prefix).rows()


def format_found(
    path: Path, *, format: str = "auto", columns: Mapping[str, str] | None = None
) -> str:
    """The name of the format in which `read_questions` reads a file; several, joined by `, `, where
    the files that a pattern names differ. Raises ValueError as it does.
    """
    files = _open_files(path, format, columns or {})
    return ", ".join(dict.fromkeys(file.format for file in files))


def _open_files(path: Path, format: str, columns: Mapping[str, str]) -> "list[_QuestionFile]":
    check_format(format)
    if columns and format not in (AUTO, "columns"):
        raise ValueError(
            f"--columns was given with --format {format}, which has columns of its own; leave one"
            " of them out"
        )
    return [_open_file(file, format, columns) for file in find_files(path)]


@dataclass(frozen=True)
class _QuestionFile:
    path: Path
    format: str
    layout: Layout
    fields: FieldReader
    questions_of: Callable[[Any], Iterator[Record]] | None
    key_field: str = ""


def _open_file(path: Path, format: str, columns: Mapping[str, str]) -> _QuestionFile:
    layout = guess_layout(path, (*csv_columns(), *columns.values()))
    first = list(islice(read_records(path, layout), _RECORDS_LOOKED_AT))
    if not first:
        raise ValueError(f"{path} holds no questions: expected at least one row")
    if columns:
        return _file_of_columns(path, layout, first, columns)
    try:
        chosen = _format_of_file(first, format, layout)
    except ValueError as error:
        raise ValueError(f"cannot tell the format of {path}: {error}") from None
    if chosen is None:
        raise ValueError(f"cannot tell the format of {path}: {_what_was_seen(first)}")
    return _QuestionFile(
        path,
        chosen.name,
        layout,
        _reader_of(chosen, path, layout),
        chosen.questions_of,
        chosen.key_field,
    )


def _file_of_columns(
    path: Path, layout: Layout, first: Sequence[Any], columns: Mapping[str, str]
) -> _QuestionFile:
    reader = Columns(columns)
    objects = _objects(first)
    if not objects:
        raise ValueError(f"{path} has no columns: {_what_was_seen(list(first))}")
    reader.refuse_missing({name: None for record in objects for name in record}, str(path))
    return _QuestionFile(path, "columns", layout, reader.fields, None)


def _objects(first: Sequence[Any], key_field: str = "") -> list[dict[str, Any]]:
    return [
        ({key_field: record.key} if key_field and record.key else {}) | record.value
        for record in first
        if not isinstance(record, BadRecord) and isinstance(record.value, dict)
    ]


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


def _format_of_file(first: Sequence[Any], name: str, layout: Layout) -> AnnotationFormat | None:
    """The format to read a file in that begins with these records; None where none fits."""
    objects = _objects(first)
    if name != AUTO and objects and not FORMATS[name].variants:
        return FORMATS[name]
    found = the_format(objects, layout)
    if name == AUTO or not objects or found in FORMATS[name].variants:
        return None if found is None else FORMATS[found]
    return FORMATS[name]


def _what_was_seen(first: list[Any]) -> str:
    for record in first:
        if not isinstance(record, BadRecord):
            value = record.value
            if isinstance(value, dict):
                names = ", ".join(list(value)[:12])
                return (
                    f"its first record has the fields {names[:200]}; known are "
                    f"{', '.join(FORMATS)}; name its columns with --columns, or its format with "
                    "--format"
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
                value = record.value
                if file.key_field and record.key:
                    value = {file.key_field: record.key} | value
                for item in self._questions(file, value):
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
            is_marked = isinstance(item, Mapping) and _MARK in item
            others = {name: item[name] for name in item if name != _MARK} if is_marked else item
            found = file.fields(others)
            if not isinstance(found, dict) or "media" not in found:
                raise FormatError(
                    file.format,
                    f"gave {shown(found)} for the record; expected a dict with problem, solution, "
                    "media and problem_type",
                )
            found = found | {"media": [self._media_ref(*pair) for pair in found["media"]]}
            return found | ({_MARK: _mark(item[_MARK])} if is_marked else {})
        except FieldError:
            raise
        except CODING_ERRORS as error:
            raise FormatError(file.format, error_words(error)) from error

    def _media_ref(
        self,
        kind: Literal["video", "image"],
        path: str,
        start: float | None = None,
        end: float | None = None,
    ) -> MediaRef | dict[str, str]:
        if "\0" in path:
            raise FieldError("path", f"a path cannot hold a NUL character, got {shown(path)}")
        path = _without_dots(path)
        for prefix in self._prefixes:
            if path.startswith(prefix):
                path = _without_dots(path.removeprefix(prefix).lstrip("/"))
                break
        if not path:
            raise FieldError("path", "is empty once its prefix is stripped")
        if start is None and end is None:
            return {"kind": kind, "path": path}
        try:
            return MediaRef(kind=kind, path=path, start=start, end=end)
        except ValidationError as error:
            message = error.errors(include_url=False, include_context=False)[0]["msg"]
            raise FieldError("media", message.removeprefix("Value error, ")) from None

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


def _mark(value: Any) -> bool | None:
    """What a text reader found out about a question, in a file of any layout. Raises FieldError."""
    marks = {"true": True, "false": False, "": None}
    if isinstance(value, str) and value.strip().lower() in marks:
        return marks[value.strip().lower()]
    if value is None or isinstance(value, bool):
        return value
    raise FieldError(_MARK, f"expected true, false or null, got {shown(value)}")


def _without_dots(path: str) -> str:
    """`./a/b` -> `a/b`; anything else, `..` included, stays for the media room to judge."""
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path


def _named(record: Record, field: str) -> str:
    """A field of an unreadable record, where it can be stored; empty otherwise."""
    value = record.get(field)
    return one_line(str(value)[:200]) if isinstance(value, str | int) else ""
