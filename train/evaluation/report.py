"""The report of one set of answers as one JSON object: what console and page print."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from judges.statistics.cluster_bootstrap import Estimate, sample_design, share
from judges.statistics.paired_comparison import compare_judges
from schemas.traces import TEMPLATES
from train.evaluation.metrics import interval_bounds, mean_score
from train.evaluation.predictions import NO_OBSERVATION, Prediction, Predictions, RunConditions
from train.evaluation.scoring import (
    PARSINGS,
    ParsedAnswer,
    SampleScore,
    gold_fault,
    most_followed,
    score_prediction,
)
from train.evaluation.slices import aggregate_metrics, slice_metrics

RULES = "rules"
# VideoP2R, table 6, MMVU, in per cent, for comparison. Its extractor is Claude 3.7.
PUBLISHED_MMVU = {"VideoChat-R1": 11.9, "Qwen2.5-VL-7B": 3.5, "VideoP2R 7B": 7.9}


@dataclass(frozen=True)
class ScoredAnswers:
    """The scores of one run, and the rows that could not be scored, each with its reason."""

    conditions: RunConditions
    template: str
    scores: tuple[SampleScore, ...]
    unreadable: tuple[str, ...] = ()
    without_gold: tuple[str, ...] = ()


def score_all(found: Predictions, *, template: str = "") -> ScoredAnswers:
    """Score all predictions.

    `template` takes precedence over that of the conditions; without either, adherence is measured
    against the template that most replies follow. Raises ValueError where no question can be
    scored.
    """
    name = template or found.conditions.template or most_followed(found.predictions).name
    if name not in TEMPLATES:
        raise ValueError(f"no trace template {name!r}: expected one of {', '.join(TEMPLATES)}")
    scores, without_gold = [], []
    for one in found.predictions:
        if fault := gold_fault(one):
            without_gold.append(f"{_row(one)}: {fault}")
        else:
            scores.append(score_prediction(one, TEMPLATES[name]))
    if not scores:
        why = f": {without_gold[0]}" if without_gold else ""
        raise ValueError(f"there is no question whose gold answer can be read{why}")
    return ScoredAnswers(
        found.conditions, name, tuple(scores), found.unreadable, tuple(without_gold)
    )


def report_of(answers: ScoredAnswers, *, extractor: str = RULES) -> dict[str, Any]:
    """`overall.strict` and `overall.tolerant` (`{correct, n, score, ...}`), the slices, the rest.

    `correct` counts answers whose task metric reaches 0.6, as in the builder; `score` is the mean
    of the task metrics, in [0, 1]. `extractor` names what read the reasonings' conclusions.
    """
    scores = answers.scores
    has_tokens = any(one.prediction.token_counts is not None for one in scores)
    finished = [one.prediction.finish_reason for one in scores]
    return {
        "conditions": {**asdict(answers.conditions), "sentence": answers.conditions.sentence()},
        "template": answers.template,
        "overall": aggregate_metrics(scores),
        "slices": slice_metrics(scores),
        "mismatch": think_answer_mismatch(scores, extractor),
        "lengths_in": "tokens" if has_tokens else "words",
        "truncated": finished.count("length"),
        "without_observation": finished.count(NO_OBSERVATION),
        "errors": [
            {"row": _row(one.prediction), "error": one.prediction.error}
            for one in scores
            if one.prediction.error
        ],
        "unreadable": list(answers.unreadable),
        "without_usable_gold": list(answers.without_gold),
        "differs_from_published": [_difference(one) for one in scores if _differs(one)],
    }


def think_answer_mismatch(scores: Sequence[SampleScore], extractor: str) -> dict[str, Any] | None:
    """How often the answer is not what the reasoning concludes; None without such reasonings.

    VideoP2R (arXiv 2511.11113, section 12, table 6): of multiple choice replies whose reasoning and
    answer both name an option, the share in which they differ. Reasonings that conclude nothing
    (`No` in the paper) are counted apart, with the share if each of them were a mismatch.
    """
    reasoned = [one for one in scores if one.reasoning]
    if not reasoned:
        return None
    answered = [one for one in reasoned if one.tolerant.is_parsed]
    compared = [one for one in answered if one.is_mismatch is not None]
    silent = len(answered) - len(compared)
    found: dict[str, Any] = {
        "extractor": extractor,
        "reasonings": len(reasoned),
        "without_answer": len(reasoned) - len(answered),
        "without_conclusion": silent,
        "share_without_conclusion": silent / len(answered) if answered else None,
        "compared": len(compared),
        "mismatches": sum(one.is_mismatch is True for one in compared),
        "published_mmvu_percent": PUBLISHED_MMVU,
    }
    if compared:
        found["mismatch"] = mean_score(compared, [one.is_mismatch is True for one in compared])
    if answered:
        found["no_conclusion_counted_as_mismatch"] = mean_score(
            answered, [one.is_mismatch is not False for one in answered]
        )
    return found


def compare_runs(first: Sequence[SampleScore], second: Sequence[SampleScore]) -> dict[str, Any]:
    """Two runs on the same questions, matched by content id, and the questions of one run alone.

    For each parsing: McNemar's table and p-values of the correct answers, and the difference of
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
    videos = [one[name].prediction.video for name in shared]
    return {
        "matched": len(shared),
        "only_in_first": len(one) - len(shared),
        "only_in_second": len(two) - len(shared),
        "repeated_questions_left_out": len(first) - len(one) + len(second) - len(two),
        **{
            parsing: _compared(
                [one[name].parsed(parsing) for name in shared],
                [two[name].parsed(parsing) for name in shared],
                videos,
            )
            for parsing in PARSINGS
        },
    }


def _by_question(scores: Sequence[SampleScore]) -> dict[str, SampleScore]:
    """The first answer to each question."""
    found: dict[str, SampleScore] = {}
    for one in scores:
        found.setdefault(one.prediction.question_id, one)
    return found


def _compared(
    first: Sequence[ParsedAnswer], second: Sequence[ParsedAnswer], videos: Sequence[str]
) -> dict[str, Any]:
    design = sample_design(videos)
    correct = compare_judges(
        [float(one.is_correct) for one in first],
        [float(two.is_correct) for two in second],
        np.ones(len(videos)),
        design,
    )
    gains = np.array([one.score - two.score for one, two in zip(first, second, strict=True)])
    # A difference lies in [-1, 1]: halved and moved up by a half, it is a share like any other.
    difference = correct.difference
    if not np.isin(gains, (-1.0, 0.0, 1.0)).all():
        found = share((gains + 1) / 2, design)
        difference = Estimate(*(2 * end - 1 for end in (found.value, found.low, found.high)))
    table = asdict(correct)
    return {
        "first_score": float(np.mean([one.score for one in first])),
        "second_score": float(np.mean([two.score for two in second])),
        "difference": {"score": float(gains.mean())} | interval_bounds(difference),
        "videos": correct.num_videos,
        **{
            name: table[name]
            for name in ("both_right", "only_first_right", "only_second_right", "neither_right")
        },
        "mcnemar_exact_p": correct.exact_p,
        "mcnemar_clustered_p": correct.clustered_p,
    }


def _row(prediction: Prediction) -> str:
    question = prediction.question
    named = f" (id {question.problem_id})" if question.problem_id else ""
    return f"row {question.row}{named}, {prediction.video}"


def _differs(one: SampleScore) -> bool:
    published = one.prediction.published_score
    return published is not None and abs(published - one.tolerant.score) > 1e-6


def _difference(one: SampleScore) -> dict[str, Any]:
    return {
        "problem_id": one.prediction.question.problem_id,
        "gold": one.prediction.question.solution,
        "published": one.prediction.published_score,
        "strict": one.strict.score,
        "tolerant": one.tolerant.score,
        "read": one.tolerant.answer,
    }
