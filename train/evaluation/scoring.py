"""The scores of one prediction, strict and tolerant, from its raw text alone.

A row without an answer, or one that ended in an error, scores 0 and counts as unparsed. A question
whose gold answer cannot be read is left out of the scores and listed in the report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from judges.consistency import Extraction, extract_conclusion, is_mismatch, reasoning_of
from judges.scoring.answer_score import check_answer, extract_answer, is_readable, validate_gold
from judges.scoring.numbers import read_number
from judges.scoring.text import extract_strict
from judges.scoring.time_intervals import interval_iou, read_intervals
from schemas.questions import ProblemType, VideoQuestion
from schemas.traces import TEMPLATES, TraceError, TraceTemplate, parse_trace, segment_spans
from train.evaluation.predictions import Prediction

Parsing = Literal["strict", "tolerant"]
PARSINGS: tuple[Parsing, ...] = ("strict", "tolerant")
NUMBERS = frozenset({ProblemType.NUMERICAL, ProblemType.REGRESSION})
_TWENTIETHS = range(1, 11)  # 1 - theta for theta = 0.95, 0.90, ..., 0.50, in twentieths


@dataclass(frozen=True)
class ParsedAnswer:
    """The answer that one way of parsing finds in a reply; `answer` is None where it finds none.

    `is_parsed`: the answer is of the kind that the question asks for. `score` is the task metric in
    [0, 1]; `is_correct`: it reaches 0.6, as in the builder. `relative_accuracy` is VSI-Bench's
    measure of numbers, `iou` that of time spans; both None where they do not apply.
    """

    answer: str | None
    is_parsed: bool
    score: float
    is_correct: bool
    relative_accuracy: float | None = None
    iou: float | None = None


@dataclass(frozen=True)
class SampleScore:
    """A prediction with all that is measured of it.

    `trace_fault` is "" for a well-formed trace and None where there is no reply. `lengths` is the
    length of each well-formed segment, by tag: in tokens where the prediction counts them, else in
    words. `reasoning` is the text before the answer (multiple choice only), `concluded` the option
    that it ends with, `is_mismatch` whether the answer is another one; None where either of the two
    names no option. `extracted` is the answer that a language model read where the tolerant rules
    read none, else theirs; None where no model was asked (`--answer-extractor`).
    `extracted_by` is who read it, `rules` or the model, `extracted_reason` why there is none,
    `extracted_prompt` the id of the model's prompt.
    """

    prediction: Prediction
    strict: ParsedAnswer
    tolerant: ParsedAnswer
    trace_fault: str | None
    lengths: Mapping[str, int]
    reasoning: str = ""
    concluded: str | None = None
    is_mismatch: bool | None = None
    extracted: ParsedAnswer | None = None
    extracted_by: str | None = None
    extracted_reason: str | None = None
    extracted_prompt: str | None = None

    def parsed(self, parsing: Parsing) -> ParsedAnswer:
        """The answer by one way of parsing."""
        return self.strict if parsing == "strict" else self.tolerant

    def as_columns(self) -> dict[str, Any]:
        """The columns that scoring adds to a file of predictions."""
        return {
            **{
                f"{parsing}_{field}": value
                for parsing in PARSINGS
                for field, value in asdict(self.parsed(parsing)).items()
            },
            **{
                f"extracted_{field}": value
                for field, value in (asdict(self.extracted) if self.extracted else {}).items()
            },
            "extracted_by": self.extracted_by,
            "extracted_reason": self.extracted_reason,
            "extracted_prompt": self.extracted_prompt,
            "trace_fault": self.trace_fault,
            "concluded": self.concluded,
            "is_mismatch": self.is_mismatch,
        }

    def with_extracted(
        self, answer: str | None, *, by: str, reason: str = "", prompt: str = ""
    ) -> "SampleScore":
        """A copy with the answer that `by` read; None keeps that of the rules."""
        question, output = self.prediction.question, self.prediction.output
        found = self.tolerant if answer is None else _parse(question, answer, output)
        return replace(
            self,
            extracted=found,
            extracted_by=by,
            extracted_reason=reason,
            extracted_prompt=prompt,
        )

    def with_conclusion(self, letter: str | None) -> "SampleScore":
        """A copy with the option that another extractor read from the reasoning."""
        found = Extraction(letter, "states the letter")
        options = self.prediction.question.options
        mismatch = is_mismatch(found, self.tolerant.answer or "", options)
        return replace(self, concluded=letter, is_mismatch=mismatch)


def score_prediction(prediction: Prediction, template: TraceTemplate) -> SampleScore:
    """Score one reply. Raises GoldError where `gold_fault` finds one."""
    output, question = prediction.output, prediction.question
    is_choice = question.problem_type is ProblemType.MULTIPLE_CHOICE
    answer = extract_answer(output, question)
    score = SampleScore(
        prediction=prediction,
        strict=_parse(question, extract_strict(output), output),
        tolerant=_parse(question, answer, output),
        trace_fault=None if prediction.error else trace_fault(output, template),
        lengths=_lengths(prediction, template),
        reasoning=reasoning_of(output) if is_choice else "",
    )
    if not score.reasoning:
        return score
    return score.with_conclusion(extract_conclusion(score.reasoning, question.options).letter)


def gold_fault(prediction: Prediction) -> str | None:
    """What is wrong with a question's gold answer, so that it cannot be scored; None if nothing."""
    return validate_gold(prediction.question)


def most_followed(predictions: Sequence[Prediction]) -> TraceTemplate:
    """The template that most replies follow; think-answer where no reply follows any."""
    followed = {
        name: sum(not trace_fault(one.output, template) for one in predictions)
        for name, template in TEMPLATES.items()
    }
    best = max(followed, key=lambda name: followed[name])
    return TEMPLATES[best if followed[best] else "think-answer"]


def trace_fault(output: str, template: TraceTemplate) -> str:
    """The first fault of a trace; "" for a well-formed one."""
    try:
        parse_trace(output, template)
    except TraceError as error:
        return error.reason.value
    return ""


def mean_relative_accuracy(given: Decimal, gold: Decimal) -> float:
    """Share of the bounds 0.50, 0.45, ..., 0.05 that the relative error stays below.

    VSI-Bench's measure (arXiv 2412.14171). A gold 0 has no relative error: only 0 itself scores.
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


def _parse(question: VideoQuestion, answer: str | None, output: str) -> ParsedAnswer:
    iou = _iou(question, answer, output)
    is_number = question.problem_type in NUMBERS
    if answer is None:
        return ParsedAnswer(None, False, 0.0, False, 0.0 if is_number else None, iou)
    accuracy = None
    if is_number:
        given, gold = read_number(answer), read_number(question.solution)
        accuracy = 0.0 if given is None or gold is None else mean_relative_accuracy(given, gold)
    checked = check_answer(question, answer)
    return ParsedAnswer(
        answer=answer,
        is_parsed=is_readable(question, answer),
        score=checked.score,
        is_correct=checked.passed,
        relative_accuracy=accuracy,
        iou=iou,
    )


def _iou(question: VideoQuestion, answer: str | None, output: str) -> float | None:
    """IoU of a grounding answer, or of the `<time>` segment beside an answer of another kind."""
    if question.problem_type is ProblemType.TEMPORAL_GROUNDING:
        gold = read_intervals(question.solution) or ()
        return interval_iou(gold, read_intervals(answer or "") or ())
    if question.time_clues and "<time>" in output:
        segment = output.rpartition("<time>")[2].partition("</time>")[0]
        return interval_iou(question.time_clues, read_intervals(segment) or ())
    return None
