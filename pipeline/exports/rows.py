"""Rows of a ledger for other trainers, what a format leaves out, JSON Lines by kind of media."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from schemas.dataset_rows import dataset_row, question_of_row
from schemas.ledger.ledger import Ledger
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES, Trace, parse_trace, render_trace
from schemas.trainer_rows import foreign_mark, with_places

MARKS_IN_TEXT = (
    "their text holds a mark as <video> or <|im_end|>, which would be read as a file's place or a"
    " turn's end"
)
# Each file has rows with the same fields, and none of them empty: readers of JSON Lines take the
# types of all rows from the first ones.
LINES_NAMES = ("p2r_video.jsonl", "p2r_image.jsonl", "p2r_mixed.jsonl")


@dataclass(frozen=True)
class Exported:
    """What an export wrote. The format cannot express `num_left_out` rows.

    `media_below` is the folder of its absolute paths; None where they are relative, or where the
    export holds the media themselves.
    """

    folder: Path
    num_rows: int
    num_left_out: int = 0
    why_left_out: str = ""
    media_below: Path | None = None


class LeftOut:
    """Rows that a format cannot express, counted by reason."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, reason: str) -> None:
        """One more row, for this reason."""
        self._counts[reason] += 1

    @property
    def number(self) -> int:
        """All of them."""
        return self._counts.total()

    @property
    def why(self) -> str:
        """The reasons, each with its number where there are several."""
        if len(self._counts) < 2:
            return "".join(self._counts)
        return "; ".join(f"{count:,} because {why}" for why, count in self._counts.most_common())


def run_options(ledger: Ledger) -> dict[str, Any]:
    """The options of the run that has the ledger open."""
    query = "SELECT config FROM runs WHERE run_id = ?"
    ((config,),) = ledger.query(query, [ledger.run_id])
    options: dict[str, Any] = json.loads(config)
    return options


def dataset_rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    """The accepted rows in the order of the question file, with the dataset's columns."""
    return (dataset_row(sample) for sample in ledger.samples())


def tuning_messages(row: Mapping[str, Any]) -> tuple[VideoQuestion, list[dict[str, str]]]:
    """The question, and two turns: the task prompt, and the trace with the gold answer in place of
    the teacher's, as in `train.sft`.
    """
    question = question_of_row(row)
    prompt = task_prompt(question, num_frames=len(row["frame_indices"])).text
    trace = parse_trace(row["output"], TEMPLATES["p2r"])
    *texts, _ = trace.texts
    target = render_trace(Trace(trace.template, (*texts, question.solution)))
    return question, [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": target},
    ]


def placed_messages(
    ledger: Ledger, left_out: LeftOut, reader: str
) -> Iterator[tuple[VideoQuestion, list[dict[str, str]]]]:
    """As `tuning_messages`, for readers of whole files that want a place for each in the prompt.

    What `reader` cannot read is counted in `left_out`.
    """
    for row in dataset_rows(ledger):
        if "spans" in row:
            left_out.add(f"{reader} reads whole files, they show a part of one")
            continue
        question, (user, assistant) = tuning_messages(row)
        if foreign_mark(user["content"], assistant["content"]):
            left_out.add(MARKS_IN_TEXT)
            continue
        yield question, [user | {"content": with_places(question, user["content"])}, assistant]


def write_lines(
    rows: Iterable[tuple[VideoQuestion, Mapping[str, Any]]], folder: Path
) -> Mapping[str, int]:
    """Write each row into the file of its kind of media (`LINES_NAMES`); how many by file name.

    Only files with rows are there; without any row, `p2r_video.jsonl` is, and empty.
    """
    counts: Counter[str] = Counter()
    files: dict[str, TextIO] = {}
    with ExitStack() as closing:
        for question, row in rows:
            kind = question.data_type if "+" not in question.data_type else "mixed"
            name = f"p2r_{kind}.jsonl"
            if name not in files:
                file = (folder / name).open("w", encoding="utf-8", newline="\n")
                files[name] = closing.enter_context(file)
            files[name].write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            counts[name] += 1
    if not files:
        (folder / LINES_NAMES[0]).touch()
        counts[LINES_NAMES[0]] = 0
    return {name: counts[name] for name in LINES_NAMES if name in counts}
