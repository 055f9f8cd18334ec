"""The rule that verifies, rewards and evaluates: one metric in [0, 1] per problem type.

multiple choice      1 when the chosen option is the gold one
numerical            1 when both numbers agree after rounding to 2 decimals
OCR                  max(0, 1 - word error rate); words end at white space, case and points count
free-form            mean of ROUGE-1, ROUGE-2 and ROUGE-L F1, stemmed
regression           1 - min(1, relative error)
temporal grounding   intersection over union of the intervals, in real seconds

VideoP2R (arXiv:2511.11113) sec. 7.2 and the code of Video-R1. An answer that cannot be read scores
0; a gold answer that cannot be read is an error of the question (`validate_gold`), never a 0.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from judges.scoring.choices import chosen_letter, extract_choice, read_choices
from judges.scoring.numbers import equal_to_two_decimals, read_number, relative_accuracy
from judges.scoring.text import claims_in, extract_tolerant, untagged_lines
from judges.scoring.time_intervals import interval_iou, merged, published_iou, read_intervals
from schemas.questions import ProblemType, VideoQuestion
from schemas.samples import AnswerCheck

METRICS = {
    ProblemType.MULTIPLE_CHOICE: "option_match",
    ProblemType.NUMERICAL: "number_match",
    ProblemType.OCR: "one_minus_wer",
    ProblemType.FREE_FORM: "mean_rouge",
    ProblemType.REGRESSION: "one_minus_relative_error",
    ProblemType.TEMPORAL_GROUNDING: "interval_iou",
}
_ROUNDING = 1e-9  # 1 - 4/5 is a hair below 0.2: a score at the threshold passes


class GoldError(ValueError):
    """The question's gold answer cannot be scored. `validate_gold` says it beforehand."""


def score_answer(question: VideoQuestion, answer: str, *, integer_seconds: bool = False) -> float:
    """The task metric of `answer` (the text inside the answer tags) in [0, 1].

    `integer_seconds` reproduces the published grounding reward, its reading of the text included.
    Raises GoldError when the gold answer cannot be read.
    """
    if complaint := validate_gold(question):
        raise GoldError(complaint)
    gold = question.solution
    match question.problem_type:
        case ProblemType.MULTIPLE_CHOICE:
            given_letter = chosen_letter(answer, question.options)
            return float(given_letter == chosen_letter(gold, question.options))
        case ProblemType.NUMERICAL | ProblemType.REGRESSION:
            given, true = read_number(answer), read_number(gold)
            if given is None or true is None:
                return 0.0
            if question.problem_type is ProblemType.NUMERICAL:
                return float(equal_to_two_decimals(given, true))
            return relative_accuracy(given, true)
        case ProblemType.OCR:
            return _one_minus_wer(gold, answer)
        case ProblemType.FREE_FORM:
            return _mean_rouge(gold, answer)
        case ProblemType.TEMPORAL_GROUNDING:
            if integer_seconds:
                return published_iou(gold, answer)
            return interval_iou(read_intervals(gold) or (), read_intervals(answer) or ())


def check_answer(question: VideoQuestion, answer: str, *, threshold: float = 0.6) -> AnswerCheck:
    """Step two's verdict: the score, whether it reaches `threshold`, the answer as it was read."""
    score = score_answer(question, answer)
    return AnswerCheck(
        metric=METRICS[question.problem_type],
        score=score,
        passed=score >= threshold - _ROUNDING,
        extracted=_as_read(question, answer),
    )


def extract_answer(output: str, question: VideoQuestion) -> str | None:
    """The answer of a reply, tolerantly read; None without one.

    An option, number or span alone on the first line counts, where nothing below says otherwise.
    """
    match question.problem_type:
        case ProblemType.MULTIPLE_CHOICE:
            return extract_choice(output, question.options)
        case ProblemType.NUMERICAL | ProblemType.REGRESSION:
            return _extract_value(output, read_number)
        case ProblemType.TEMPORAL_GROUNDING:
            return _extract_value(output, read_intervals)
        case _:
            return extract_tolerant(output)


def is_readable(question: VideoQuestion, answer: str) -> bool:
    """Whether `answer` is one of the question's kind: an option, a number, an interval, a text."""
    match question.problem_type:
        case ProblemType.MULTIPLE_CHOICE:
            return chosen_letter(answer, question.options) is not None
        case ProblemType.NUMERICAL | ProblemType.REGRESSION:
            return read_number(answer) is not None
        case ProblemType.TEMPORAL_GROUNDING:
            return bool(read_intervals(answer))
        case _:
            return bool(answer.strip())


def validate_gold(question: VideoQuestion) -> str | None:
    """A sentence when the gold answer cannot be scored, else None."""
    gold = question.solution
    match question.problem_type:
        case ProblemType.MULTIPLE_CHOICE:
            try:
                letters = ", ".join(choice.letter for choice in read_choices(question.options))
            except ValueError as error:
                return str(error)
            if chosen_letter(gold, question.options) is None:
                return f"the gold answer {gold!r} is none of the options {letters}: name one letter"
        case ProblemType.NUMERICAL | ProblemType.REGRESSION:
            if read_number(gold) is None:
                return f"the gold answer {gold!r} is not one number: write it like 1200.5 or 3/4"
        case ProblemType.OCR:
            if not gold.split():
                return f"the gold answer {gold!r} has no words to compare with"
        case ProblemType.FREE_FORM:
            if not _stemmed_words(gold):
                return f"the gold answer {gold!r} has no words that ROUGE counts (a-z, 0-9)"
        case ProblemType.TEMPORAL_GROUNDING:
            if not merged(read_intervals(gold) or ()):
                return (
                    f"the gold answer {gold!r} is no list of intervals of positive length:"
                    " write it in seconds, like '4.4 to 5.2, 8 to 9.5'"
                )
    return None


def _extract_value(output: str, read: Callable[[str], Any]) -> str | None:
    lines = untagged_lines(output)
    first = read(lines[0].lstrip("#>* ")) if len(lines) > 1 else None
    if first is None:
        return extract_tolerant(output)
    claims = claims_in("\n".join(lines))
    values = [read(text) for text in (*claims, lines[-1])]
    if "" in claims or any(value not in (first, None) for value in values):
        return None  # it says two
    return lines[0].lstrip("#>* ")


def _as_read(question: VideoQuestion, answer: str) -> str:
    match question.problem_type:
        case ProblemType.MULTIPLE_CHOICE:
            return chosen_letter(answer, question.options) or answer.strip()
        case ProblemType.NUMERICAL | ProblemType.REGRESSION:
            number = read_number(answer)
            return answer.strip() if number is None else f"{number:f}"
        case ProblemType.TEMPORAL_GROUNDING:
            intervals = read_intervals(answer) or ()
            return ", ".join(f"{a:g} to {b:g}" for a, b in intervals) or answer.strip()
        case _:
            return answer.strip()


def _one_minus_wer(gold: str, answer: str) -> float:
    import jiwer

    reference, words = gold.split(), answer.split()
    # Every surplus word is an insertion: such an answer scores 0 whatever it says, and a very long
    # one never reaches the quadratic alignment.
    if not words or len(words) >= 2 * len(reference):
        return 0.0
    return float(max(0.0, 1.0 - jiwer.wer(" ".join(reference), " ".join(words))))


def _mean_rouge(gold: str, answer: str) -> float:
    from rapidfuzz.distance import LCSseq

    scores = _rouge()[0].score(gold, answer)
    # ROUGE-L by rapidfuzz: rouge-score fills a table of Python lists, minutes for a 1 MB answer.
    gold_words, words = _stemmed_words(gold), _stemmed_words(answer)
    longest = 2 * LCSseq.similarity(gold_words, words) / max(1, len(gold_words) + len(words))
    return float((scores["rouge1"].fmeasure + scores["rouge2"].fmeasure + longest) / 3)


def _stemmed_words(text: str) -> list[str]:
    return list(_rouge()[1].tokenize(text))


@cache
def _rouge() -> tuple[Any, Any]:  # rouge-score carries no types
    """The scorer and its tokenizer."""
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    tokenizer = DefaultTokenizer(use_stemmer=True)
    return RougeScorer(["rouge1", "rouge2"], tokenizer=tokenizer), tokenizer
