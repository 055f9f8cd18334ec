"""Option letters and the gold letter."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.options import duplicate_options, letter_options


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (["cat", "dog"], ("A. cat", "B. dog")),
        (["A. cat", "B. dog"], ("A. cat", "B. dog")),
        (["(A) cat", "(B) dog"], ("A. cat", "B. dog")),
        (["A) cat", "B) dog"], ("A. cat", "B. dog")),
        (["A.cat", "B: dog "], ("A. cat", "B. dog")),
        (["A", "B"], ("A.", "B.")),
        (["E. coli", "S. aureus"], ("A. E. coli", "B. S. aureus")),  # no option A: texts
        (["A. Smith", "A. Jones"], ("A. A. Smith", "B. A. Jones")),  # twice A: texts
        (["A. Smith", "John"], ("A. A. Smith", "B. John")),
        (["Apple", "Banana"], ("A. Apple", "B. Banana")),
        (["a cat", "A dog"], ("A. a cat", "B. A dog")),
        (["B. dog", "A. cat"], ("A. dog", "B. cat")),  # lettered anew, gold letters follow
    ],
)
def test_options_get_their_letters_once(options: list[str], lines: tuple[str, ...]) -> None:
    assert letter_options(options).lines == lines


@pytest.mark.parametrize(
    ("gold", "letter"),
    [
        ("C", "C"),
        ("c", "C"),
        ("(C)", "C"),
        ("C.", "C"),
        (" C ", "C"),
        ("bird", "C"),
        ("C. bird", "C"),
        ("(C) bird", "C"),
        ("A", "A"),
    ],
)
def test_gold_is_a_letter_a_text_or_both(gold: str, letter: str) -> None:
    assert letter_options(["cat", "dog", "bird"]).letter_of(gold) == letter


@pytest.mark.parametrize("gold", ["D", "C. cat", "fish", "A or B", "A, B", "2", "", "Bird"])
def test_gold_that_is_no_option_is_refused(gold: str) -> None:
    with pytest.raises(ValueError, match="none of the 3 options"):
        letter_options(["cat", "dog", "bird"]).letter_of(gold)


def test_gold_index_counts_from_zero() -> None:
    options = letter_options(["cat", "dog", "bird"])
    assert [options.letter_of_index(index) for index in range(3)] == ["A", "B", "C"]
    for index in (-1, 3):
        with pytest.raises(ValueError, match="none of the 3 options"):
            options.letter_of_index(index)


def test_a_letter_means_the_written_letter_and_not_the_place() -> None:
    options = letter_options(["B. dog", "A. cat", "D. cow"])
    assert (options.lines[2], options.letter_of("D")) == ("C. cow", "C")
    assert options.lines["AB".index(options.letter_of("A"))] == "B. cat"


def test_gold_of_equal_options_is_the_first_of_them() -> None:
    options = letter_options(["scarf", "cap", "turban", "cap", "scarf"])
    assert options.letter_of("E") == "A"
    assert options.letter_of("cap") == "B"
    assert options.letter_of_index(3) == "B"


def test_duplicate_options_are_told_by_letter() -> None:
    assert duplicate_options(("A. cat", "B. dog")) == ()
    assert duplicate_options(("A. cat", "B. dog", "C. cat", "D. cat")) == ("C", "D")
    assert duplicate_options(("cat", "dog", "cat")) == ("C",)  # without letters


@pytest.mark.parametrize("options", [[], ["one"], ["x"] * 27])
def test_two_to_twenty_six_options(options: list[str]) -> None:
    with pytest.raises(ValueError, match="2 to 26 options"):
        letter_options(options)


def test_an_empty_option_is_refused() -> None:
    with pytest.raises(ValueError, match="option 2 of 3 is empty"):
        letter_options(["cat", " ", "dog"])


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=26))
def test_lettering_twice_changes_nothing(options: list[str]) -> None:
    once = letter_options(options)
    twice = letter_options(once.lines)
    assert twice.lines == once.lines
    for index, letter in enumerate(string.ascii_uppercase[: len(options)]):
        assert twice.letter_of(letter) == once.letter_of_index(index)
