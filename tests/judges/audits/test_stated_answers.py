"""When two answers are one, what most people say, and which labels need an answer."""

import pytest
from helpers.scoring_questions import choice_question, grounding_question, question

from judges.audits.audit_kinds import ANSWER_EXTRACTION, SUFFICIENCY
from judges.audits.stated_answers import is_same_answer, most_given, refuse_without_answer
from schemas.questions import ProblemType, VideoQuestion

CHOICE = choice_question("C")
NUMBER = question(ProblemType.NUMERICAL, "3")
RELATIVE = question(ProblemType.REGRESSION, "3")
SPAN = grounding_question("4.4 to 5.2")
TEXT = question(ProblemType.FREE_FORM, "a red ball")
SIGN = question(ProblemType.OCR, "STOP")


@pytest.mark.parametrize(
    ("asked", "one", "other", "is_same"),
    [
        (CHOICE, "B", "b.", True),
        (CHOICE, "A", "Horizontal stripes", False),
        (CHOICE, "B", "Horizontal stripes", True),
        (CHOICE, "A", "B", False),
        (NUMBER, "8", "8.00", True),
        (NUMBER, "8", "8.006", False),
        (NUMBER, "1,200", "1200", True),
        (NUMBER, "-3", "3", False),
        (RELATIVE, "100", "101", False),  # close, as the metric goes, but another number
        (SPAN, "4 to 5", "00:04-00:05", True),
        (SPAN, "4.04 to 5", "4.06 to 5.1", True),
        (SPAN, "4 to 5", "4 to 5.2", False),
        (SPAN, "4 to 5, 8 to 9", "8 to 9 and 4 to 5", True),
        (SPAN, "4 to 5, 8 to 9", "4 to 5", False),
        (TEXT, "A red ball.", "red ball", True),
        (TEXT, "a red ball", "a blue cube", False),
        (TEXT, "红球", "红球。", True),  # without a word that ROUGE counts
        (TEXT, "红球", "蓝球", False),
        (SIGN, "STOP", "stop!", True),
        (SIGN, "STOP", "SLOW", False),
    ],
)
def test_two_answers_are_one_by_the_kind_of_the_question(
    asked: VideoQuestion, one: str, other: str, is_same: bool
) -> None:
    assert is_same_answer(asked, one, other) is is_same
    assert is_same_answer(asked, other, one) is is_same


@pytest.mark.parametrize(
    ("answers", "most"),
    [
        (["A", "a.", "B"], ("A",)),
        (["A", "B"], None),
        ([None, "A", None], (None,)),
        ([None, "A"], None),
        (["A", "B", "C", "b"], ("B",)),
        ([], None),
        ([None], (None,)),
    ],
)
def test_most_people_decide_and_a_tie_decides_nothing(
    answers: list[str | None], most: tuple[str | None] | None
) -> None:
    assert most_given(CHOICE, answers) == most


@pytest.mark.parametrize(
    ("asked", "text", "told"),
    [
        (CHOICE, "", "the letter of one of its options, not ''"),
        (CHOICE, "A or B", "the letter of one"),
        (NUMBER, "many", "a number, not 'many'"),
        (SPAN, "soon", "times in seconds, such as 4.4 to 5.2, not 'soon'"),
        (TEXT, "  ", "the reply's words"),
    ],
)
def test_a_stated_answer_must_be_one(asked: VideoQuestion, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        refuse_without_answer(ANSWER_EXTRACTION, asked, "stated", text)
    for label in ("none", "unsure"):
        refuse_without_answer(ANSWER_EXTRACTION, asked, label, text)
    refuse_without_answer(SUFFICIENCY, asked, "sufficient", text)
