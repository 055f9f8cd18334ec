"""Records out of JSON, JSON Lines, CSV (gzipped or not) and Parquet, one at a time.

Memory stays constant however long the file is. A record that cannot be read is a `BadRecord` and
the next one follows; where the syntax of a JSON array breaks, what stood before the break has been
yielded and the break itself is the last `BadRecord`.

A JSON array is decoded value by value with the standard library's decoder rather than by events:
that is what keeps the line of every record known, and what lets the NaN that Python writes pass.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from schemas.annotations.grounding import CHARADES_LINE
from schemas.parquet_rows import table_rows

Layout = Literal["array", "object", "value", "lines", "csv", "charades", "table"]

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 18
_MAX_RECORD_CHARACTERS = 1 << 25  # a question is some kilobytes: 32 million characters are none
# A decoder that meets the end of the buffer complains at most this far from it.
_NEAR_THE_END = 64
_ROWS_AT_ONCE = 256  # of a table; a row may hold pictures
_BROKEN_STREAM = (OSError, EOFError, zlib.error)  # OSError: gzip's own checks


@dataclass(frozen=True)
class Record:
    """One value of a file, the line it begins in (from 1), and its key in a JSON object."""

    value: Any
    line: int
    key: str = ""


@dataclass(frozen=True)
class BadRecord:
    """A place where no value could be read, and why, in one line."""

    line: int
    detail: str


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedIOBase]:
    """The file's content, gunzipped where its first bytes are gzip's, whatever its name."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if not is_gzip:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unzipped:
            yield unzipped


def read_records(path: Path, layout: Layout) -> Iterator[Record | BadRecord]:
    """All records of `path`, in file order."""
    readers: dict[Layout, Callable[[io.BufferedIOBase], Iterator[Record | BadRecord]]] = {
        "array": _read_json_values,
        "object": _read_json_values,
        "value": _read_json_value,
        "lines": _read_lines,
        "csv": _read_csv,
        "charades": _read_charades,
    }
    if layout == "table":
        yield from _read_table(path)
        return
    with open_bytes(path) as file:
        yield from readers[layout](file)


class _Window:
    """A sliding window over a text file: what is decoded is dropped, more is read on demand."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        # Undecodable bytes become lone surrogates, which are refused record by record later.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._decode = json.JSONDecoder(object_pairs_hook=self._members).raw_decode
        self.twice = ""  # a field that the last value has twice, with different values
        self.text = ""
        self.position = 0
        self.line = 1
        self._is_at_end = False
        self.fault = ""  # why the stream ended before its end, where it did

    def read_more(self) -> bool:
        """Append at least as much as is left to decode; False, and nothing moves, at the end."""
        left = self.text[self.position :]
        more: list[str] = []
        wanted = max(_CHUNK_BYTES, len(left))
        while (wanted > 0 or not any(more)) and not self._is_at_end:
            try:
                # read1 hands over what it has: a gzip stream that breaks loses nothing before it.
                data = self._file.read1(max(wanted, 1))
            except _BROKEN_STREAM as error:
                self.fault = f"the file cannot be read on: {error}"
                data = b""
            self._is_at_end = not data
            wanted -= len(data)
            more.append(self._decoder.decode(data, final=self._is_at_end))
        if not any(more):
            return False
        self.text, self.position = "".join([left, *more]), 0
        return True

    def advance(self, position: int) -> None:
        self.line += self.text.count("\n", self.position, position)
        self.position = position

    def next_character(self) -> str:
        """The next character that is not white space, or an empty string at the end."""
        while True:
            rest = self.text[self.position : self.position + 1024]
            stripped = rest.lstrip(" \t\r\n")
            self.advance(self.position + len(rest) - len(stripped))
            if stripped:
                return stripped[0]
            if self.position >= len(self.text) and not self.read_more():
                return ""

    def _members(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self.twice = self.twice or _twice(pairs)
        return dict(pairs)

    def value(self) -> Any:
        """Decode the value at the position; raises ValueError with a reason in one line."""
        while True:
            self.twice = ""
            try:
                value, end = self._decode(self.text, self.position)
            except json.JSONDecodeError as error:
                left = len(self.text) - self.position
                if left > _MAX_RECORD_CHARACTERS:
                    raise ValueError(f"one record is longer than {left:,} characters") from None
                is_cut = error.msg.startswith("Unterminated string") or (
                    error.pos >= len(self.text) - _NEAR_THE_END
                )
                if is_cut and self.read_more():
                    continue
                self.advance(min(error.pos, len(self.text)))
                raise ValueError(self.fault or f"{error.msg} (line {self.line})") from None
            except RecursionError:
                raise ValueError("values are nested too deeply") from None
            # Of a number the window may show a part that is a number too: `1.` or `1e-` of `1e-5`.
            is_number = isinstance(value, int | float)
            if is_number and end >= len(self.text) - len("e-") and self.read_more():
                continue
            self.advance(end)
            return value

    def end(self, expected: str, found: str) -> BadRecord:
        """The BadRecord of a file that does not go on as it must."""
        if self.fault or not found:
            reason = self.fault or f"the file ends in line {self.line} without {expected}"
        else:
            reason = f"expected {expected} in line {self.line}, found {found!r}"
        return BadRecord(self.line, f"{reason}; nothing after this could be read")


def _read_json_values(file: io.BufferedIOBase) -> Iterator[Record | BadRecord]:
    """The elements of a JSON array, or the members of a JSON object with their keys."""
    window = _Window(file)
    opening = window.next_character()
    closing = "]" if opening == "[" else "}"
    window.advance(window.position + 1)
    found = window.next_character()
    while found != closing:
        if not found:
            yield window.end(repr(closing), found)
            return
        line, key = window.line, ""
        try:
            if closing == "}":
                key = window.value()
                found = window.next_character()
                if not isinstance(key, str) or found != ":":
                    yield window.end("a key and ':'", found)
                    return
                window.advance(window.position + 1)
                window.next_character()
            value = window.value()
        except ValueError as error:
            yield BadRecord(line, f"broken JSON: {error}; nothing after this could be read")
            return
        yield (
            BadRecord(line, _said_twice(window.twice)) if window.twice else Record(value, line, key)
        )
        found = window.next_character()
        if found == closing:
            break
        if found != ",":
            yield window.end(f"',' or {closing!r}", found)
            return
        window.advance(window.position + 1)
        found = window.next_character()
        if found == closing:
            yield window.end("a value after ','", found)
            return
    window.advance(window.position + 1)
    extra = window.next_character()
    if extra or window.fault:
        yield window.end("nothing more", extra)


def _read_json_value(file: io.BufferedIOBase) -> Iterator[Record | BadRecord]:
    """The whole file as one value."""
    window = _Window(file)
    window.next_character()
    line = window.line
    try:
        value = window.value()
        yield BadRecord(line, _said_twice(window.twice)) if window.twice else Record(value, line)
    except ValueError as error:
        yield BadRecord(line, f"broken JSON: {error}")


def _read_lines(file: io.BufferedIOBase) -> Iterator[Record | BadRecord]:
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(_MAX_RECORD_CHARACTERS)
            if len(line) >= _MAX_RECORD_CHARACTERS and not line.endswith(b"\n"):
                while not (rest := file.readline(_MAX_RECORD_CHARACTERS)).endswith(b"\n") and rest:
                    pass
                yield BadRecord(number, f"a line longer than {_MAX_RECORD_CHARACTERS:,} bytes")
                continue
        except _BROKEN_STREAM as error:
            yield BadRecord(number, f"the file cannot be read on: {error}")
            return
        if not line:
            return
        if not line.strip(b" \t\r\n\xef\xbb\xbf"):
            continue
        try:
            value = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_members_said_once)
            yield Record(value, number)
        except UnicodeDecodeError as error:
            yield BadRecord(number, f"not UTF-8: {error.reason} at byte {error.start}")
        except RecursionError:
            yield BadRecord(number, "values are nested too deeply")
        except _TwiceError as error:
            yield BadRecord(number, str(error))
        except ValueError as error:
            yield BadRecord(number, f"not JSON: {error}")


def _read_table(path: Path) -> Iterator[Record | BadRecord]:
    """The rows of a Parquet or Arrow file; a "line" is a row's number, from 1."""
    line = 0
    try:
        for line, row in enumerate(table_rows(path, _ROWS_AT_ONCE), start=1):
            yield Record(row, line)
    except ValueError as error:
        yield BadRecord(line + 1, f"{error}; nothing after this could be read")


def _read_charades(file: io.BufferedIOBase) -> Iterator[Record | BadRecord]:
    """Lines of Charades-STA, each under one field."""
    try:
        for number, line in enumerate(file, start=1):
            text = line.decode("utf-8", "surrogateescape").removeprefix("\ufeff").strip()
            if text:
                yield Record({CHARADES_LINE: text}, number)
    except _BROKEN_STREAM as error:
        yield BadRecord(1, f"the file cannot be read on: {error}")


class _TwiceError(ValueError):
    """A field stands in an object twice, with different values."""


def _twice(pairs: Sequence[tuple[str, Any]]) -> str:
    """The name that stands in an object twice, with different values; empty where none does."""
    members = dict(pairs)
    if len(members) == len(pairs):
        return ""
    return next((name for name, value in pairs if members[name] != value), "")


def _members_said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if name := _twice(pairs):
        raise _TwiceError(_said_twice(name))
    return dict(pairs)


def _said_twice(name: str) -> str:
    return f"the field {name[:60]!r} stands there twice, with different values"


def csv_header(line: str) -> list[str]:
    """The columns that the first line of a CSV file names, without white space around them."""
    try:
        cells = next(csv.reader([line], delimiter=_delimiter(line)), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in cells]


def _delimiter(header: str) -> str:
    """Comma, or what spreadsheets write where the comma is a decimal point."""
    return max(",;\t", key=header.count)


class _Lines:
    """The lines of a table. Those that a record took can be given back, all but its first one."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        decoded = (line.decode("utf-8", "surrogateescape") for line in file)
        self._source = (line.removeprefix("\ufeff") for line in decoded)
        self._given_back: deque[str] = deque()
        self.taken: list[str] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else next(self._source)
        self.taken.append(line)
        self.number += 1
        return line

    def begin_record(self) -> int:
        """The number of the line that comes next, from 1; what was taken before stays taken."""
        self.taken.clear()
        return self.number + 1

    def give_back(self, first: int = 1) -> None:
        """Let the lines from the `first` one of this record on be read again."""
        back = self.taken[first:]
        self._given_back.extendleft(reversed(back))
        self.number -= len(back)
        del self.taken[first:]


def _read_csv(file: io.BufferedIOBase) -> Iterator[Record | BadRecord]:
    lines = _Lines(file)
    try:
        while not (start := next(lines, "\0")).strip():
            pass
    except _BROKEN_STREAM as error:
        yield BadRecord(1, f"the file cannot be read on: {error}")
        return
    delimiter = _delimiter(start)
    lines.give_back(0)
    header: list[str] | None = None
    while True:
        line = lines.begin_record()
        cells: list[str] = []
        fault = ""
        try:
            # Loosely read, a quote that is not closed would swallow the rows behind it.
            cells = next(csv.reader(lines, delimiter=delimiter, strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            fault = f"not CSV: {error}"
        except _BROKEN_STREAM as error:
            yield BadRecord(line, f"the file cannot be read on: {error}")
            return
        if header is None:
            header = [cell.strip() for cell in cells]
            named = [name for name in header if name]
            if name := next((name for name in named if named.count(name) > 1), ""):
                fault = f"the header has the column {name!r} twice"
            if fault:
                yield BadRecord(line, f"{fault}; nothing after this could be read")
                return
            header = header if named else None
            continue
        if not cells and not fault:
            continue
        if not fault and len(cells) != len(header):
            fault = f"{len(cells)} columns where the header has {len(header)}"
        if not fault:
            yield Record(dict(zip(header, cells, strict=True)), line)
            continue
        if _hold_a_row(lines.taken[1:], delimiter, len(header)):
            lines.give_back()
        yield BadRecord(line, fault)


def _hold_a_row(lines: Sequence[str], delimiter: str, num_columns: int) -> bool:
    """Whether one of the lines is a whole row: then it was no part of the broken one before it."""
    for line in lines:
        try:
            cells = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        if len(cells) == num_columns:
            return True
    return False
