"""Gold answers as the layouts write them: a text, a letter, an index, or any of these.

What a format publishes decides how its gold is read, never the look of one value: `E` is a letter
in Video-MME and a text in MVBench, `"2"` an index in one table and a text in another.
"""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.annotations.fields import (
    FieldError,
    Record,
    letter_of,
    lettered,
    shown,
    strings,
    text_field,
)
from schemas.answer_options import LetteredOptions
from schemas.questions import ProblemType

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?\Z|[-+]?\.\d+\Z")


def answer_options(texts: Sequence[str], field: str) -> LetteredOptions:
    """The options under A, B, C, ...; where the letter would be all that one says, by place.

    So `["l", "v"]` are the texts `A. l` and `B. v`, not the letters L and V.
    """
    options = lettered(texts, field)
    if "" not in options.texts:
        return options
    plain = tuple(text.strip() for text in texts)
    if "" in plain:
        raise FieldError(field, f"option {plain.index('') + 1} of {len(plain)} is empty")
    return LetteredOptions(plain, tuple(string.ascii_uppercase[: len(plain)]))


def letter_of_text(options: LetteredOptions, texts: Sequence[str], gold: str, field: str) -> str:
    """The letter of the option whose text is `gold`; a letter is never meant."""
    for known in (tuple(text.strip() for text in texts), options.texts):
        if gold in known:
            return options.letter_of_index(known.index(gold))
    raise FieldError(field, f"{shown(gold)} is the text of none of the {len(texts)} options")


def filled_options(record: Record, field: str) -> tuple[str, ...]:
    """Options by their letters, `{"A": "cat", "B": ""}`, without empty ones; or a list of texts."""
    value = record.get(field)
    if isinstance(value, dict):
        kept = {letter: text for letter, text in value.items() if text not in ("", None)}
        return strings({field: kept}, field)
    return () if value in (None, "") else strings(record, field)


def any_gold(options: LetteredOptions, texts: Sequence[str], value: Any, field: str) -> str:
    """The letter of a gold answer that is a letter, a text, or an index from 0.

    Raises FieldError for what names no option, and for what could name two: the number 2 beside the
    option `2`. Then only the file's author knows.
    """
    gold = text_field({field: value}, field)
    readings: dict[str, str] = {}
    if gold.isascii() and gold.isdigit() and int(gold) < len(options.texts):
        readings["its index from 0"] = options.letter_of_index(int(gold))
    try:
        readings["its letter or text"] = (
            letter_of_text(options, texts, gold, field)
            if gold in map(str.strip, texts)
            else letter_of(options, gold, field)
        )
    except FieldError:
        if not readings:
            raise
    if len(set(readings.values())) > 1:
        named = " and ".join(f"{letter} by {how}" for how, letter in readings.items())
        raise FieldError(field, f"{shown(gold)} could be {named}; give letters")
    return next(iter(readings.values()))


def open_type(gold: str) -> ProblemType:
    """The type of a question without options whose layout names none: a number or a text."""
    return ProblemType.NUMERICAL if _NUMBER.match(gold) else ProblemType.FREE_FORM


def seconds(value: Any, field: str) -> float:
    """A time in seconds, as a number or as its text."""
    text = text_field({field: value}, field)
    try:
        return float(text)
    except ValueError:
        raise FieldError(field, f"expected seconds, got {shown(value)}") from None


def span_fields(record: Mapping[str, Any], start: str, end: str) -> tuple[float, ...]:
    """`(start, end)` of a clip in seconds, from the two fields; empty where neither is given."""
    given = [field for field in (start, end) if record.get(field) not in (None, "")]
    if not given:
        return ()
    if len(given) == 1:
        raise FieldError(given[0], f"a clip needs {start} and {end}, got only {given[0]}")
    return seconds(record[start], start), seconds(record[end], end)


def interval_text(start: float, end: float) -> str:
    """The gold answer of a grounding question: `3.2 to 8`."""
    return f"{start:.10g} to {end:.10g}"
