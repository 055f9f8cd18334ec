"""Numbers of an evaluation: overall, and by problem type, data source and level.

Intervals are 95 %, resampled by video: questions about the same clip are not independent.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from judges.comparison import Comparison, compare_judges
from judges.intervals_by_video import Estimate, sample_design, share
from schemas.questions import ProblemType
from train.evaluation.scoring import Scored

Reading = Literal["strict", "tolerant"]
READINGS: tuple[Reading, ...] = ("strict", "tolerant")
_FULL_SCORE = 1 - 1e-9
_SLICES: tuple[tuple[str, Callable[[Scored], str]], ...] = (
    ("problem type", lambda one: one.prediction.question.problem_type.value),
    ("data source", lambda one: one.prediction.question.data_source),
    ("level", lambda one: one.prediction.question.level),
)
_MAX_VALUES = 50  # of a slice: a source per row says nothing about sources


@dataclass(frozen=True)
class Score:
    """`score` is the mean of the rows' metrics, `correct` the rows with a full one, of `n`.

    `unparsed` rows have no answer of this reading, or one that answers nothing.
    """

    correct: int
    n: int
    score: float
    low: float
    high: float
    unparsed: int


@dataclass(frozen=True)
class Slice:
    """The scores of one part of the rows; what does not apply is None."""

    kind: str
    value: str
    strict: Score
    tolerant: Score
    mean_relative_accuracy: float | None
    mean_iou: float | None
    iou_at_30: float | None
    iou_at_50: float | None


@dataclass(frozen=True)
class Mismatch:
    """Think-answer mismatch on multiple choice.

    `share` is of the rows in which both reasoning and answer name an option (`compared`);
    `no_conclusion` rows are left out of it, `share_if_counted` counts them as mismatches.
    """

    rows: int
    compared: int
    mismatches: int
    no_conclusion: int
    share: float | None
    share_if_counted: float | None


@dataclass(frozen=True)
class Summary:
    """Everything that is reported of one set of predictions."""

    overall: Slice
    slices: tuple[Slice, ...]
    errors: int
    template_adherence: float | None
    mismatch: Mismatch | None

    def as_json(self) -> dict[str, Any]:
        """As in report.json: `overall.strict` and `overall.tolerant`, then the slices."""
        return {
            "overall": asdict(self.overall),
            "slices": [asdict(one) for one in self.slices],
            "errors": self.errors,
            "template_adherence": self.template_adherence,
            "mismatch": None if self.mismatch is None else asdict(self.mismatch),
        }


def summarize(scored: Sequence[Scored], *, seed: int = 0) -> Summary:
    """All numbers of a non-empty set of scored predictions."""
    faults = [one.trace_fault for one in scored if one.trace_fault is not None]
    return Summary(
        overall=_slice("overall", "", scored, seed),
        slices=tuple(_slice(kind, value, rows, seed) for kind, value, rows in _parts(scored)),
        errors=sum(bool(one.prediction.error) for one in scored),
        template_adherence=faults.count("") / len(faults) if faults else None,
        mismatch=_mismatch(scored),
    )


def compare(
    first: Sequence[Scored], second: Sequence[Scored], reading: Reading, *, seed: int = 0
) -> tuple[Comparison, int]:
    """Two runs on the questions that both answered, and how many rows had no partner.

    A row is right with a full score. McNemar's tests and the clustered interval of the difference
    (first - second) are those of `judges.comparison`.
    """
    other = {one.prediction.question_id: one for one in second}
    pairs = [
        (one, other[one.prediction.question_id])
        for one in first
        if one.prediction.question_id in other
    ]
    if not pairs:
        raise ValueError("the two files have no question in common")
    unmatched = len(first) + len(second) - 2 * len(pairs)
    design = sample_design([one.prediction.video for one, _ in pairs])
    right = [[_is_right(one, reading) for one in pair] for pair in pairs]
    return (
        compare_judges(
            [float(one) for one, _ in right],
            [float(two) for _, two in right],
            [1.0] * len(pairs),
            design,
            seed=seed,
        ),
        unmatched,
    )


def _parts(scored: Sequence[Scored]) -> Iterator[tuple[str, str, list[Scored]]]:
    for kind, value_of in _SLICES:
        values = sorted({value_of(one) for one in scored} - {""})
        if not values or len(values) > _MAX_VALUES:
            continue
        for value in values:
            yield kind, value, [one for one in scored if value_of(one) == value]


def _slice(kind: str, value: str, rows: Sequence[Scored], seed: int) -> Slice:
    numbers = [row.mean_relative_accuracy for row in rows if row.mean_relative_accuracy is not None]
    overlaps = [
        row.tolerant_score
        for row in rows
        if row.prediction.question.problem_type is ProblemType.TEMPORAL_GROUNDING
    ]
    return Slice(
        kind=kind,
        value=value,
        strict=_score(rows, "strict", seed),
        tolerant=_score(rows, "tolerant", seed),
        mean_relative_accuracy=_mean(numbers),
        mean_iou=_mean(overlaps),
        iou_at_30=_mean([float(one >= 0.3) for one in overlaps]),
        iou_at_50=_mean([float(one >= 0.5) for one in overlaps]),
    )


def _score(rows: Sequence[Scored], reading: Reading, seed: int) -> Score:
    scores = np.array([_score_of(row, reading) for row in rows])
    design = sample_design([row.prediction.video for row in rows])
    found: Estimate = share(scores, design, seed=seed)
    readable = [
        row.is_strict_readable if reading == "strict" else row.is_tolerant_readable for row in rows
    ]
    return Score(
        correct=sum(_is_right(row, reading) for row in rows),
        n=len(rows),
        score=float(scores.mean()),
        low=found.low,
        high=found.high,
        unparsed=len(rows) - sum(readable),
    )


def _score_of(row: Scored, reading: Reading) -> float:
    return row.strict_score if reading == "strict" else row.tolerant_score


def _is_right(row: Scored, reading: Reading) -> bool:
    return _score_of(row, reading) >= _FULL_SCORE


def _mismatch(scored: Sequence[Scored]) -> Mismatch | None:
    choices = [
        row
        for row in scored
        if row.prediction.question.problem_type is ProblemType.MULTIPLE_CHOICE
        and row.is_tolerant_readable
    ]
    compared = [row for row in choices if row.is_mismatch is not None]
    if not choices:
        return None
    mismatches = sum(bool(row.is_mismatch) for row in compared)
    silent = len(choices) - len(compared)
    return Mismatch(
        rows=len(choices),
        compared=len(compared),
        mismatches=mismatches,
        no_conclusion=silent,
        share=mismatches / len(compared) if compared else None,
        share_if_counted=(mismatches + silent) / len(choices),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
