"""The scores of one prediction, strict and tolerant, from its raw text alone.

A row without an answer scores 0 and counts as unparsed, so does one that ended in an error; a
question that nobody can score (its gold answer cannot be read) is left out and told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any

from judges.answers import check_answer, extract_strict, extract_tolerant, validate_gold
from judges.choices import chosen_letter
from judges.intervals import interval_iou, read_intervals
from judges.numbers import read_number
from judges.think_answer import Extraction, extract_conclusion, is_mismatch, reasoning_of
from schemas.questions import ProblemType, VideoQuestion
from schemas.traces import TEMPLATES, TraceError, TraceTemplate, parse_trace, segment_spans
from train.evaluation.predictions import Prediction

NUMBERS = frozenset({ProblemType.NUMERICAL, ProblemType.REGRESSION})
_TWENTIETHS = range(1, 11)  # 1 - theta for theta = 0.95, 0.90, ..., 0.50, in twentieths


@dataclass(frozen=True)
class Reading:
    """One way to read a reply. `answer` is None where nothing was found.

    `is_parsed`: what was found can be read as what the question asks for. `score` is the task
    metric in [0, 1]; `is_correct`: it reaches 0.6, as in the builder. `relative_accuracy` is VSI's
    measure of numbers, `iou` that of spans in time; both None where they do not apply.
    """

    answer: str | None
    is_parsed: bool
    score: float
    is_correct: bool
    relative_accuracy: float | None = None
    iou: float | None = None


@dataclass(frozen=True)
class Scored:
    """A prediction and what it is worth.

    `trace_fault` is "" for a well-formed trace and None where no reply was made. `lengths` counts
    each well-formed segment, by tag: in tokens where the prediction knows them, else in words.
    `reasoning` is the text before the answer (multiple choice only), `concluded` the option that it
    ends up with, `is_mismatch` whether the answer is another one, None where one of the two names
    no option.
    """

    prediction: Prediction
    strict: Reading
    tolerant: Reading
    trace_fault: str | None
    lengths: Mapping[str, int]
    reasoning: str = ""
    concluded: str | None = None
    is_mismatch: bool | None = None

    def as_columns(self) -> dict[str, Any]:
        """The columns that scoring adds to a file of predictions."""
        readings = (("strict", self.strict), ("tolerant", self.tolerant))
        return {
            **{
                f"{name}_{field}": value
                for name, reading in readings
                for field, value in asdict(reading).items()
            },
            "trace_fault": self.trace_fault,
            "concluded": self.concluded,
            "is_mismatch": self.is_mismatch,
        }

    def concluding(self, letter: str | None) -> "Scored":
        """The same with the conclusion that another extractor read."""
        found = Extraction(letter, "states the letter")
        options = self.prediction.question.options
        mismatch = is_mismatch(found, self.tolerant.answer or "", options)
        return replace(self, concluded=letter, is_mismatch=mismatch)


def score_prediction(prediction: Prediction, template: TraceTemplate) -> Scored:
    """Score one reply; raises GoldError where `unscorable` has a complaint."""
    output, question = prediction.output, prediction.question
    answer = extract_tolerant(output)
    is_choice = question.problem_type is ProblemType.MULTIPLE_CHOICE
    scored = Scored(
        prediction=prediction,
        strict=_read(question, extract_strict(output), output),
        tolerant=_read(question, answer, output),
        trace_fault=None if prediction.error else trace_fault(output, template),
        lengths=_lengths(prediction, template),
        reasoning=reasoning_of(output) if is_choice else "",
    )
    if not scored.reasoning:
        return scored
    return scored.concluding(extract_conclusion(scored.reasoning, question.options).letter)


def unscorable(prediction: Prediction) -> str | None:
    """Why a question takes no part in the scores: what is wrong with its gold answer."""
    return validate_gold(prediction.question)


def most_followed(predictions: Sequence[Prediction]) -> TraceTemplate:
    """The template that most replies follow; with none followed, the plain think-answer one."""
    followed = {
        name: sum(not trace_fault(one.output, template) for one in predictions)
        for name, template in TEMPLATES.items()
    }
    best = max(followed, key=lambda name: followed[name])
    return TEMPLATES[best if followed[best] else "think-answer"]


def trace_fault(output: str, template: TraceTemplate) -> str:
    """The first fault of a trace; "" for one that is well formed."""
    try:
        parse_trace(output, template)
    except TraceError as error:
        return error.reason.value
    return ""


def mean_relative_accuracy(given: Decimal, gold: Decimal) -> float:
    """Share of the bounds 0.50, 0.45, ..., 0.05 that the relative error stays below.

    VSI-Bench's measure (arXiv 2412.14171). A gold 0 has no relative error: only 0 itself is right.
    """
    if not gold:
        return float(not given)
    error = abs(given - gold) * 20
    return sum(error < bound * abs(gold) for bound in _TWENTIETHS) / len(_TWENTIETHS)


def _lengths(prediction: Prediction, template: TraceTemplate) -> dict[str, int]:
    if prediction.token_counts is not None:
        return dict(prediction.token_counts)
    output = prediction.output
    return {
        span.tag: len(output[span.inner_start : span.inner_end].split())
        for span in segment_spans(output, template)
    }


def _read(question: VideoQuestion, answer: str | None, output: str) -> Reading:
    iou = _iou(question, answer, output)
    is_number = question.problem_type in NUMBERS
    if answer is None:
        return Reading(None, False, 0.0, False, 0.0 if is_number else None, iou)
    accuracy = None
    if is_number:
        given, gold = read_number(answer), read_number(question.solution)
        accuracy = 0.0 if given is None or gold is None else mean_relative_accuracy(given, gold)
    checked = check_answer(question, answer)
    return Reading(
        answer=answer,
        is_parsed=_is_parsed(question, answer),
        score=checked.score,
        is_correct=checked.passed,
        relative_accuracy=accuracy,
        iou=iou,
    )


def _iou(question: VideoQuestion, answer: str | None, output: str) -> float | None:
    """Of the answer itself, or of what stands in `<time>` beside an answer of another kind."""
    if question.problem_type is ProblemType.TEMPORAL_GROUNDING:
        gold = read_intervals(question.solution) or ()
        return interval_iou(gold, read_intervals(answer or "") or ())
    if question.time_clues and "<time>" in output:
        spoken = output.rpartition("<time>")[2].partition("</time>")[0]
        return interval_iou(question.time_clues, read_intervals(spoken) or ())
    return None


def _is_parsed(question: VideoQuestion, answer: str) -> bool:
    match question.problem_type:
        case ProblemType.MULTIPLE_CHOICE:
            return chosen_letter(answer, question.options) is not None
        case ProblemType.NUMERICAL | ProblemType.REGRESSION:
            return read_number(answer) is not None
        case ProblemType.TEMPORAL_GROUNDING:
            return bool(read_intervals(answer))
        case _:
            return bool(answer.strip())
