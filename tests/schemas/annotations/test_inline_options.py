"""Options inside of a question's text: found line by line, their gold by letter or text."""

import pytest

from schemas.annotations.fields import FieldError
from schemas.annotations.inline_options import (
    inline_options,
    looks_like_a_letter,
    required_options,
    without_options,
)


@pytest.mark.parametrize(
    ("text", "problem", "texts"),
    [
        ("Why?\nA. x y\nB. z", "Why?", ("x y", "z")),
        ("Why?\n(A) x\n(B) z", "Why?", ("x", "z")),
        ("Why?\nOptions:\nA) x\nB) z\n\nAnswer with the letter.", "Why?", ("x", "z")),
        ("Why?\nA: x\n  and more\nB: z\nPlease choose.", "Why?", ("x and more", "z")),
        ("Which?\nSentence A: It is x.\nSentence B: It is z.", "Which?", ("It is x.", "It is z.")),
        ("Which?\nOption 1: x\nOption 2: z", "Which?", ("x", "z")),
        # statements before the options are part of the question
        ("Order?\nA. cut\nB. cook\nWhich?\nA. A then B\nB. B then A",
         "Order?\nA. cut\nB. cook\nWhich?", ("A then B", "B then A")),
        ("Order?\n1. cut\n2. cook\nA. 12\nB. 21", "Order?\n1. cut\n2. cook", ("12", "21")),
        # an option that begins as another one's mark does
        ("Which?\nA. E. coli\nB. S. aureus", "Which?", ("E. coli", "S. aureus")),
        ("Which?\nA. 1\nB. 2\nC. 3\nD. 4", "Which?", ("1", "2", "3", "4")),
    ],
)  # fmt: skip
def test_options_are_the_last_marked_lines(text: str, problem: str, texts: tuple[str, ...]) -> None:
    found = inline_options(text)
    assert found is not None
    assert (found.problem, found.texts) == (problem, texts)


@pytest.mark.parametrize(
    "text",
    ["Why?", "A. x\nB. z", "Why?\nA. x", "Why?\nB. x\nC. z", "Steps:\n1. cut\n2. cook", ""],
)
def test_a_text_without_a_list_from_the_first_letter_on_has_no_options(text: str) -> None:
    assert inline_options(text) is None
    with pytest.raises(FieldError, match="expected options like 'A"):
        required_options(text, "question")


@pytest.mark.parametrize(
    ("gold", "letter"),
    [
        ("B", "B"), ("(B)", "B"), ("B.", "B"), ("B. blue", "B"), ("Option B: blue.", "B"),
        ("blue", "B"), ("Blue.", "B"), ("B. red", None), ("C", None), ("2", None), ("", None),
        ("purple", None), ("B because it is blue", None), ("B. bl", None),
    ],
)  # fmt: skip
def test_a_gold_answer_names_one_option_or_none(gold: str, letter: str | None) -> None:
    assert required_options("Which?\nA. red\nB. blue", "q").letter_of(gold) == letter


def test_numbers_are_names_only_where_the_options_have_such() -> None:
    numbered = required_options("Which?\nOption 1: red\nOption 2: blue", "q")
    assert [numbered.letter_of(gold) for gold in ("Option 2: blue", "2", "Option 3: x")] == [
        "B",
        "B",
        None,
    ]


def test_a_part_of_an_options_text_counts_only_where_it_may() -> None:
    found = required_options("Which?\nA. {'do': 'cut'}\nB. {'do': 'cook'}", "q")
    assert found.letter_of("B. cook") is None
    assert found.letter_of("B. cook", part=True) == "B"
    assert found.letter_of("B. cut", part=True) is None


def test_what_looks_like_a_letter() -> None:
    letters = ["B", "(b)", "C.", "D. a cat"]
    texts = ["Yes", "a cat", "I am", "3", "A cat"]
    assert [looks_like_a_letter(text) for text in letters + texts] == [True] * 4 + [False] * 5


def test_options_that_a_question_repeats_are_cut_off_its_end() -> None:
    assert without_options("Why?A. (x)\nB. y z\n", ("(x)", "y z")) == "Why?"
    assert without_options("Why?A. (x)\nB. y", ("(x)", "y z")) == "Why?A. (x)\nB. y"
    assert without_options("A. x\nB. y", ("x", "y")) == "A. x\nB. y"
