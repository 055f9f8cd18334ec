"""Aggregates over all questions and over each part of them, and what never looking would score."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean, median
from typing import Any

from judges.scoring.answer_score import score_answer
from judges.scoring.choices import chosen_letter
from judges.scoring.numbers import read_number
from schemas.questions import ProblemType, VideoQuestion
from train.evaluation.metrics import summarize
from train.evaluation.scoring import NUMBERS, PARSINGS, SampleScore

SLICES = ("problem type", "data source", "level", "blind")
_BLIND = {True: "answerable blind", False: "needs the video", None: ""}
_MAX_CANDIDATES = 20
# A text that is right for many questions is no sensible guess.
_GUESSABLE = (
    ProblemType.MULTIPLE_CHOICE,
    ProblemType.NUMERICAL,
    ProblemType.REGRESSION,
    ProblemType.TEMPORAL_GROUNDING,
)


def slice_metrics(scores: Sequence[SampleScore]) -> dict[str, dict[str, Any]]:
    """`{slice: {its name: aggregates}}`; a slice without names (no source, no level) is left out.

    Levels are those of SEED-Bench-R1, where a source gives them; "blind" parts the questions that a
    text reader answers without the video from those that need it, where one was asked.
    """
    groups: dict[str, dict[str, list[SampleScore]]] = {kind: defaultdict(list) for kind in SLICES}
    for one in scores:
        question = one.prediction.question
        names = (
            question.problem_type.value,
            question.data_source,
            question.level,
            _BLIND[question.answerable_blind],
        )
        for kind, name in zip(SLICES, names, strict=True):
            if name:
                groups[kind][name].append(one)
    return {
        kind: {name: aggregate_metrics(members) for name, members in sorted(named.items())}
        for kind, named in groups.items()
        if named
    }


def aggregate_metrics(scores: Sequence[SampleScore]) -> dict[str, Any]:
    """Counts, all metrics of `train.evaluation.metrics`, and baselines of some answers, as JSON."""
    replies = [one for one in scores if one.trace_fault is not None]
    found: dict[str, Any] = {
        "n": len(scores),
        "videos": len({one.prediction.video for one in scores}),
        "errors": len(scores) - len(replies),
        "best_constant": best_constants([one.prediction.question for one in scores]),
        "trace_faults": dict(Counter(one.trace_fault for one in replies if one.trace_fault)),
        "lengths": {},
        **summarize(scores),
    }
    if vsi := _vsi_score(scores):
        found["mean_of_numbers_and_choices"] = vsi
    return found


def _vsi_score(scores: Sequence[SampleScore]) -> dict[str, float] | None:
    """VSI-Bench's score: the mean of numbers' relative accuracy and of accuracy on choices."""
    asked = [(one, one.prediction.question.problem_type) for one in scores]
    numbers = [one for one, kind in asked if kind in NUMBERS]
    choices = [one for one, kind in asked if kind is ProblemType.MULTIPLE_CHOICE]
    if not numbers or not choices:
        return None
    return {
        parsing: mean(
            (
                mean(one.parsed(parsing).relative_accuracy or 0.0 for one in numbers),
                mean(one.parsed(parsing).score for one in choices),
            )
        )
        for parsing in PARSINGS
    }


def best_constants(questions: Sequence[VideoQuestion]) -> dict[str, Any] | None:
    """`{score, n, answers}`: the mean score of the best constant answer to each problem type.

    Only types whose answer can be guessed count (no free text); None where there are none. The
    answers are chosen with the gold answers in sight: an upper bound for a model that never looks.
    """
    by_type: dict[ProblemType, list[VideoQuestion]] = defaultdict(list)
    for question in questions:
        if question.problem_type in _GUESSABLE:
            by_type[question.problem_type].append(question)
    if not by_type:
        return None
    answers, total, count = {}, 0.0, 0
    for kind, members in by_type.items():
        answer, summed = max(
            ((guess, _summed(members, guess)) for guess in _candidates(kind, members)),
            key=lambda found: found[1],
        )
        answers[kind.value] = answer
        total, count = total + summed, count + len(members)
    return {"score": total / count, "n": count, "answers": answers}


def _candidates(kind: ProblemType, questions: Iterable[VideoQuestion]) -> list[str]:
    if kind is ProblemType.MULTIPLE_CHOICE:
        return list(Counter(_letter(question) for question in questions))
    golds = Counter(question.solution for question in questions)
    guesses = [gold for gold, _ in golds.most_common(_MAX_CANDIDATES)]
    if kind is ProblemType.REGRESSION:
        numbers = [read_number(question.solution) for question in questions]
        guesses.append(str(median(number for number in numbers if number is not None)))
    return guesses


def _summed(questions: Sequence[VideoQuestion], guess: str) -> float:
    if questions[0].problem_type is ProblemType.MULTIPLE_CHOICE:
        return float(sum(_letter(question) == guess for question in questions))
    return sum(score_answer(question, guess) for question in questions)


def _letter(question: VideoQuestion) -> str:
    return chosen_letter(question.solution, question.options) or ""
