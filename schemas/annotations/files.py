"""Which files a path names, how each is laid out, and the files that belong beside it."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from schemas.annotations.grounding import is_charades_line
from schemas.annotations.records import (
    BadRecord,
    Layout,
    csv_header,
    open_bytes,
    read_records,
)
from schemas.annotations.tempcompass import is_tempcompass
from schemas.parquet_rows import is_table, table_rows, tables_in

_SNIFFED_BYTES = 1 << 16
_MEMBERS_LOOKED_AT = 8
_TABLE_NAMES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def find_files(path: Path) -> list[Path]:
    """The file at `path`, or the files its name matches as a pattern, part 2 before part 10.

    A folder is a dataset of the Hub: the Parquet or Arrow files in it, where they are of one split.
    """
    if path.is_dir():
        return sorted(tables_in(path), key=_natural_order)
    if path.exists():
        if not path.is_file():
            raise ValueError(f"{path} is not a regular file: expected a question file")
        return [path]
    if any(character in path.name for character in "*?["):
        matches = [match for match in path.parent.glob(path.name) if match.is_file()]
        if matches:
            return sorted(matches, key=_natural_order)
    raise ValueError(f"no question file at {path}")


def _natural_order(path: Path) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)
    ]


def guess_layout(path: Path, csv_columns: Collection[str] = ("video_id",)) -> Layout:
    """How the content is laid out, by its first characters, whatever the file is called.

    A text is CSV when its header has one of `csv_columns`, or when the file's name says so.
    """
    start = _first_bytes(path)
    if is_table(path, start):
        next(table_rows(path, 1), None)  # raises where it is none
        return "table"
    if not start:
        raise ValueError(f"{path} is empty: expected questions")
    if start.startswith(b"["):
        return "array"
    if not start.startswith(b"{"):
        line = start.split(b"\n", 1)[0].decode("utf-8", "replace")
        header = csv_header(line)
        is_named_so = path.name.lower().endswith(_TABLE_NAMES)
        if len(header) > 1 and (is_named_so or not set(csv_columns).isdisjoint(header)):
            return "csv"
        if is_charades_line(line):
            return "charades"
        if b"\0" in start[:1024]:
            raise ValueError(
                f"{path} is neither JSON nor CSV: it begins with the bytes {start[:8]!r}"
            )
        return "lines"
    # An object of videos, one video, or JSON Lines: the first members decide.
    for number, member in enumerate(read_records(path, "object")):
        if isinstance(member, BadRecord) or number >= _MEMBERS_LOOKED_AT:
            break
        is_object = isinstance(member.value, dict)
        if member.key == "mc_question" or (
            member.key == "metadata" and is_object and "video_id" in member.value
        ):
            return "value"
        if is_object and _is_a_video(member.value):
            return "object"
    return "lines"


def _is_a_video(value: dict[str, Any]) -> bool:
    """What files of videos by their ids hold for one: Perception Test, ActivityNet, TempCompass."""
    return (
        "metadata" in value or {"timestamps", "sentences"} <= value.keys() or is_tempcompass(value)
    )


def _first_bytes(path: Path) -> bytes:
    """The first bytes that are not white space, gunzipped."""
    try:
        with open_bytes(path) as file:
            while data := file.read1(_SNIFFED_BYTES):
                if start := data.removeprefix(b"\xef\xbb\xbf").lstrip():
                    return start
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot read {path}: {reason}") from None
    return b""


def read_json_beside(path: Path, name: str) -> dict[str, Any] | None:
    """The JSON object in the file `name` beside `path`; None where there is no such file."""
    beside = path.with_name(name)
    if not beside.is_file():
        return None
    try:
        content = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {beside}, which belongs to {path.name}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{beside}, which belongs to {path.name}, holds no JSON object")
    return content
