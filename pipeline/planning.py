"""Reads the question file and checks every path before any money is spent."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from judges.scoring.answer_score import validate_gold
from media.frames import MediaError
from media.store import FrameStore
from schemas.annotations.columns import parse_columns
from schemas.annotations.files import find_files
from schemas.annotations.reader import UnreadableRow, format_found, read_questions
from schemas.questions import VideoQuestion
from schemas.samples import Reason, Rejection, Step
from schemas.serialization import one_line


@dataclass(frozen=True)
class QuestionSource:
    """A question file and how to read it."""

    path: Path
    format: str = "auto"
    strip_prefix: tuple[str, ...] = ()
    limit: int | None = None
    columns: tuple[str, ...] = ()
    media_root: Path | None = None

    def digest(self) -> str:
        """Hash of the file's content: a resumed build must read the same file."""
        state = hashlib.blake2b(digest_size=16)
        for part in find_files(self.path):
            with part.open("rb") as file:
                state.update(hashlib.file_digest(file, "blake2b").digest())
        return state.hexdigest()

    def read(self) -> Iterator[VideoQuestion | UnreadableRow]:
        """Rows in file order, at most `limit` of them."""
        rows = read_questions(
            self.path,
            format=self.format,
            strip_prefix=self.strip_prefix,
            columns=parse_columns(self.columns),
            media_root=self.media_root,
        )
        return islice(rows, self.limit)

    def format_found(self) -> str:
        """The name of the format in which the file is read."""
        return format_found(self.path, format=self.format, columns=parse_columns(self.columns))

    def refuse_without_questions(self) -> None:
        """Raise ValueError if no row is a question: the wrong file, or the wrong format."""
        first: UnreadableRow | None = None
        count = 0
        for row in self.read():
            if isinstance(row, VideoQuestion):
                return
            first, count = first or row, count + 1
        if first is not None:
            raise ValueError(
                f"none of the {count} rows of {self.path} is a question that --format "
                f"{self.format} can read; the first, row {first.row}: {first.detail}"
            )


@dataclass(frozen=True)
class PlannedRow:
    """A row of the question file, and its rejection if it cannot be used."""

    row: VideoQuestion | UnreadableRow
    rejection: Rejection | None


@dataclass
class CheckReport:
    """What `--check` prints: the format found, rows read, rows that cannot be used, and why.

    `first` is the first question as it was read, whether its file is there or not.
    """

    format: str = ""
    read: int = 0
    unusable: int = 0
    reasons: Counter[tuple[Step, Reason]] = field(default_factory=Counter)
    examples: dict[tuple[Step, Reason], str] = field(default_factory=dict)
    types: Counter[str] = field(default_factory=Counter)
    first: VideoQuestion | None = None

    def add(self, planned: PlannedRow) -> None:
        """Count one row."""
        self.read += 1
        if isinstance(planned.row, VideoQuestion):
            self.types[planned.row.problem_type.value] += 1
            self.first = self.first or planned.row
        if planned.rejection is None:
            return
        self.unusable += 1
        key = (planned.rejection.step, planned.rejection.reason)
        self.reasons[key] += 1
        self.examples.setdefault(key, f"row {planned.row.row}: {planned.rejection.detail}")

    def text(self) -> str:
        """The report, one line per reason, most frequent first, each with its first example."""
        lines = [f"{self.read} questions read, {self.unusable} unusable"]
        for (step, reason), count in self.reasons.most_common():
            example = self.examples[step, reason]
            lines.append(f"  {count:>7}  {step.value}: {reason.value}   (first: {example})")
        if self.format:
            types = ", ".join(f"{kind} {count}" for kind, count in self.types.most_common())
            lines += [f"format: {self.format}", f"types: {types or 'none'}"]
        if self.format and self.first is not None:
            lines.append("first row as read:")
            lines += [f"  {name}: {one_line(said)}" for name, said in _shown(self.first).items()]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "format": self.format,
            "questions": self.read,
            "unusable": self.unusable,
            "reasons": [
                {
                    "step": step.value,
                    "reason": reason.value,
                    "count": count,
                    "first": self.examples[step, reason],
                }
                for (step, reason), count in self.reasons.most_common()
            ],
            "types": dict(self.types.most_common()),
            "first_row": None if self.first is None else self.first.model_dump(mode="json"),
        }


def _shown(question: VideoQuestion) -> dict[str, str]:
    """A question's fields as a person reads them, those without a value left out."""
    media = [
        f"{ref.kind} {ref.path}" + (f" from {ref.start:g} to {ref.end:g} s" if ref.span else "")
        for ref in question.media
    ]
    fields = {
        "problem": question.problem,
        "options": " | ".join(question.options),
        "solution": question.solution,
        "problem_type": question.problem_type.value,
        "media": ", ".join(media),
        "data_source": question.data_source,
        "problem_id": question.problem_id,
        "level": question.level,
        "time_clues": ", ".join(f"{start:g} to {end:g} s" for start, end in question.time_clues),
    }
    return {name: text for name, text in fields.items() if text}


def plan(source: QuestionSource, frames: FrameStore) -> Iterator[PlannedRow]:
    """Each row of the file, checked without decoding or paying.

    Rejected are unreadable rows, gold answers that no metric can score, and paths that are unsafe,
    missing, empty or not files.
    """
    for row in source.read():
        yield PlannedRow(row, _rejection(row, frames))


def _rejection(row: VideoQuestion | UnreadableRow, frames: FrameStore) -> Rejection | None:
    if isinstance(row, UnreadableRow):
        return Rejection(Step.READ, row.reason, row.detail)
    fault = validate_gold(row)
    if fault is not None:
        return Rejection(Step.READ, Reason.INVALID_QUESTION, fault)
    for ref in row.media:
        try:
            frames.check(ref)
        except MediaError as error:
            return Rejection(Step.MEDIA, error.reason, error.detail)
    return None
