"""Option letters and the gold letter."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.answer_options import duplicate_options, letter_options


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


@pytest.mark.parametrize(
    ("options", "gold", "letter"),
    [
        (["A", "B", "C", "D"], "C", "C"),
        (["B", "A", "D", "C"], "D", "D"),
        (["A. a cup", "B. ", "C. a jug", "D. "], "D", "D"),
        (["A. a cup", "B. ", "C. a jug", "D. "], "B", "B"),
        (["(a)", "(b)", "(c)"], "b", "B"),
    ],
)
def test_an_option_without_a_text_is_named_by_its_letter(
    options: list[str], gold: str, letter: str
) -> None:
    lettered = letter_options(options)
    assert lettered.letter_of(gold) == letter
    assert lettered.letter_of_index(lettered.letters.index(letter)) == letter
    assert duplicate_options(options) == ()


@pytest.mark.parametrize(
    ("options", "gold", "line"),
    [
        (["c. hen", "a. dog", "b. cow"], "b", "cow"),
        (["Ｂ．牛", "Ａ．狗"], "B", "牛"),
        (["B. dog", "C. cow", "D. hen", "E. pig"], "C", "cow"),
        (["**B.** cow", "**A.** dog"], "B", "cow"),
        (["Option B: cow", "Option A: dog"], "B", "cow"),
        (["B - cow", "A - dog"], "B", "cow"),
        (["B、cow", "A、dog"], "B", "cow"),
        (["[B] cow", "[A] dog"], "A", "dog"),
        (["Ⓑ cow", "Ⓐ dog"], "B", "cow"),
        (["2) cow", "1) dog"], "2", "cow"),
        (["1) dog", "2) cow"], "B", "cow"),
        (["ii. cow", "i. dog"], "ii", "cow"),
        (["Б. cow", "А. dog"], "Б", "cow"),
        (["E. coli", "S. aureus"], "A", "E. coli"),
        (["1.5 m", "2.5 m"], "B", "2.5 m"),
    ],
)
def test_marks_of_any_dress_are_letters(options: list[str], gold: str, line: str) -> None:
    lettered = letter_options(options)
    chosen = lettered.letter_of(gold)
    assert lettered.texts[lettered.letters.index(chosen)] == line


def test_a_letter_that_could_mean_two_options_is_refused() -> None:
    lettered = letter_options(["B. dog", "cat", "A. hen"])
    with pytest.raises(ValueError, match="could be two options"):
        lettered.letter_of("B")
    assert lettered.letter_of("cat") == "B"


DRESSES = [
    *("{}, {}", "{}; {}", "{} | {}", "{} = {}", "{} -> {}", "{} → {}", "{}_{}", "{} {}", "{}-{}"),
    *(
        '"{}" {}',
        "'{}' {}",
        "“{}” {}",
        "{{{}}} {}",
        "${}$ {}",
        r"\textbf{{{}}} {}",
        r"\item[{}] {}",
    ),
    *("### {}. {}", "1. {}. {}", "> {}. {}", "Ans. {}: {}", "option_{}: {}", "{}\u200b. {}"),
    *("Antwort {}: {}", "Opción {}: {}", "보기 {}. {}", "{}选项：{}", "{}\n{}", "•{}. {}"),
]


@pytest.mark.parametrize("dress", DRESSES)
def test_letters_out_of_order_in_a_dress_that_is_not_read_never_go_by_place(dress: str) -> None:
    dog, cat = dress.format("B", "dog"), dress.format("A", "cat")
    with pytest.raises(ValueError, match="could be two options"):
        letter_options([dog, cat]).letter_of("B")
    assert letter_options([dog, cat]).letter_of(dog) == "A"
    assert letter_options([cat, dog]).letter_of("B") == "B"


@pytest.mark.parametrize(
    "options", [["A man", "I see it"], ["the B team", "an A team"], ["dog", "A cat"]]
)
def test_words_and_letters_inside_of_texts_are_no_marks(options: list[str]) -> None:
    assert letter_options(options).letter_of("B") == "B"


def test_invisible_characters_in_front_of_a_mark_are_passed_over() -> None:
    options = letter_options(["\ufeffB. dog", "\u200bA. cat"])
    assert options.lines == ("A. dog", "B. cat")
    assert options.letter_of("B") == "A"
