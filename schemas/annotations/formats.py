"""The table of annotation formats: what `--format` takes, how a layout is recognised and read.

A layout of your own is one row, in a file that `--plugin` imports:

    def my_fields(record):
        return {
            "problem": text_field(record, "ask"),
            "solution": text_field(record, "reply"),
            "media": (("video", text_field(record, "clip")),),
            "problem_type": ProblemType.FREE_FORM,
        }

    register_format(AnnotationFormat(
        "my-layout", "clips of mine", lambda record: "clip" in record, every_file(my_fields),
    ))

`schemas.annotations.fields` reads fields of records; what it raises becomes a row's reason.
"""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.annotations.fields import Fields, Record
from schemas.annotations.files import read_json_beside
from schemas.annotations.published import (
    NextGqaCsv,
    SeedBenchR1,
    next_gqa_json,
    own_jsonl,
    perception_test,
    perception_test_questions,
    video_r1,
)
from schemas.annotations.records import Layout
from schemas.serialization import CODING_ERRORS, error_words

FieldReader = Callable[[Record], Fields]
"""From a record to the fields of its question; raises FieldError."""

AUTO = "auto"


@dataclass(frozen=True)
class AnnotationFormat:
    """A layout of question files.

    `matches` recognises a record of this layout, for `auto`; formats that are registered later are
    tried first. `reader_of` returns the reader of a file's records, given the file and its layout.
    `questions_of`, where records hold several questions, splits one. `csv_column` is a column
    by which the header of a CSV file of this layout is known. `variants` are formats that this one
    is also published in: such a file is read as what it is.
    """

    name: str
    help: str
    matches: Callable[[Record], bool]
    reader_of: Callable[[Path, Layout], FieldReader]
    questions_of: Callable[[Any], Iterator[Record]] | None = None
    csv_column: str = ""
    variants: tuple[str, ...] = ()


FORMATS: dict[str, AnnotationFormat] = {}
"""Formats by the names that `--format` takes, without `auto`."""


def register_format(row: AnnotationFormat) -> None:
    """Add a format. Raises ValueError for a name that is taken."""
    if row.name in format_choices():
        raise ValueError(f"the annotation format {row.name!r} exists already; choose another name")
    FORMATS[row.name] = row


def format_choices() -> dict[str, str]:
    """What `--format` takes, `auto` first, each with what it is."""
    return {AUTO: "by the fields of the first records"} | {
        row.name: row.help for row in FORMATS.values()
    }


def check_format(name: str) -> None:
    """Raise ValueError, which names all formats, for a name that is none."""
    names = format_choices()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown format {name!r}: expected one of {', '.join(names)}{hint}")


def format_of(record: Record) -> AnnotationFormat | None:
    """The format whose record this is. Raises ValueError where a format's `matches` fails."""
    return next((row for row in reversed(FORMATS.values()) if _matches(row, record)), None)


def _matches(row: AnnotationFormat, record: Record) -> bool:
    try:
        return row.matches(record)
    except CODING_ERRORS as error:
        raise ValueError(
            f"the format {row.name!r} cannot tell whether a record is its own "
            f"({error_words(error)}); its `matches` gets records of every format"
        ) from error


def csv_columns() -> tuple[str, ...]:
    """Columns by which CSV files of questions are known."""
    return tuple(row.csv_column for row in FORMATS.values() if row.csv_column)


def every_file(fields: FieldReader) -> Callable[[Path, Layout], FieldReader]:
    """For `reader_of`: the same reader for every file."""
    return lambda path, layout: fields


def _next_gqa_file(path: Path, layout: Layout) -> FieldReader:
    if layout != "csv":
        return next_gqa_json
    split = path.name.split(".")[0]
    spans = read_json_beside(path, f"gsub_{split}.json")
    folders = read_json_beside(path, "map_vid_vidorID.json")
    return NextGqaCsv(split, spans, folders).fields


def _is_next_gqa(record: Record) -> bool:
    is_table_row = {"video_id", "a0", "answer"} <= record.keys()
    return "question" in record and (is_table_row or "video_path" in record or "glue" in record)


def _is_video_r1(record: Record) -> bool:
    return "problem" in record and "path" in record


for _row in (
    AnnotationFormat(
        "video-r1", "Video-R1", _is_video_r1, every_file(video_r1), csv_column="problem"
    ),
    AnnotationFormat(
        "videop2r",
        "VideoP2R, every value a text",
        lambda record: _is_video_r1(record) and isinstance(record.get("options"), str),
        every_file(video_r1),
    ),
    AnnotationFormat(
        "nextgqa",
        "NExT-GQA, its tables or the JSON of APPO and VideoChat-R1",
        _is_next_gqa,
        _next_gqa_file,
        csv_column="video_id",
    ),
    AnnotationFormat(
        "perception-test",
        "Perception Test, one object per video",
        lambda record: "mc_question" in record,
        every_file(perception_test),
        questions_of=perception_test_questions,
        variants=("video-r1", "videop2r"),  # as APPO publishes it
    ),
    AnnotationFormat(
        "seed-bench-r1",
        "SEED-Bench-R1, training or validation form",
        lambda record: "golden_choice_idx" in record or "negative_answers" in record,
        lambda path, layout: SeedBenchR1(path.name).fields,
    ),
    AnnotationFormat(
        "jsonl",
        "the fields of VideoQuestion by their names",
        lambda record: "problem" in record and "media" in record,
        every_file(own_jsonl),
    ),
):
    register_format(_row)
