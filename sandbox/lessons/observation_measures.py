"""Answers about a rendered world compared with its truth: was the scene seen, was it concluded?

Each answer of a predictions file becomes a `JudgedAnswer`; `measure` averages them. Beside the
accuracy stands the best-constant baseline of the same questions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cli.config import UsageError
from sandbox.world.blind_baseline import BaselineTally
from sandbox.world.facts import compare_observation
from sandbox.world.questions import Query, ground_truth, is_sufficient, parse_query
from sandbox.world.rendered import RenderedWorld
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES, TraceError, parse_trace

if TYPE_CHECKING:
    from train.evaluation.predictions import Prediction

_ATTRIBUTES = ("time", "colour", "shape", "place")


@dataclass(frozen=True)
class JudgedAnswer:
    """One answer, compared with the truth of the clip that was shown (in a control, another one).

    `is_seen`: the observation states exactly what the clip shows. `is_sufficient`: it states all
    that the question hinges on in the clip that it was asked about, and the right answer follows,
    as the oracle judges. `share`: the share of attributes that it gets right. `by_attribute`:
    (right, in the truth) of each. A malformed trace has no observation.
    """

    question: VideoQuestion
    kind: str
    video: str
    is_well_formed: bool
    is_right: bool
    is_seen: bool
    is_sufficient: bool
    share: float
    by_attribute: dict[str, tuple[int, int]]


class Measures(NamedTuple):
    """Shares over a set of answers; None for an empty subset.

    `blind` is the best-constant baseline of the same questions.
    """

    answers: int
    right: float
    blind: float
    adherence: float
    seen: float
    sufficient: float
    attributes: float
    right_if_seen: float | None
    right_if_not_seen: float | None


def judge_file(path: Path, world: RenderedWorld, template_name: str = "p2r") -> list[JudgedAnswer]:
    """The answers of a predictions file, each compared with the truth."""
    from train.evaluation.predictions_file import read_predictions

    try:
        found = read_predictions(path)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    return [judge(prediction, world, template_name) for prediction in found.predictions]


def judge(
    prediction: "Prediction", world: RenderedWorld, template_name: str = "p2r"
) -> JudgedAnswer:
    """Compare one answer with the truth: of the clip that was shown, and of that asked about."""
    from judges.scoring.answer_score import score_answer

    question = prediction.question
    query = parse_query(question.problem)
    if query is None:
        raise UsageError(f"{question.problem!r} is no question of the sandbox")
    path = (*prediction.shown, question.media[0].path)[0]
    template = TEMPLATES[template_name]
    try:
        trace = parse_trace(prediction.output, template)
    except TraceError:
        seen = compare_observation("", world.facts(path))
        return JudgedAnswer(
            question, query.kind, path, False, False, False, False, 0.0, seen.by_attribute
        )
    text = trace.get("observation" if template_name == "p2r" else "think")
    seen = compare_observation(text, world.facts(path))
    is_right = score_answer(question, trace.get("answer")) == 1.0
    return JudgedAnswer(
        question,
        query.kind,
        path,
        is_well_formed=True,
        is_right=is_right,
        is_seen=seen.is_all_right,
        is_sufficient=_is_sufficient(world, question, query, text),
        share=seen.share,
        by_attribute=seen.by_attribute,
    )


def _is_sufficient(world: RenderedWorld, question: VideoQuestion, query: Query, text: str) -> bool:
    asked_about = question.media[0].path
    clip, facts = world.clip(asked_about), world.facts(asked_about)
    truth = ground_truth(query, clip, facts, world.config)
    return truth is not None and is_sufficient(truth, text, world.config)


def measure(judged: Sequence[JudgedAnswer]) -> Measures:
    """The shares over all of `judged`."""
    tally = BaselineTally()
    for each in judged:
        tally.add(each.kind, each.question.problem, each.question)
    seen = [each for each in judged if each.is_seen]
    unseen = [each for each in judged if not each.is_seen]
    return Measures(
        answers=len(judged),
        right=_mean(each.is_right for each in judged) or 0.0,
        blind=tally.baseline().overall,
        adherence=_mean(each.is_well_formed for each in judged) or 0.0,
        seen=_mean(each.is_seen for each in judged) or 0.0,
        sufficient=_mean(each.is_sufficient for each in judged) or 0.0,
        attributes=_mean(each.share for each in judged) or 0.0,
        right_if_seen=_mean(each.is_right for each in seen),
        right_if_not_seen=_mean(each.is_right for each in unseen),
    )


def by_kind(judged: Sequence[JudgedAnswer]) -> dict[str, Measures]:
    """`measure` for each kind of question."""
    kinds = sorted({each.kind for each in judged})
    return {kind: measure([each for each in judged if each.kind == kind]) for kind in kinds}


def by_attribute(judged: Sequence[JudgedAnswer]) -> dict[str, float]:
    """Share of right times, colours, ... among those in the truth."""
    shares = {}
    for name in _ATTRIBUTES:
        pairs = [each.by_attribute.get(name, (0, 0)) for each in judged]
        total = sum(count for _, count in pairs)
        if total:
            shares[name] = sum(right for right, _ in pairs) / total
    return shares


def percent(share: float | None) -> str:
    """`72.5`, or a dash for nothing."""
    return "-" if share is None else f"{100 * share:.1f}"


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
