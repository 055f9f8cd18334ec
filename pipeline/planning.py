"""Reading the question file and looking at every path before any money is spent."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from judges.answers import validate_gold
from media.frames import MediaError
from media.store import FrameStore
from schemas.annotations import UnreadableRow, read_questions
from schemas.question_files import find_files
from schemas.questions import VideoQuestion
from schemas.samples import Reason, Rejection, Step


@dataclass(frozen=True)
class QuestionSource:
    """A question file and how to read it."""

    path: Path
    format: str = "auto"
    strip_prefix: tuple[str, ...] = ()
    limit: int | None = None

    def digest(self) -> str:
        """Names the file's content, so that a resumed build can tell whether it is the same
        file.
        """
        state = hashlib.blake2b(digest_size=16)
        for part in find_files(self.path):
            with part.open("rb") as file:
                state.update(hashlib.file_digest(file, "blake2b").digest())
        return state.hexdigest()

    def read(self) -> Iterator[VideoQuestion | UnreadableRow]:
        """Rows in file order, at most `limit` of them."""
        rows = read_questions(self.path, format=self.format, strip_prefix=self.strip_prefix)
        return islice(rows, self.limit)

    def refuse_without_questions(self) -> None:
        """Raise ValueError where not one row is a question: the file or its format is mistaken."""
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
    """A row of the question file, with its rejection where it is already out."""

    row: VideoQuestion | UnreadableRow
    rejection: Rejection | None


@dataclass
class CheckReport:
    """What `--check` prints: how many rows were read, which cannot be used, and why."""

    read: int = 0
    unusable: int = 0
    reasons: Counter[tuple[Step, Reason]] = field(default_factory=Counter)
    examples: dict[tuple[Step, Reason], str] = field(default_factory=dict)

    def add(self, planned: PlannedRow) -> None:
        """Count one row."""
        self.read += 1
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
        return "\n".join(lines)


def plan(source: QuestionSource, frames: FrameStore) -> Iterator[PlannedRow]:
    """Each row of the file with what can be known without decoding or paying: the reader's
    refusals, gold answers that no metric can score, and paths that are unsafe, missing, empty or no
    files.
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
