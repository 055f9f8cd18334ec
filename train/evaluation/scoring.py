"""What an answer is worth: read twice from the raw text, strictly and tolerantly.

`strict` takes the content of the one well-formed `<answer>` block; `tolerant` also takes what an
answer-like ending says. Scores are the task metrics of `judges.answers`, in [0, 1]. A row without
an answer scores 0 and counts as unparsed; a question that nobody can score (its gold answer cannot
be read) is left out and told.
"""

from dataclasses import dataclass
from typing import Any

from judges.answers import extract_strict, extract_tolerant, score_answer, validate_gold
from judges.choices import chosen_letter
from judges.numbers import read_number
from judges.think_answer import extract_conclusion, is_mismatch, reasoning_of
from schemas.questions import ProblemType, VideoQuestion
from schemas.traces import TEMPLATES, TraceError, parse_trace
from train.evaluation.predictions import Prediction

# VSI-Bench's mean relative accuracy: right within 50 %, 45 %, ..., 5 %.
MRA_TOLERANCES = tuple((100 - percent) / 100 for percent in range(50, 100, 5))
NUMBERS = frozenset({ProblemType.NUMERICAL, ProblemType.REGRESSION})


@dataclass(frozen=True)
class Scored:
    """One prediction with what was read from it.

    `*_answer` is the text that was read, None where there is none; `is_*_readable` whether that
    text answers this kind of question (names one option, is a number). `trace_fault` is "" for a
    trace that follows its template and None where no template is known. `is_mismatch` is None where
    the reasoning or the answer names no option.
    """

    prediction: Prediction
    strict_answer: str | None
    strict_score: float
    tolerant_answer: str | None
    tolerant_score: float
    is_strict_readable: bool
    is_tolerant_readable: bool
    mean_relative_accuracy: float | None
    trace_fault: str | None
    concluded: str | None
    is_mismatch: bool | None

    def as_columns(self) -> dict[str, Any]:
        """The columns that scoring adds to a file of predictions."""
        return {
            "strict_answer": self.strict_answer,
            "strict_score": self.strict_score,
            "tolerant_answer": self.tolerant_answer,
            "tolerant_score": self.tolerant_score,
            "trace_fault": self.trace_fault,
            "concluded": self.concluded,
            "is_mismatch": self.is_mismatch,
        }


def score_prediction(prediction: Prediction, template: str = "") -> Scored:
    """Score one prediction; raises GoldError where the question's gold answer cannot be read."""
    question, output = prediction.question, prediction.output
    strict, tolerant = extract_strict(output), extract_tolerant(output)
    concluded, mismatch = _think_answer(question, output, tolerant)
    return Scored(
        prediction=prediction,
        strict_answer=strict,
        strict_score=0.0 if strict is None else score_answer(question, strict),
        tolerant_answer=tolerant,
        tolerant_score=0.0 if tolerant is None else score_answer(question, tolerant),
        is_strict_readable=_is_readable(question, strict),
        is_tolerant_readable=_is_readable(question, tolerant),
        mean_relative_accuracy=(
            mean_relative_accuracy(question.solution, tolerant or "")
            if question.problem_type in NUMBERS
            else None
        ),
        trace_fault=_trace_fault(output, template),
        concluded=concluded,
        is_mismatch=mismatch,
    )


def unscorable(prediction: Prediction) -> str | None:
    """Why a row cannot be scored at all: what is wrong with its gold answer."""
    return validate_gold(prediction.question)


def mean_relative_accuracy(gold: str, answer: str) -> float:
    """The share of tolerances within which the answer is right (VSI-Bench; 0 where unread).

    mean over t in {0.50, 0.55, ..., 0.95} of [|answer - gold| / |gold| < 1 - t].
    """
    right, said = read_number(gold), read_number(answer)
    if right is None or said is None:
        return 0.0
    error = float(abs(said - right)) / max(float(abs(right)), 1e-9)
    return sum(error < tolerance for tolerance in MRA_TOLERANCES) / len(MRA_TOLERANCES)


def _is_readable(question: VideoQuestion, answer: str | None) -> bool:
    if not answer:
        return False
    if question.problem_type is ProblemType.MULTIPLE_CHOICE:
        return chosen_letter(answer, question.options) is not None
    if question.problem_type in NUMBERS:
        return read_number(answer) is not None
    return True


def _trace_fault(output: str, template: str) -> str | None:
    if not template:
        return None
    try:
        parse_trace(output, TEMPLATES[template])
    except TraceError as error:
        return error.reason.value
    return ""


def _think_answer(
    question: VideoQuestion, output: str, answer: str | None
) -> tuple[str | None, bool | None]:
    """The letter that the reasoning concludes, and whether the answer is another one."""
    reasoning = reasoning_of(output)
    if question.problem_type is not ProblemType.MULTIPLE_CHOICE or not reasoning:
        return None, None
    found = extract_conclusion(reasoning, question.options)
    return found.letter, is_mismatch(found, answer or "", question.options)
