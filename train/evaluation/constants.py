"""The best constant answer: what somebody scores who never looks and always says the same."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from judges.answers import score_answer
from judges.choices import chosen_letter
from judges.numbers import read_number
from schemas.questions import ProblemType, VideoQuestion

_MAX_CANDIDATES = 20
# A text that is right for many questions is no sensible guess.
_GUESSABLE = (
    ProblemType.MULTIPLE_CHOICE,
    ProblemType.NUMERICAL,
    ProblemType.REGRESSION,
    ProblemType.TEMPORAL_GROUNDING,
)


def best_constants(questions: Sequence[VideoQuestion]) -> dict[str, Any] | None:
    """`{score, n, answers}`: the mean score of the best constant answer of each problem type.

    Only types whose answer can be guessed count (no free text); None where there are none. The
    answers are chosen with the gold answers in sight, so this is the upper end of not looking.
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
