"""Gold answers: a text is never taken for a letter, and what could be two is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.annotations.fields import FieldError
from schemas.annotations.golds import (
    answer_options,
    any_gold,
    filled_options,
    interval_text,
    letter_of_text,
    open_type,
    span_fields,
)
from schemas.questions import ProblemType

short = st.text("abcdeABCDE0123", min_size=1, max_size=2)


@given(st.lists(short, min_size=2, max_size=5, unique=True), st.data())
def test_a_text_is_the_option_of_that_text_wherever_it_stands(
    texts: list[str], data: st.DataObject
) -> None:
    """Texts such as `B`, `2` and `b2`: none is ever read as the name of another option."""
    gold = data.draw(st.sampled_from(texts))
    options = answer_options(texts, "options")
    letter = letter_of_text(options, texts, gold, "answer")
    assert options.lines[options.letters.index(letter)].split(". ", 1)[1] == gold


def test_letters_as_options_are_texts_by_place() -> None:
    assert answer_options(["l", "v", "e"], "options").lines == ("A. l", "B. v", "C. e")
    with pytest.raises(FieldError, match="option 2 of 2 is empty"):
        answer_options(["x", " "], "o")


@pytest.mark.parametrize(
    ("texts", "value", "letter"),
    [
        (["cat", "dog"], "B", "B"),
        (["cat", "dog"], "dog", "B"),
        (["cat", "dog"], 1, "B"),
        (["cat", "dog"], "1", "B"),
        (["A. cat", "B. dog"], "B. dog", "B"),
        (["3", "2", "1"], "3", "A"),  # no option has the place 3
        (["0", "1"], 1, "B"),  # its index and its text agree
    ],
)
def test_a_gold_answer_of_any_kind(texts: list[str], value: object, letter: str) -> None:
    assert any_gold(answer_options(texts, "o"), texts, value, "solution") == letter


@pytest.mark.parametrize("value", [2, "2"])
def test_a_number_that_is_the_text_of_one_option_and_the_place_of_another_is_refused(
    value: object,
) -> None:
    texts = ["3", "2", "1"]
    with pytest.raises(FieldError, match="could be C by its index from 0 and B by its letter or"):
        any_gold(answer_options(texts, "o"), texts, value, "solution")


@pytest.mark.parametrize("value", ["C", "fox", 2, -1, None, "", True, 1.5])
def test_what_names_no_option_is_refused(value: object) -> None:
    texts = ["cat", "dog"]
    with pytest.raises(FieldError):
        any_gold(answer_options(texts, "o"), texts, value, "solution")


def test_empty_texts_by_letters_are_left_out() -> None:
    assert filled_options({"o": {"A": "x", "B": "", "C": None, "D": "y"}}, "o") == ("A. x", "D. y")
    assert filled_options({"o": {"A": "", "B": None}}, "o") == ()


def test_spans_are_both_ends_or_none() -> None:
    assert span_fields({"s": "1.5", "e": 4}, "s", "e") == (1.5, 4.0)
    assert span_fields({"s": None, "e": ""}, "s", "e") == ()
    with pytest.raises(FieldError, match="needs s and e, got only s"):
        span_fields({"s": 1}, "s", "e")
    with pytest.raises(FieldError, match="expected seconds"):
        span_fields({"s": "soon", "e": 3}, "s", "e")


def test_times_keep_their_digits() -> None:
    assert interval_text(12345.678, 100000.25) == "12345.678 to 100000.25"


def test_an_open_question_is_a_number_or_a_text() -> None:
    numbers = [open_type(gold) for gold in ("3", "-2.5", "1,200", ".5")]
    texts = [open_type(gold) for gold in ("3 cats", "1/2", "three", "1,2")]
    assert numbers == [ProblemType.NUMERICAL] * 4
    assert texts == [ProblemType.FREE_FORM] * 4
