"""Two runs on the same questions: which is right more often, and could it be chance."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from judges.comparison import compare_judges
from judges.intervals_by_video import sample_design, share
from train.evaluation.scoring import Reading, Scored
from train.evaluation.slices import ends

READINGS = ("strict", "tolerant")


def compare_runs(first: Sequence[Scored], second: Sequence[Scored]) -> dict[str, Any]:
    """Questions of both runs, matched by content id, and what belongs to one run alone.

    For each reading: McNemar's table and p-values of what counts as correct, and the difference of
    mean scores (first - second) with its interval, videos resampled. Raises ValueError where the
    runs share no question.
    """
    one, two = _by_question(first), _by_question(second)
    shared = [name for name in one if name in two]
    if not shared:
        raise ValueError(
            f"the runs share no question ({len(one)} and {len(two)} of their own): expected "
            "answers to the same question file"
        )
    pairs = [(one[name], two[name]) for name in shared]
    return {
        "matched": len(shared),
        "only_in_first": len(one) - len(shared),
        "only_in_second": len(two) - len(shared),
        "repeated_questions_left_out": len(first) - len(one) + len(second) - len(two),
        **{reading: _compared(pairs, reading) for reading in READINGS},
    }


def _by_question(scored: Sequence[Scored]) -> dict[str, Scored]:
    """The first prediction of each question."""
    found: dict[str, Scored] = {}
    for one in scored:
        found.setdefault(one.prediction.question_id, one)
    return found


def _compared(pairs: Sequence[tuple[Scored, Scored]], reading: str) -> dict[str, Any]:
    first = [_reading(one, reading) for one, _ in pairs]
    second = [_reading(two, reading) for _, two in pairs]
    design = sample_design([one.prediction.video for one, _ in pairs])
    correct = compare_judges(
        [float(one.is_correct) for one in first],
        [float(two.is_correct) for two in second],
        np.ones(len(pairs)),
        design,
    )
    gains = np.array([one.score - two.score for one, two in zip(first, second, strict=True)])
    # A difference lies in [-1, 1]; its half, moved up by a half, is a share like any other.
    difference = correct.difference
    if not np.isin(gains, (-1.0, 0.0, 1.0)).all():
        found = share((gains + 1) / 2, design)
        difference = type(found)(*(2 * end - 1 for end in (found.value, found.low, found.high)))
    table = asdict(correct)
    return {
        "first_score": float(np.mean([one.score for one in first])),
        "second_score": float(np.mean([two.score for two in second])),
        "difference": {"score": float(gains.mean())} | ends(difference),
        "videos": correct.num_videos,
        **{
            name: table[name]
            for name in ("both_right", "only_first_right", "only_second_right", "neither_right")
        },
        "mcnemar_exact_p": correct.exact_p,
        "mcnemar_clustered_p": correct.clustered_p,
    }


def _reading(one: Scored, name: str) -> Reading:
    return one.strict if name == "strict" else one.tolerant
