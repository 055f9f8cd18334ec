"""Multiple choice: what is read as a letter, and what could mean two and therefore means none."""

import pytest
from helpers.scoring_questions import FOUR_OPTIONS, choice_question
from hypothesis import given
from hypothesis import strategies as st

from judges.scoring.answer_score import check_answer, score_answer, validate_gold
from judges.scoring.choices import chosen_letter, leading_choice, read_choices

CHOOSES_B = [
    "B",
    "b",
    " B\n",
    "(B)",
    "[B]",
    "( B )",
    "B.",
    "B)",
    "(B).",
    "B:",
    "**B**",
    "`B`",
    '"B"',
    "$B$",
    r"\boxed{B}",
    "Ｂ",
    "（Ｂ）",
    "B\u200b",
    "Option B",
    "option b",
    "Choice (B)",
    "Answer: B",
    "**Answer:** (B)",
    "The answer is B.",
    "The correct answer is option B",
    "The correct option is B",
    "B is correct",
    "B is the correct answer.",
    "B. Horizontal stripes",
    "B) horizontal stripes.",
    "(B) Horizontal stripes",
    "B Horizontal stripes",
    "B - Horizontal stripes",
    "B, Horizontal stripes",
    "b. horizontal stripes",
    "B.Horizontal stripes",
    "B. The top has stripes",
    "B. A top with stripes",
    "Option B: Horizontal stripes",
    "The answer is B. Horizontal stripes",
    "Horizontal stripes",
    "horizontal  STRIPES.",
    "The answer is horizontal stripes",
    "B. B",
]

CHOOSES_NOTHING = [
    "",
    " ",
    ".",
    "()",
    "?!",
    "🙂",
    "A or B",
    "B or C",
    "A, C",
    "A/B",
    "A & B",
    "A and B",
    "AB",
    "A B",
    "B, C",
    "(A) (B)",
    "A. or B.",
    "B) and C)",
    "B. No, wait, C.",
    "B. Checks",
    "Option A or option B",
    "The answer is A or B",
    "B or C or D",
    "E",
    "Z",
    "F.",
    "2",
    "stripes",
    "none",
    "both",
    "not B",
    "The answer is not B",
    "B is wrong",
    "(B) is incorrect",
    "a cat",
    "b is for bear",
    "be careful",
    "Dots, Checks",
    "Dots or horizontal stripes",
    "<answer>B</answer>",
    "<answer><answer>B</answer></answer>",
    "A\nB",
    "ABCD",
]


@pytest.mark.parametrize("answer", CHOOSES_B)
def test_an_answer_that_can_only_mean_b_is_read_as_b(answer: str) -> None:
    assert chosen_letter(answer, FOUR_OPTIONS) == "B"
    assert score_answer(choice_question("B"), answer) == 1.0
    assert score_answer(choice_question("C"), answer) == 0.0


@pytest.mark.parametrize("answer", CHOOSES_NOTHING)
def test_an_answer_that_could_mean_two_options_or_none_scores_0_for_every_gold(answer: str) -> None:
    assert chosen_letter(answer, FOUR_OPTIONS) is None
    assert [score_answer(choice_question(gold), answer) for gold in "ABCD"] == [0.0] * 4


@given(st.text(max_size=30))
def test_no_text_is_right_for_two_different_gold_letters(answer: str) -> None:
    assert sum(score_answer(choice_question(gold), answer) for gold in "ABCD") <= 1.0


@given(
    st.sampled_from("ABCD"),
    st.sampled_from("ABCD"),
    st.sampled_from([" or ", ", ", "/", " and ", " & ", ";", "\n"]),
    st.sampled_from(["{}", "({})", "{}.", "Option {}", "**{}**"]),
)
def test_two_different_letters_in_any_dress_are_no_choice(
    left: str, right: str, between: str, dress: str
) -> None:
    if left != right:
        answer = dress.format(left) + between + dress.format(right)
        assert chosen_letter(answer, FOUR_OPTIONS) is None, answer


def test_a_letter_beyond_the_options_is_no_choice_even_when_it_is_alone() -> None:
    two = ("A. Yes", "B. No, it is black and white")
    assert chosen_letter("C", two) is None
    assert chosen_letter("B", two) == "B"


def test_equal_options_count_as_the_first_of_them() -> None:
    options = ("A. one", "B. two", "C. one", "D. three")
    for gold in ("A", "C"):
        question = choice_question(gold, options)
        assert [score_answer(question, answer) for answer in "ABCD"] == [1.0, 0.0, 1.0, 0.0]
        assert score_answer(question, "one") == 1.0
        assert check_answer(question, "C").extracted == "A"


def test_option_texts_that_read_alike_need_the_exact_text() -> None:
    options = ("A. Na", "B. NA", "C. na.", "D. K")
    assert chosen_letter("NA", options) == "B"
    assert chosen_letter("nA", options) is None


def test_an_option_that_speaks_of_other_options_can_be_chosen_by_its_text() -> None:
    options = ("A. rain", "B. snow", "C. A and B", "D. none of the above")
    assert chosen_letter("A and B", options) == "C"
    assert chosen_letter("C. A and B", options) == "C"
    assert chosen_letter("D. A and B", options) is None
    assert chosen_letter("none of the above", options) == "D"


def test_a_letter_wins_over_an_option_whose_text_is_that_letter() -> None:
    options = ("A. D", "B. C", "C. B", "D. A")
    assert chosen_letter("A", options) == "A"
    assert chosen_letter("A. D", options) == "A"


@pytest.mark.parametrize("answer", ["e.g. a dog", "E.coli colonies", "i.e. nothing"])
def test_abbreviations_are_no_letters(answer: str) -> None:
    options = tuple(f"{letter}. thing {letter * 2}" for letter in "ABCDEFGHIJ")
    assert chosen_letter(answer, options) is None


def test_options_without_letters_are_lettered_by_their_place() -> None:
    assert [choice.letter for choice in read_choices(("E. coli", "S. aureus"))] == ["A", "B"]
    assert chosen_letter("S. aureus", ("E. coli", "S. aureus")) == "B"
    assert chosen_letter("S", ("E. coli", "S. aureus")) is None
    assert [choice.text for choice in read_choices(("(A) x", "B) y", "C: z"))] == ["x", "y", "z"]


def test_letters_in_front_count_even_when_they_are_shuffled() -> None:
    assert chosen_letter("red", ("B. red", "A. blue")) == "B"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [(tuple(f"value {number}" for number in range(27)), "2 to 26"), (("x", " "), "is empty")],
)
def test_options_that_cannot_have_letters_are_named(
    options: tuple[str, ...], complaint: str
) -> None:
    assert complaint in (validate_gold(choice_question("A", options)) or "")


@pytest.mark.parametrize("gold", ["E", "A or B", "5", "nothing like it"])
def test_a_gold_answer_that_is_no_option_is_named(gold: str) -> None:
    complaint = validate_gold(choice_question(gold))
    assert complaint is not None
    assert repr(gold) in complaint
    assert "A, B, C, D" in complaint


@pytest.mark.parametrize(
    ("reply", "chosen"),
    [
        ("**B. cow**\n\nThe animal has horns, which a dog has not.", "B"),
        ("B. cow\n\nA dog would be smaller.", "B"),
        ("(B) cow\nA dog has no horns.", "B"),
        ("# B\n\nIt has horns.", "B"),
        ("cow\n\nIt has horns.", "B"),
        ("Option B: cow\n\nIt has horns.\n\nSo the answer is B.", "B"),
        ("<think>A?</think>B. cow\n\nIt has horns.", "B"),
        ("B. cow\n\nIt barks. So the answer is A.", ""),
        ("B. cow\n\nOn second thought:\nA", ""),
        ("B. dog\n\nLetter and text differ.", None),
        ("B. The cow on the left\n\nIt has horns.", None),
        ("### Answer\nB. cow\n\nIt has horns.", "B"),
        ("B. cow\n\nThe answer is B. Wait, no.", ""),
        ("The answer is B.\n\nWait, the dog fits better.", ""),
        ("B. cow", None),
        ("A. dog\nB. cow\nThe answer is B", None),
        ("B. cow\n<answer>A</answer>", None),
    ],
)
def test_an_option_alone_on_the_first_line_is_the_answer(reply: str, chosen: str | None) -> None:
    assert leading_choice(reply, ["A. dog", "B. cow"]) == chosen


@pytest.mark.parametrize(
    "answer",
    [
        "D: not visible",
        "D. Not shown in the video.",
        "D) false",
        "(D) is unlikely",
        "D) can be eliminated.",
        "D: ❌",
        "D: No, there is no pig.",
        "D. It isn't there",
        "D：错误",
        "A) dog b) cow",
    ],
)
def test_an_option_that_is_denied_is_not_chosen(answer: str) -> None:
    assert chosen_letter(answer, ["A. dog", "B. cow", "C. hen", "D. pig"]) is None


@pytest.mark.parametrize(
    "answer", ["B. There's no dog in it", "B: no dog", "B. No dog is seen there", "B. no dog."]
)
def test_an_option_that_denies_something_itself_is_chosen(answer: str) -> None:
    assert chosen_letter(answer, ["A. a dog", "B. There is no dog"]) == "B"


@pytest.mark.parametrize(
    "answer", ["B. cow (not a dog)", "B. cow, not the dog", "B: a cow, not dog"]
)
def test_to_deny_another_option_denies_nothing(answer: str) -> None:
    assert chosen_letter(answer, ["A. dog", "B. cow"]) == "B"
