"""All that is reported of one set of answers, as one JSON object: what screen and page print."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from schemas.traces import TEMPLATES
from train.evaluation.mismatch import mismatch_of
from train.evaluation.predictions import NO_OBSERVATION, Prediction, RunFacts
from train.evaluation.scoring import Scored, most_followed, score_prediction, unscorable
from train.evaluation.slices import of_slices, worth

RULES = "rules"


@dataclass(frozen=True)
class Answers:
    """Scored answers of one run, and the rows that could not be scored, each with its reason."""

    facts: RunFacts
    template: str
    scored: tuple[Scored, ...]
    unreadable: tuple[str, ...] = ()
    without_gold: tuple[str, ...] = ()


def score_all(
    facts: RunFacts,
    predictions: Sequence[Prediction],
    *,
    template: str = "",
    unreadable: Sequence[str] = (),
) -> Answers:
    """Score all predictions.

    `template` outranks the one that `facts` names; where neither does, adherence is measured
    against the template that most replies follow. Raises ValueError where no question can be
    scored.
    """
    name = template or facts.template or most_followed(predictions).name
    if name not in TEMPLATES:
        raise ValueError(f"no trace template {name!r}: expected one of {', '.join(TEMPLATES)}")
    scored, without_gold = [], []
    for one in predictions:
        if complaint := unscorable(one):
            without_gold.append(f"{_row(one)}: {complaint}")
        else:
            scored.append(score_prediction(one, TEMPLATES[name]))
    if not scored:
        why = f": {without_gold[0]}" if without_gold else ""
        raise ValueError(f"there is no question whose gold answer can be read{why}")
    return Answers(facts, name, tuple(scored), tuple(unreadable), tuple(without_gold))


def report_of(answers: Answers, *, extractor: str = RULES) -> dict[str, Any]:
    """`overall.strict` and `overall.tolerant` (`{correct, n, score, ...}`), the slices, the rest.

    `correct` counts answers whose metric reaches 0.6, as in the builder; `score` is the mean of the
    metrics, in [0, 1].
    """
    scored = answers.scored
    counted = any(one.prediction.token_counts is not None for one in scored)
    return {
        "conditions": {**asdict(answers.facts), "sentence": answers.facts.sentence()},
        "template": answers.template,
        "overall": worth(scored),
        "slices": of_slices(scored),
        "mismatch": mismatch_of(scored, extractor),
        "lengths_in": "tokens" if counted else "words",
        "truncated": sum(one.prediction.finish_reason == "length" for one in scored),
        "without_observation": sum(
            one.prediction.finish_reason == NO_OBSERVATION for one in scored
        ),
        "errors": [
            {"row": _row(one.prediction), "error": one.prediction.error}
            for one in scored
            if one.prediction.error
        ],
        "unreadable": list(answers.unreadable),
        "without_usable_gold": list(answers.without_gold),
        "differs_from_published": [_difference(one) for one in scored if _differs(one)],
    }


def _row(prediction: Prediction) -> str:
    question = prediction.question
    named = f" (id {question.problem_id})" if question.problem_id else ""
    return f"row {question.row}{named}, {prediction.video}"


def _differs(one: Scored) -> bool:
    published = one.prediction.published_score
    return published is not None and abs(published - one.tolerant.score) > 1e-6


def _difference(one: Scored) -> dict[str, Any]:
    return {
        "problem_id": one.prediction.question.problem_id,
        "gold": one.prediction.question.solution,
        "published": one.prediction.published_score,
        "strict": one.strict.score,
        "tolerant": one.tolerant.score,
        "read": one.tolerant.answer,
    }
