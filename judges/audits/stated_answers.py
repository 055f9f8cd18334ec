"""Answers as labels and verdicts: is it one of the question's kind, and are two the same?

Audits of the kind `answer-extraction` compare what readers of a reply say that it states. Two
answers are the same where they name one option, one number (to two decimals) or the same times (to
a tenth of a second); texts are where the words are, or where the task's metric takes one for the
other.
"""

from collections.abc import Sequence

from judges.audits.audit_kinds import AuditKind
from judges.scoring.answer_score import check_answer, is_readable, validate_gold
from judges.scoring.choices import chosen_letter
from judges.scoring.numbers import equal_to_two_decimals, read_number
from judges.scoring.text import plain_characters
from judges.scoring.time_intervals import read_intervals
from schemas.questions import ProblemType, VideoQuestion

_EXPECTED = {
    ProblemType.MULTIPLE_CHOICE: "the letter of one of its options",
    ProblemType.NUMERICAL: "a number",
    ProblemType.REGRESSION: "a number",
    ProblemType.TEMPORAL_GROUNDING: "times in seconds, such as 4.4 to 5.2",
}
_SAME_SECONDS = 0.1 + 1e-9
_AROUND = " \t\r\n.,;:!?\"'`*_()[]"


def refuse_without_answer(kind: AuditKind, question: VideoQuestion, label: str, text: str) -> None:
    """Raise ValueError for a label that needs an answer beside it and has none that can be read."""
    if not kind.yes_is_an_answer or label != kind.yes or is_readable(question, text):
        return
    expected = _EXPECTED.get(question.problem_type, "the reply's words")
    raise ValueError(
        f"the label {kind.yes} needs the answer that the reply states, {expected}, not {text!r}"
    )


def is_same_answer(question: VideoQuestion, one: str, other: str) -> bool:
    """Whether two readable answers to `question` say the same."""
    match question.problem_type:
        case ProblemType.MULTIPLE_CHOICE:
            options = question.options
            return chosen_letter(one, options) == chosen_letter(other, options)
        case ProblemType.NUMERICAL | ProblemType.REGRESSION:
            first, second = read_number(one), read_number(other)
            if first is None or second is None:
                return False
            return equal_to_two_decimals(first, second)
        case ProblemType.TEMPORAL_GROUNDING:
            return _are_same_times(one, other)
        case _:
            return _words(one) == _words(other) or any(
                _is_taken_for(question, gold, said) for gold, said in ((one, other), (other, one))
            )


def most_given(question: VideoQuestion, answers: Sequence[str | None]) -> tuple[str | None] | None:
    """The answer that most of `answers` give, None standing for no answer; None where two or more
    are given equally often, or nobody answered.
    """
    groups: list[list[str | None]] = []
    for answer in answers:
        for group in groups:
            first = group[0]
            if first is None or answer is None:
                is_same = first is answer
            else:
                is_same = is_same_answer(question, first, answer)
            if is_same:
                group.append(answer)
                break
        else:
            groups.append([answer])
    groups.sort(key=len, reverse=True)
    if not groups or (len(groups) > 1 and len(groups[0]) == len(groups[1])):
        return None
    return (groups[0][0],)


def _are_same_times(one: str, other: str) -> bool:
    first, second = (sorted(read_intervals(text) or ()) for text in (one, other))
    return len(first) == len(second) and all(
        abs(this - that) <= _SAME_SECONDS
        for spans in zip(first, second, strict=True)
        for this, that in zip(*spans, strict=True)
    )


def _words(text: str) -> list[str]:
    words = (word.strip(_AROUND) for word in plain_characters(text).casefold().split())
    return [word for word in words if word]


def _is_taken_for(question: VideoQuestion, gold: str, answer: str) -> bool:
    as_gold = question.model_copy(update={"solution": gold})
    return validate_gold(as_gold) is None and check_answer(as_gold, answer).passed
