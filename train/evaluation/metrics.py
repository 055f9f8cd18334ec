"""Evaluation metrics: each is one row of a table, from which report, console and page are filled.

A metric of your own is a function of a scored answer, in a file that `--plugin` names:

    from train.evaluation.metrics import metric

    @metric("answer_words", "words")
    def answer_words(score):
        return len(score.prediction.output.split())

It is then averaged over all answers, over each problem type, data source and level:
`overall.metrics.answer_words` in report.json is `{value, n, low, high}`, the tables of console and
page have a column `words`, predictions.parquet a column `metric_answer_words`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from statistics import mean, median
from typing import Any

import numpy as np

from cli.config import UsageError
from judges.statistics.cluster_bootstrap import Estimate, sample_design, share
from schemas.questions import ProblemType, VideoQuestion
from schemas.serialization import CODING_ERRORS, error_words
from schemas.traces import TEMPLATES
from train.evaluation.scoring import NUMBERS, PARSINGS, ParsedAnswer, Parsing, SampleScore

Value = Callable[[SampleScore], float | None]
Applies = Callable[[VideoQuestion], bool]
Scores = Sequence[SampleScore]
Summary = Callable[[Scores, Sequence[float]], dict[str, Any]]

IOU_THRESHOLDS = (0.3, 0.5)
_ROUNDING = 1e-9  # by which a share may pass 0 or 1


def any_question(question: VideoQuestion) -> bool:
    """`applies` of a metric of every answer."""
    return True


def of_types(*types: ProblemType) -> Applies:
    """`applies` of a metric of some problem types."""
    return lambda question: question.problem_type in types


@dataclass(frozen=True)
class Metric:
    """One measure of an answer.

    `label` heads its column in the tables of console and page; empty: it has none. `applies` picks
    the questions that it measures; `value` gives a finite number for one scored answer, or None to
    leave the answer out. `is_share`: values lie in [0, 1] and are shown in per cent.

    The rest is for the built-in rows, whose places in report.json are older than this table: `path`
    leads to the summary (`metrics.NAME` by default), `summary` makes it from the answers and their
    values, `headline` names the number in it that the tables show.
    """

    name: str
    label: str
    applies: Applies
    value: Value
    is_share: bool = False
    path: tuple[str, ...] = ()
    summary: Summary | None = None
    headline: str = "value"

    @property
    def report_path(self) -> tuple[str, ...]:
        """The keys that lead to the summary from `overall` or from a slice."""
        return self.path or ("metrics", self.name)

    def of(self, score: SampleScore) -> float | None:
        """The value of one answer; None where the metric does not apply.

        Raises UsageError for anything but a finite number (in [0, 1] for a share) or None, and for
        a function that fails.
        """
        question = score.prediction.question
        try:
            value = self.value(score) if self.applies(question) else None
        except CODING_ERRORS as error:
            raise UsageError(
                f"the metric {self.name!r} failed on row {question.row} ({error_words(error)}); "
                "mend its function, or let it give None to leave the answer out"
            ) from error
        if value is None:
            return None
        is_usable = isinstance(value, Real) and math.isfinite(value)
        if not is_usable or (self.is_share and not -_ROUNDING <= value <= 1 + _ROUNDING):
            raise UsageError(
                f"the metric {self.name!r} gave {value!r} for row {question.row}: expected a "
                f"finite number{' in [0, 1]' if self.is_share else ''}, or None to leave the "
                "answer out"
            )
        return value

    def summarize(self, scores: Scores, values: Sequence[float]) -> dict[str, Any]:
        """What the report holds of the answers that the metric measured."""
        if self.summary is not None:
            return self.summary(scores, values)
        limits = (0.0, 1.0) if self.is_share else (min(values), max(values))
        return _mean_in_limits(scores, values, *map(float, limits))


def register_metric(row: Metric) -> Metric:
    """Add a row to the table. Raises UsageError where the name is taken."""
    if _TABLE.setdefault(row.name, row) is not row:
        raise UsageError(f"there is an evaluation metric {row.name!r} already: use another name")
    return row


def metric(
    name: str, label: str = "", *, applies: Applies = any_question, is_share: bool = False
) -> Callable[[Value], Value]:
    """Register the decorated function as the `value` of a metric; `label` is its name by default.

    Raises UsageError where the name is taken, and for `@metric` without a name.
    """
    if not isinstance(name, str):
        raise UsageError('@metric was given no name: write @metric("my_metric")')

    def register(value: Value) -> Value:
        register_metric(Metric(name, label or name, applies, value, is_share))
        return value

    return register


def all_metrics() -> tuple[Metric, ...]:
    """The table, built-in rows first."""
    return tuple(_TABLE.values())


def summarize(scores: Scores) -> dict[str, Any]:
    """The summaries of all metrics that measure any of these answers, nested by `report_path`."""
    found: dict[str, Any] = {}
    for row in all_metrics():
        values = {place: row.of(one) for place, one in enumerate(scores)}
        measured = {place: value for place, value in values.items() if value is not None}
        if measured:
            *parents, last = row.report_path
            inner = found
            for name in parents:
                inner = inner.setdefault(name, {})
            inner[last] = row.summarize([scores[n] for n in measured], list(measured.values()))
    return found


def added_metrics() -> tuple[Metric, ...]:
    """The rows that are not built in."""
    return tuple(row for row in all_metrics() if not row.path)


def added_columns(score: SampleScore) -> dict[str, float | None]:
    """One column of predictions.parquet for each added metric."""
    return {f"metric_{row.name}": row.of(score) for row in added_metrics()}


def mean_score(scores: Scores, values: Sequence[float]) -> dict[str, Any]:
    """`{n, score, low, high}`: the mean of values in [0, 1], 95 % interval, videos resampled."""
    design = sample_design([one.prediction.video for one in scores])
    found = share(np.array(values, dtype=np.float64), design)
    return {"n": len(scores), "score": float(np.mean(values))} | interval_bounds(found)


def interval_bounds(found: Estimate) -> dict[str, Any]:
    """`{low, high}` for JSON, which has no NaN: None where there is no interval (one video)."""
    low, high = float(found.low), float(found.high)
    return {"low": None if np.isnan(low) else low, "high": None if np.isnan(high) else high}


def _mean_in_limits(
    scores: Scores, values: Sequence[float], low: float, high: float
) -> dict[str, Any]:
    """`{value, n, low, high}`: the mean, with the interval of a share on the range low to high."""
    found: dict[str, Any] = {"value": float(np.mean(values)), "n": len(values)}
    if low == high:
        return found | {"low": None, "high": None}
    width = high - low
    bounds = mean_score(scores, [(float(value) - low) / width for value in values])
    return found | {
        end: None if bounds[end] is None else low + width * bounds[end] for end in ("low", "high")
    }


def _accuracy(
    answer_of: Callable[[SampleScore], ParsedAnswer], scores: Scores, values: Sequence[float]
) -> dict[str, Any]:
    answers = [answer_of(one) for one in scores]
    unparsed = sum(not answer.is_parsed for answer in answers)
    return {
        "correct": sum(answer.is_correct for answer in answers),
        **mean_score(scores, values),
        "unparsed": unparsed,
        "unparsed_share": unparsed / len(answers),
    }


def _mean_and_median(scores: Scores, values: Sequence[float]) -> dict[str, Any]:
    return {"n": len(values), "mean": round(mean(values), 2), "median": median(values)}


def _parsed_by(parsing: Parsing) -> Callable[[SampleScore], ParsedAnswer]:
    return lambda one: one.parsed(parsing)


def _score_of(parsing: Parsing) -> Value:
    return lambda one: one.parsed(parsing).score


def _relative_accuracy_of(parsing: Parsing) -> Value:
    return lambda one: one.parsed(parsing).relative_accuracy or 0.0


def _iou_of(parsing: Parsing) -> Value:
    return lambda one: one.parsed(parsing).iou


def _reaches(threshold: float, value: Value) -> Value:
    return lambda one: None if (iou := value(one)) is None else float(iou >= threshold)


def _length_of(tag: str) -> Value:
    return lambda one: one.lengths.get(tag)


def _follows_template(one: SampleScore) -> float | None:
    return None if one.trace_fault is None else float(not one.trace_fault)


def _built_in() -> Iterator[Metric]:
    """The rows of every evaluation; without a label where the tables lay out the columns."""
    yield _share("template_adherence", "", _follows_template, ("template_adherence",))
    for tag in dict.fromkeys(part.tag for one in TEMPLATES.values() for part in one.segments):
        yield Metric(
            f"{tag}_length",
            "",
            any_question,
            _length_of(tag),
            path=("lengths", tag),
            summary=_mean_and_median,
            headline="mean",
        )
    for parsing in PARSINGS:
        score = _share(f"{parsing}_score", "", _score_of(parsing), (parsing,))
        yield replace(score, summary=partial(_accuracy, _parsed_by(parsing)))
        for row in _numbers_and_spans(parsing):
            # The tables show the tolerant form alone.
            yield row if parsing == "tolerant" else replace(row, label="")
    yield _extracted_score()


def _extracted_score() -> Metric:
    """The answers with those that a language model read where rules read none."""
    score = _share("extracted_score", "with extractor", _score_of_extracted, ("extracted",))
    return replace(score, summary=partial(_accuracy, lambda one: one.extracted or one.tolerant))


def _score_of_extracted(one: SampleScore) -> float | None:
    return None if one.extracted is None else one.extracted.score


def _numbers_and_spans(parsing: Parsing) -> Iterator[Metric]:
    name, value = "mean_relative_accuracy", _relative_accuracy_of(parsing)
    row = _share(f"{parsing}_{name}", "MRA", value, (name, parsing))
    yield replace(row, applies=of_types(*NUMBERS))
    iou = _iou_of(parsing)
    yield _share(f"{parsing}_mean_iou", "mIoU", iou, ("grounding", parsing, "mean_iou"))
    for threshold in IOU_THRESHOLDS:
        name, value = f"iou_at_{threshold}", _reaches(threshold, iou)
        path = ("grounding", parsing, name)
        yield _share(f"{parsing}_{name}", f"IoU@{threshold}", value, path)


def _share(name: str, label: str, value: Value, path: tuple[str, ...]) -> Metric:
    return Metric(
        name, label, any_question, value, True, path=path, summary=mean_score, headline="score"
    )


_TABLE: dict[str, Metric] = {row.name: row for row in _built_in()}
