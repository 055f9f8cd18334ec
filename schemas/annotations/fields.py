"""Fields of a record as typed values, however a release writes them: numbers as texts, lists as
the text of a list. What cannot be read raises `FieldError`, which names the field.
"""

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from schemas.answer_options import LetteredOptions, letter_options
from schemas.questions import ProblemType

Record: TypeAlias = Mapping[str, Any]
Fields: TypeAlias = dict[str, Any]  # arguments of VideoQuestion, but media as (kind, path) pairs

_MAX_STRINGIFIED = 1 << 20
_QUOTED = re.compile(r"'[^'\\]*'|\"[^\"\\]*\"")
_STRING_LIST = re.compile(r"\[\s*(?:{0}\s*(?:,\s*{0}\s*)*)?\]".format(f"(?:{_QUOTED.pattern})"))
_PARENTHESISED = re.compile(r"(?:^|\s)(?=\([A-Z]\)\s)")

_PROBLEM_TYPES = {
    re.sub(r"[-_ ]", "", kind.value).casefold(): kind for kind in ProblemType
}  # "free form" and "Free-form" are one word


class FieldError(ValueError):
    """A record's field is missing, of a wrong type, or makes no sense."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(field, what)
        self.field = field
        self.what = what

    def __str__(self) -> str:
        return f"field {self.field!r}: {self.what}"


class FormatError(FieldError):
    """The functions of a format fail on a record, or give what is no question."""

    def __str__(self) -> str:
        return f"format {self.field!r}: {self.what}"


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
    """A list of texts, the text of such a list, or texts by their letters: `{"A": "cat"}`."""
    value = list_field(record, field)
    if value is None:
        raise FieldError(field, "is missing")
    if isinstance(value, dict):
        return _by_letter(value, field)
    if not isinstance(value, list | tuple):
        raise FieldError(field, f"expected a list of texts, got {shown(value)}")
    return tuple(text_field({field: item}, field) for item in value)


def list_field(record: Record, field: str) -> Any:
    """The field's value; where it is the text of a list, in Python or JSON, that list."""
    value = record.get(field)
    return _list_in(value, field) if isinstance(value, str) else value


def _by_letter(texts: Mapping[Any, Any], field: str) -> tuple[str, ...]:
    """`{"A": "cat", "B": "dog"}` -> `A. cat`, `B. dog`."""
    pairs = (
        (text_field({field: letter}, field), text_field({field: text}, field, default=""))
        for letter, text in texts.items()
    )
    lines = tuple(f"{letter}. {text}".rstrip() for letter, text in pairs)
    if len(lines) > 1 and lettered(lines, field).lettering is None:
        raise FieldError(field, f"expected texts by letters or numbers, got {shown(texts)}")
    return lines


def _list_in(text: str, field: str) -> Any:
    """`"['cat', 'dog']"` -> `["cat", "dog"]`: how VideoP2R writes options, as Python or JSON."""
    text = text.strip()
    if text in ("", "None", "nan"):
        return []
    if len(text) > _MAX_STRINGIFIED:
        raise FieldError(field, f"a list written as a text of {len(text):,} characters")
    if _STRING_LIST.fullmatch(text):
        return [quoted[1:-1] for quoted in _QUOTED.findall(text)]
    parsers: tuple[Callable[[str], Any], ...] = (json.loads, _python_list)
    for parse in parsers:
        try:
            return parse(text)
        except _JoinedTextsError as error:
            raise FieldError(
                field, f"there is no comma before {shown(str(error))} in the list {shown(text)}"
            ) from None
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise FieldError(field, f'expected a list of texts like ["cat", "dog"], got {shown(text)}')


def _python_list(text: str) -> Any:
    """A Python literal. Texts without a comma between them, which Python joins, are refused."""
    found = ast.literal_eval(text)
    before = tokenize.ENCODING
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT):
            if token.type == before == tokenize.STRING:
                raise _JoinedTextsError(token.string)
            before = token.type
    return found


class _JoinedTextsError(Exception):
    """Two texts of a list that nothing parts."""


def parenthesised(record: Record, field: str) -> tuple[str, ...]:
    """A list of texts, or one text `(A) cat (B) dog`."""
    value = record.get(field)
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return tuple(part for part in _PARENTHESISED.split(value.strip()) if part.strip())
    return strings(record, field)


def intervals(record: Record, field: str) -> tuple[tuple[float, float], ...]:
    """`[[1.2, 5.8], ...]` or one `[1.2, 5.8]`, in seconds; missing means none."""
    value = list_field(record, field)
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


def lettered(options: Sequence[str], field: str) -> LetteredOptions:
    """Options under the letters that they bring, or under A, B, C, ..."""
    try:
        return letter_options(options)
    except ValueError as error:
        raise FieldError(field, str(error)) from None


def letter_of(options: LetteredOptions, gold: str, field: str) -> str:
    """The letter of the gold answer, which is given as a letter or as an option's text."""
    try:
        return options.letter_of(gold)
    except ValueError as error:
        raise FieldError(field, str(error)) from None


def letter_of_index(options: LetteredOptions, record: Record, field: str) -> str:
    """The letter of an option given by its index from 0, as a number or as its digits."""
    index = text_field(record, field)
    if not (index.isascii() and index.isdigit()):
        raise FieldError(field, f"expected an option's index from 0, got {shown(index)}")
    try:
        return options.letter_of_index(int(index))
    except ValueError as error:
        raise FieldError(field, str(error)) from None


def media_kind(record: Record, field: str) -> str:
    """`video` or `image`."""
    kind = text_field(record, field)
    if kind not in ("video", "image"):
        raise FieldError(field, f"expected video or image, got {shown(kind)}")
    return kind


def problem_type_field(record: Record) -> ProblemType:
    """The field `problem_type`, upper or lower case, with or without hyphens."""
    given = text_field(record, "problem_type")
    problem_type = _PROBLEM_TYPES.get(re.sub(r"[-_ ]", "", given).casefold())
    if problem_type is None:
        known = ", ".join(kind.value for kind in ProblemType)
        raise FieldError("problem_type", f"expected one of {known}, got {shown(given)}")
    return problem_type


def _is_number(value: Any) -> bool:
    """A finite number; whole numbers beyond 2**63 are refused."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < 1 << 63
    return isinstance(value, float) and math.isfinite(value)


def shown(value: Any, length: int = 60) -> str:
    """The value on one short line."""
    shown = repr(value)
    return shown if len(shown) <= length else f"{shown[:length]}..."
