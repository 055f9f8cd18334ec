"""Records out of JSON arrays, JSON objects, JSON Lines and CSV, gzipped or not, one at a time.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Layout = Literal["array", "object", "value", "lines", "csv"]

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 18
_MAX_RECORD_CHARACTERS = 1 << 25  # a question is some kilobytes: 32 million characters are none
# A decoder that meets the end of the buffer complains at most this far from it.
_NEAR_THE_END = 64
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
    """The file's content, gunzipped where its first bytes say gzip (the name is not asked)."""
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
    }
    with open_bytes(path) as file:
        yield from readers[layout](file)


class _Window:
    """A sliding window over a text file: what is decoded is dropped, more is read on demand."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        # Undecodable bytes become lone surrogates, which are refused record by record later.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
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

    def value(self, decoder: json.JSONDecoder) -> Any:
        """Decode the value at the position; raises ValueError with a reason in one line."""
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.position)
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
    decoder = json.JSONDecoder()
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
                key = window.value(decoder)
                found = window.next_character()
                if not isinstance(key, str) or found != ":":
                    yield window.end("a key and ':'", found)
                    return
                window.advance(window.position + 1)
                window.next_character()
            value = window.value(decoder)
        except ValueError as error:
            yield BadRecord(line, f"broken JSON: {error}; nothing after this could be read")
            return
        yield Record(value, line, key)
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
        yield Record(window.value(json.JSONDecoder()), line)
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
            yield Record(json.loads(line.decode("utf-8-sig")), number)
        except UnicodeDecodeError as error:
            yield BadRecord(number, f"not UTF-8: {error.reason} at byte {error.start}")
        except RecursionError:
            yield BadRecord(number, "values are nested too deeply")
        except ValueError as error:
            yield BadRecord(number, f"not JSON: {error}")


def _read_csv(file: io.BufferedIOBase) -> Iterator[Record | BadRecord]:
    lines = (line.decode("utf-8", "surrogateescape") for line in file)
    reader = csv.reader(line.removeprefix("\ufeff") for line in lines)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRecord(line, f"not CSV: {error}")
            continue
        except _BROKEN_STREAM as error:
            yield BadRecord(line, f"the file cannot be read on: {error}")
            return
        if not cells:
            continue
        if header is None:
            header = cells
        elif len(cells) != len(header):
            yield BadRecord(line, f"{len(cells)} columns where the header has {len(header)}")
        else:
            yield Record(dict(zip(header, cells, strict=True)), line)
