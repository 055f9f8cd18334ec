"""Fields of a record as typed values, however a release writes them: numbers as texts, lists as
the text of a list. What cannot be read raises `FieldError`, which names the field.
"""

import ast
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]

_MAX_STRINGIFIED = 1 << 20
_QUOTED = re.compile(r"'[^'\\]*'|\"[^\"\\]*\"")
_STRING_LIST = re.compile(r"\[\s*(?:{0}\s*(?:,\s*{0}\s*)*)?\]".format(f"(?:{_QUOTED.pattern})"))
_PARENTHESISED = re.compile(r"(?:^|\s)(?=\([A-Z]\)\s)")


class FieldError(ValueError):
    """A record's field is missing, of a wrong type, or makes no sense."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(field, what)
        self.field = field
        self.what = what

    def __str__(self) -> str:
        return f"field {self.field!r}: {self.what}"


def text_field(record: Record, field: str, *, default: str | None = None) -> str:
    """The field as text: numbers are written out. Empty counts as missing."""
    value = record.get(field)
    if isinstance(value, str):
        text = value.strip()
    elif _is_number(value):
        text = str(value)
    elif value is None:
        text = ""
    else:
        raise FieldError(field, f"expected a text or a number, got {shown(value)}")
    if text:
        if not text.isascii():
            _refuse_lone_surrogates(text, field)
        return text
    if default is None:
        raise FieldError(field, "is empty" if field in record else "is missing")
    return default


def _refuse_lone_surrogates(text: str, field: str) -> None:
    """Bytes that were no UTF-8, or half of an escaped pair: no text that could be stored."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FieldError(field, f"no valid Unicode at character {error.start}") from None


def strings(record: Record, field: str) -> tuple[str, ...]:
    """A list of texts, or the text of such a list."""
    value = record.get(field)
    if isinstance(value, str):
        value = _list_in(value, field)
    if value is None:
        raise FieldError(field, "is missing")
    if not isinstance(value, list | tuple):
        raise FieldError(field, f"expected a list of texts, got {shown(value)}")
    return tuple(text_field({field: item}, field) for item in value)


def _list_in(text: str, field: str) -> Any:
    """`"['cat', 'dog']"` -> `["cat", "dog"]`: how VideoP2R writes options, as Python or JSON."""
    text = text.strip()
    if text in ("", "None", "nan"):
        return []
    if len(text) > _MAX_STRINGIFIED:
        raise FieldError(field, f"a list written as a text of {len(text):,} characters")
    if _STRING_LIST.fullmatch(text):
        return [quoted[1:-1] for quoted in _QUOTED.findall(text)]
    parsers: tuple[Callable[[str], Any], ...] = (json.loads, ast.literal_eval)
    for parse in parsers:
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise FieldError(field, f"expected a list of texts, got {shown(text)}")


def parenthesised(record: Record, field: str) -> tuple[str, ...]:
    """A list of texts, or one text `(A) cat (B) dog`."""
    value = record.get(field)
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return tuple(part for part in _PARENTHESISED.split(value.strip()) if part.strip())
    return strings(record, field)


def intervals(record: Record, field: str) -> tuple[tuple[float, float], ...]:
    """`[[1.2, 5.8], ...]` or one `[1.2, 5.8]`, in seconds; missing means none."""
    value = record.get(field)
    if isinstance(value, str):
        value = _list_in(value, field)
    if value is None or value == []:
        return ()
    if isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value):
        value = [value]
    found = []
    for pair in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(map(_is_number, pair)):
            raise FieldError(field, f"expected [start, end] in seconds, got {shown(pair)}")
        start, end = float(pair[0]), float(pair[1])
        if not 0 <= start <= end:
            raise FieldError(field, f"expected 0 <= start <= end, got {shown(pair)}")
        found.append((start, end))
    return tuple(found)


def _is_number(value: Any) -> bool:
    """A finite number; whole numbers beyond 2**63 are no number that a question means."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < 1 << 63
    return isinstance(value, float) and math.isfinite(value)


def shown(value: Any, length: int = 60) -> str:
    """The value on one short line."""
    shown = repr(value)
    return shown if len(shown) <= length else f"{shown[:length]}..."
