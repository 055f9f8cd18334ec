"""Means with intervals over all questions and over each part of them, clustered by video."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from statistics import mean, median
from typing import Any

import numpy as np

from judges.intervals_by_video import Estimate, sample_design, share
from schemas.questions import ProblemType
from train.evaluation.constants import best_constants
from train.evaluation.scoring import NUMBERS, Reading, Scored

IOU_THRESHOLDS = (0.3, 0.5)
KINDS = ("problem type", "data source", "level")


def of_slices(scored: Sequence[Scored]) -> dict[str, dict[str, Any]]:
    """`{kind of slice: {its name: what all of it is worth}}`; kinds that say nothing are left out.

    Levels are those of SEED-Bench-R1, where a source gives them.
    """
    groups: dict[str, dict[str, list[Scored]]] = {kind: defaultdict(list) for kind in KINDS}
    for one in scored:
        question = one.prediction.question
        names = (question.problem_type.value, question.data_source, question.level)
        for kind, name in zip(KINDS, names, strict=True):
            if name:
                groups[kind][name].append(one)
    return {
        kind: {name: worth(members) for name, members in sorted(named.items())}
        for kind, named in groups.items()
        if named
    }


def worth(scored: Sequence[Scored]) -> dict[str, Any]:
    """All measures of some questions, JSON-able."""
    replies = [one for one in scored if one.trace_fault is not None]
    found: dict[str, Any] = {
        "n": len(scored),
        "videos": len({one.prediction.video for one in scored}),
        "errors": len(scored) - len(replies),
        "strict": _accuracy(scored, [one.strict for one in scored]),
        "tolerant": _accuracy(scored, [one.tolerant for one in scored]),
        "best_constant": best_constants([one.prediction.question for one in scored]),
        "trace_faults": dict(Counter(one.trace_fault for one in replies if one.trace_fault)),
        "lengths": _lengths(scored),
    }
    if replies:
        follows = [not one.trace_fault for one in replies]
        found["template_adherence"] = interval(replies, follows)
    if numbers := [one for one in scored if one.prediction.question.problem_type in NUMBERS]:
        found["mean_relative_accuracy"] = {
            name: interval(numbers, [reading.relative_accuracy or 0.0 for reading in readings])
            for name, readings in _both(numbers)
        }
    if spans := [one for one in scored if one.tolerant.iou is not None]:
        found["grounding"] = {name: _grounding(spans, of) for name, of in _both(spans)}
    if vsi := _vsi_score(scored):
        found["mean_of_numbers_and_choices"] = vsi
    return found


def interval(scored: Sequence[Scored], values: Sequence[float]) -> dict[str, Any]:
    """The mean of values in [0, 1] with its 95 % interval, videos resampled."""
    design = sample_design([one.prediction.video for one in scored])
    found = share(np.array(values, dtype=np.float64), design)
    return {"n": len(scored), "score": float(np.mean(values))} | ends(found)


def ends(found: Estimate) -> dict[str, Any]:
    """An interval's ends for JSON, which has no NaN: None where there are none (one video)."""
    low, high = float(found.low), float(found.high)
    return {"low": None if np.isnan(low) else low, "high": None if np.isnan(high) else high}


def _accuracy(scored: Sequence[Scored], readings: Sequence[Reading]) -> dict[str, Any]:
    unparsed = sum(not reading.is_parsed for reading in readings)
    return {
        "correct": sum(reading.is_correct for reading in readings),
        **interval(scored, [reading.score for reading in readings]),
        "unparsed": unparsed,
        "unparsed_share": unparsed / len(readings),
    }


def _both(scored: Sequence[Scored]) -> Iterator[tuple[str, list[Reading]]]:
    yield "strict", [one.strict for one in scored]
    yield "tolerant", [one.tolerant for one in scored]


def _grounding(scored: Sequence[Scored], readings: Sequence[Reading]) -> dict[str, Any]:
    overlaps = [reading.iou or 0.0 for reading in readings]
    return {
        "mean_iou": interval(scored, overlaps),
        **{
            f"iou_at_{threshold}": interval(scored, [iou >= threshold for iou in overlaps])
            for threshold in IOU_THRESHOLDS
        },
    }


def _vsi_score(scored: Sequence[Scored]) -> dict[str, float] | None:
    """VSI-Bench's score: the mean of numbers' relative accuracy and of accuracy on choices."""
    numbers = [one for one in scored if one.prediction.question.problem_type in NUMBERS]
    choices = [
        one for one in scored if one.prediction.question.problem_type is ProblemType.MULTIPLE_CHOICE
    ]
    if not numbers or not choices:
        return None
    accuracies = dict(_both(choices))
    return {
        name: mean(
            (
                mean(reading.relative_accuracy or 0.0 for reading in readings),
                mean(reading.score for reading in accuracies[name]),
            )
        )
        for name, readings in _both(numbers)
    }


def _lengths(scored: Sequence[Scored]) -> dict[str, Any]:
    lengths: dict[str, list[int]] = defaultdict(list)
    for one in scored:
        for tag, length in one.lengths.items():
            lengths[tag].append(length)
    return {
        tag: {"n": len(of_tag), "mean": round(mean(of_tag), 2), "median": median(of_tag)}
        for tag, of_tag in lengths.items()
    }
