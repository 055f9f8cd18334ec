"""Tables whose columns say by name what they hold, and any others by `--columns`.

    --columns problem=question,options=choices,solution=answer,path=video_file

A key that is not named is looked up under its own name. Without `problem_type` a question with
options is multiple choice, one whose gold answer is a number numerical, any other free-form.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.annotations.fields import (
    FieldError,
    Fields,
    Record,
    intervals,
    list_field,
    media_kind,
    problem_type_field,
    shown,
    strings,
    text_field,
)
from schemas.annotations.golds import (
    answer_options,
    any_gold,
    interval_text,
    open_type,
    span_fields,
)
from schemas.annotations.inline_options import inline_options, looks_like_a_letter
from schemas.questions import ProblemType, strip_answer_tags

COLUMN_KEYS = (
    *("problem", "options", "solution", "path", "problem_type", "data_source"),
    *("data_type", "problem_id", "level", "start", "end", "time_clues"),
)
"""What a question is made of: the names before the `=` of `--columns`."""

_IMAGE = re.compile(r"\.(?:jpe?g|png|bmp|webp|tiff?)\Z", re.IGNORECASE)
_NEEDED = ("problem", "solution", "path")


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """`["problem=question,solution=answer"]` -> `{"problem": "question", ...}`.

    Raises ValueError, which names the fault.
    """
    found: dict[str, str] = {}
    for part in (part.strip() for word in words for part in word.split(",")):
        key, equals, column = (piece.strip() for piece in part.partition("="))
        if not part:
            continue
        if not (equals and column) or key not in COLUMN_KEYS:
            raise ValueError(
                f"expected KEY=COLUMN, with one of {', '.join(COLUMN_KEYS)} before the '=', "
                f"got {part!r}"
            )
        if key in found:
            raise ValueError(f"{key} is named twice: {found[key]!r} and {column!r}")
        found[key] = column
    return found


class Columns:
    """Reads records by the names of their columns."""

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        self._columns = {key: key for key in COLUMN_KEYS} | dict(columns or {})
        self._named = frozenset(columns or {})

    def refuse_missing(self, record: Record, where: str) -> None:
        """Raise ValueError where a file has no column of a name that was given or is needed."""
        for key in COLUMN_KEYS:
            column = self._columns[key]
            if column not in record and (key in self._named or key in _NEEDED):
                raise ValueError(
                    f"{where} has no column {column!r} for {key}; its columns are "
                    f"{', '.join(map(str, record))[:300]}: name one with --columns {key}=..."
                )

    def fields(self, record: Record) -> Fields:
        """One row."""
        row = {key: record.get(column) for key, column in self._columns.items()}
        problem, solution = text_field(row, "problem"), row["solution"]
        if isinstance(solution, str):
            solution = strip_answer_tags(solution)
        return self._answer(row, problem, solution) | {
            "media": (_medium(row),),
            "data_source": text_field(row, "data_source", default=""),
            "problem_id": text_field(row, "problem_id", default=""),
            "level": text_field(row, "level", default=""),
            "time_clues": intervals(row, "time_clues"),
        }

    def _answer(self, row: Record, problem: str, solution: Any) -> Fields:
        texts = _option_texts(row)
        given = None if row["problem_type"] in (None, "") else problem_type_field(row)
        is_choice = given in (None, ProblemType.MULTIPLE_CHOICE)
        if texts and is_choice:
            options = answer_options(texts, "options")
            gold = any_gold(options, texts, solution, "solution")
            return _choice(problem, options.lines, gold)
        if given is ProblemType.TEMPORAL_GROUNDING and isinstance(solution, list | tuple):
            spans = intervals({"solution": solution}, "solution")
            solution = ", ".join(interval_text(*span) for span in spans)
        gold = text_field({"solution": solution}, "solution")
        inline = inline_options(problem) if is_choice else None
        letter = inline.letter_of(gold) if inline else None
        if inline and letter:
            return _choice(inline.problem, inline.lines, letter)
        if is_choice and (given is not None or (looks_like_a_letter(gold))):
            raise FieldError(
                "solution",
                f"{shown(gold)} is to be an option, but there is no such option in 'options' or in "
                "the question; name their column with --columns options=...",
            )
        return {"problem": problem, "solution": gold, "problem_type": given or open_type(gold)}


def _choice(problem: str, lines: tuple[str, ...], letter: str) -> Fields:
    return {
        "problem": problem,
        "options": lines,
        "solution": letter,
        "problem_type": ProblemType.MULTIPLE_CHOICE,
    }


def _option_texts(row: Record) -> tuple[str, ...]:
    """A list of texts, the text of one, texts by letters, or a text with `|` between options."""
    value = row["options"]
    if isinstance(value, str):
        text = value.strip()
        if text and text[0] not in "[{":
            return tuple(part.strip() for part in text.split("|"))
        value = list_field(row, "options")
    if value in (None, [], {}):
        return ()
    return strings({"options": value}, "options")


def _medium(row: Record) -> tuple[Any, ...]:
    """The file: what `data_type` says, else an image by its ending and a video otherwise."""
    path = row["path"]
    if isinstance(path, dict):  # how Hugging Face datasets store a file
        if not path.get("path") or path.get("bytes"):
            raise FieldError("path", "the file is inside of the table: save it and give its path")
        path = path["path"]
    path = text_field({"path": path}, "path")
    if row["data_type"] not in (None, ""):
        kind = media_kind(row, "data_type")
    else:
        kind = "image" if _IMAGE.search(path) else "video"
    return (kind, path, *span_fields(row, "start", "end"))
