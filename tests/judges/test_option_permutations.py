"""Permuted questions: options, lists in the text and gold answer change together, or not at all."""

from typing import Any

import pytest

from judges.option_permutations import permuted_question
from judges.scoring.choices import chosen_letter, read_choices
from schemas.questions import MediaRef, ProblemType, VideoQuestion


def _question(**fields: Any) -> VideoQuestion:
    defaults: dict[str, Any] = {
        "problem": "What stands on the table?",
        "options": ("A. a cup", "B. a plate", "C. a vase", "D. a lamp"),
        "solution": "C",
        "media": (MediaRef(kind="video", path="clip.mp4"),),
        "problem_type": ProblemType.MULTIPLE_CHOICE,
    }
    return VideoQuestion(**defaults | fields)


def _gold_text(question: VideoQuestion) -> str:
    letter = chosen_letter(question.solution, question.options)
    return next(one.text for one in read_choices(question.options) if one.letter == letter)


@pytest.mark.parametrize("number", range(1, 9))
def test_the_gold_answer_keeps_its_text(number: int) -> None:
    """Bug seen: the inverse permutation for the gold letter; right for half of the permutations."""
    question = _question()
    changed = permuted_question(question, "A vase.", number, "seed")
    assert changed is not None
    assert _gold_text(changed) == "a vase"
    assert changed.options != question.options
    assert sorted(one.text for one in read_choices(changed.options)) == sorted(
        one.text for one in read_choices(question.options)
    )


def test_odd_numbers_change_the_order_and_even_ones_the_letters() -> None:
    question = _question()
    ordered = permuted_question(question, "", 1, "seed")
    lettered = permuted_question(question, "", 2, "seed")
    assert ordered is not None
    assert lettered is not None
    assert [one.letter for one in read_choices(ordered.options)] == ["A", "B", "C", "D"]
    assert [one.text for one in read_choices(ordered.options)] != [
        one.text for one in read_choices(question.options)
    ]
    assert [one.text for one in read_choices(lettered.options)] == [
        one.text for one in read_choices(question.options)
    ]
    assert [one.letter for one in read_choices(lettered.options)] != ["A", "B", "C", "D"]


def test_no_permutation_comes_twice_and_there_are_as_many_as_there_are() -> None:
    """Three options have 3! - 1 = 5 other orders: numbers 1, 3, 5, 7, 9, and no 11."""
    question = _question(options=("A. x", "B. y", "C. z"))
    changed = [permuted_question(question, "", number, "s") for number in range(1, 13, 2)]
    assert changed[-1] is None
    assert len({one.options for one in changed if one is not None}) == 5


def test_the_same_seed_permutes_alike_and_others_do_not() -> None:
    question = _question()
    alike = [permuted_question(question, "", 1, "one") for _ in range(2)]
    assert alike[0] == alike[1]
    assert len({str(permuted_question(question, "", 1, f"s{n}")) for n in range(8)}) > 1


def test_an_option_list_inside_the_question_changes_with_the_options() -> None:
    question = _question(
        problem="What is there?\nOptions:\n(A) a cup\n(B) a plate; (C) a vase\n(D) a lamp\nSay.",
    )
    for number in range(1, 7):
        changed = permuted_question(question, "", number, "seed")
        assert changed is not None
        told = [f"({one.letter}) {one.text}" for one in read_choices(changed.options)]
        assert changed.problem == (
            f"What is there?\nOptions:\n{told[0]}\n{told[1]}; {told[2]}\n{told[3]}\nSay."
        )


def test_options_without_letters_get_them() -> None:
    changed = permuted_question(_question(options=("a cup", "a plate", "a vase")), "", 2, "s")
    assert changed is not None
    assert _gold_text(changed) == "a vase"


@pytest.mark.parametrize(
    ("fields", "observation"),
    [
        ({}, "Everything supports option B."),
        ({}, "The thing named in (C) is on the table."),
        ({"problem": "Why is answer A wrong?"}, ""),
        ({"options": ("A. a cup", "B. a plate", "C. none of the above")}, ""),
        ({"options": ("A. a cup", "B. a plate", "C. both A and B")}, ""),
        ({"options": ("A. a cup", "B. a plate", "C. A and B")}, ""),
        ({"options": ("A. cup", "B. plate", "C. vase", "D. the other options")}, ""),
        ({"problem_type": ProblemType.FREE_FORM, "options": (), "solution": "a vase"}, ""),
        ({"options": ("A. x", "B. y"), "solution": "Z"}, ""),
    ],
)
def test_what_would_mean_something_else_afterwards_is_left_alone(
    fields: dict[str, Any], observation: str
) -> None:
    assert permuted_question(_question(**fields), observation, 1, "seed") is None


@pytest.mark.parametrize(
    "text", ["A man and B-roll", "above the table", "I see a cup", "one of the cups", "the other"]
)
def test_ordinary_words_do_not_forbid_a_permutation(text: str) -> None:
    question = _question(options=("A. a cup", f"B. {text}", "C. a vase"))
    assert permuted_question(question, text, 1, "seed") is not None
