"""Numerical and regression answers: units off, separators off, nothing guessed."""

from decimal import Decimal

import pytest
from helpers.scoring_questions import question
from hypothesis import given
from hypothesis import strategies as st

from judges.scoring.answer_score import GoldError, score_answer, validate_gold
from judges.scoring.numbers import read_number, relative_accuracy
from schemas.questions import ProblemType

READ = {
    "5": "5",
    " 5.\n": "5",
    "05": "5",
    ".5": "0.5",
    "5.": "5",
    "+5": "5",
    "-5": "-5",
    "−5": "-5",
    "–5": "-5",
    "1,200": "1200",
    "1,200.50": "1200.50",
    "1,234,567": "1234567",
    "$1,200.50": "1200.50",
    "-$5": "-5",
    "$-5": "-5",
    "€ 7": "7",
    "US$5": "5",
    "45%": "45",
    "45 percent": "45",
    "12 cm": "12",
    "12cm": "12",
    "12 m²": "12",
    "12 m^2": "12",
    "12 m2": "12",
    "9.81 m/s^2": "9.81",
    "60 km/h": "60",
    "90°": "90",
    "36.6 °C": "36.6",
    "2 cars": "2",
    "2 men in the street": "2",
    "3/4": "0.75",
    "3 / 4 cup": "0.75",
    "-1/2": "-0.5",
    "1e3": "1000",
    "1.5E-2": "0.015",
    "2 million": "2000000",
    "2 dozen eggs": "24",
    "about 12": "12",
    "≈ 12 s": "12",
    "~12": "12",
    "**12**": "12",
    r"\boxed{12}": "12",
    "$12$": "12",
    "The answer is 12.": "12",
    "Answer: 12 cm": "12",
    "１２": "12",
    "5 🙂": "5",
}

REFUSED = {
    "": "nothing",
    ".": "only punctuation",
    "-": "only a sign",
    "$": "only a currency",
    "three": "words are not read",
    "nan": "NaN",
    "NaN": "NaN",
    "inf": "infinity",
    "-Infinity": "infinity",
    "∞": "infinity",
    "1e999": "beyond a float",
    "1e-999": "beyond a float",
    "1e99999": "beyond a float",
    "9" * 400: "beyond a float",
    "3 or 4": "two numbers",
    "3 or four": "two numbers, one in words",
    "3, 4": "two numbers",
    "3 4": "two numbers",
    "3-4": "a range",
    "3 to 4": "a range",
    "3±1": "a range",
    "5 not 6": "two numbers",
    "2 and a half": "more than 2",
    "1 1/2": "a mixed fraction reads like two numbers",
    "1/0": "no number",
    "1/2/2020": "a date",
    "12:30": "a time",
    "1,5": "a decimal comma or two numbers",
    "1,23,456": "groups of another size",
    "1,2345": "groups of another size",
    "1.2.3": "a version",
    "10^2": "a power",
    "10²": "a power",
    "1.2 × 10^3": "a product",
    "2π": "a product",
    "--5": "two signs",
    "-$-5": "two signs",
    "x = 5 or so they say in the end": "begins with another thing",
    "room 5": "begins with another thing",
    "5 " + "very " * 10 + "long": "no unit is that long",
    "<answer>5</answer>": "tags are not part of an answer",
    "٣": "digits that nobody compares",
}


@pytest.mark.parametrize("text", READ)
def test_a_number_is_read_with_its_unit_left_off(text: str) -> None:
    assert read_number(text) == Decimal(READ[text])


@pytest.mark.parametrize(
    "text", REFUSED, ids=[f"{why}-{text[:12]}" for text, why in REFUSED.items()]
)
def test_what_is_not_one_number_is_refused(text: str) -> None:
    assert read_number(text) is None
    assert score_answer(question(ProblemType.NUMERICAL, "5"), text) == 0.0
    assert score_answer(question(ProblemType.REGRESSION, "5"), text) == 0.0


@pytest.mark.parametrize(
    ("gold", "answer", "score"),
    [
        ("5", "5.00", 1.0),
        ("5", "5.004", 1.0),  # rounds to 5.00
        ("5", "5.006", 0.0),  # rounds to 5.01
        ("3.14159", "3.14", 1.0),
        ("0.125", "0.12", 1.0),  # half to even
        ("0.135", "0.14", 1.0),
        ("2.675", "2.68", 1.0),  # in binary floats 2.675 is below the middle and rounds to 2.67
        ("1/3", "0.33", 1.0),
        ("1200.5", "1,200.50", 1.0),
        ("45%", "45", 1.0),
        ("45%", "0.45", 0.0),
        ("-2", "2", 0.0),
        ("0", "-0.001", 1.0),  # both round to 0.00
        ("1e300", "1e300", 1.0),
    ],
)
def test_numbers_agree_after_rounding_to_two_decimals(gold: str, answer: str, score: float) -> None:
    assert score_answer(question(ProblemType.NUMERICAL, gold), answer) == score


@pytest.mark.parametrize(
    ("gold", "answer", "score"),
    [
        ("10", "10", 1.0),
        ("10", "9", 0.9),  # 1 - 1/10
        ("10", "12.5", 0.75),
        ("10", "0", 0.0),
        ("10", "20", 0.0),
        ("10", "-10", 0.0),  # relative error 2, cut at 1
        ("10", "1e300", 0.0),
        ("-4", "-3", 0.75),
        ("1.6", "0.96", 0.6),  # exactly the builder's threshold
        ("0", "0", 1.0),  # no relative error: exact or nothing
        ("0", "0.0001", 0.0),
    ],
)
def test_regression_is_one_minus_the_relative_error(gold: str, answer: str, score: float) -> None:
    assert score_answer(question(ProblemType.REGRESSION, gold), answer) == score


@given(st.decimals(-1000, 1000, places=2), st.decimals(-1000, 1000, places=2))
def test_relative_accuracy_is_symmetric_around_gold_and_within_0_and_1(
    gold: Decimal, distance: Decimal
) -> None:
    above, below = (
        relative_accuracy(gold + distance, gold),
        relative_accuracy(gold - distance, gold),
    )
    assert above == below
    assert 0.0 <= above <= 1.0
    assert (above == 1.0) == (distance == 0)


@given(st.integers(-(10**12), 10**12))
def test_separators_and_units_change_nothing(number: int) -> None:
    assert read_number(f"{number:,} cm") == read_number(str(number)) == number


@pytest.mark.parametrize("problem_type", [ProblemType.NUMERICAL, ProblemType.REGRESSION])
@pytest.mark.parametrize("gold", ["many", "nan", "1,5", "3 to 4"])
def test_a_gold_answer_that_is_no_number_is_an_error_and_not_a_zero(
    problem_type: ProblemType, gold: str
) -> None:
    broken = question(problem_type, gold)
    complaint = validate_gold(broken)
    assert complaint is not None
    assert repr(gold) in complaint
    with pytest.raises(GoldError, match="is not one number"):
        score_answer(broken, "5")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[
            (text, 3_000)
            for text in ("3k", "3K", "3 k", "3천", "3 thousand", "3 Thousands", "$3k$", "3千")
        ],
        *[(text, 1_200_000_000) for text in ("1.2B", "1.2bn", "1.2 billion people", "12亿")],
        *[
            (text, 5_000_000)
            for text in (
                "5M",
                "$5 M",
                "$5m",
                "5 USD million",
                "5 mn",
                "5 million",
                "5百万",
                "50 lakh",
            )
        ],
        *[(text, 300_000) for text in ("3 hundred thousand", "3 lakh", "30万", "30万人")],
        *[(text, Decimal("0.5")) for text in ("½", r"\frac{1}{2}", "1/2")],
        *[(text, Decimal("2.5")) for text in ("2½", "2 ½ cups")],
        *[
            (text, 3)
            for text in ("3 m", "3m", "3 K", "3km", "3 kg", "3 B", "(3)", "3千米", "3 千克")
        ],
    ],
)
def test_a_scale_multiplies_and_a_unit_does_not(text: str, number: Decimal | int) -> None:
    assert read_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "3兆",
        r"2\frac{1}{2}",
        "5 tenths",
        "2 thousandths",
        "5 mil",
        "5 grand",
        "2.5½",
        "2 million 5",
        "1 ½ 2",
        "三",
        "3 ½ or 4",
    ],
)
def test_a_scale_that_could_be_two_is_refused(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("0,500", "0,125", "012,345"),  # no group begins with 0: a decimal comma
        *("2x3", "4x4", r"5\times2", r"5\cdot2", r"3\sqrt{2}", r"2\sqrt3", r"2\pi", "0x5"),
        *("1h5m", "2m3s", "5ft6in", "1h5", "1M2", "3k2", "5E5E5"),
        *("5MM", "5kk", "1.2b", "5 squared", "5 plus 2", "5 at most"),
        *("5 bin", "5 billones", "5 Billionen", "5 quadrillion", "5 score", "5십"),
    ],
)
def test_what_is_a_product_two_units_or_an_unclear_scale_is_refused(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[
            (text, 5_000)
            for text in ("5 Tausend", "5 mille", "5 тыс.", "5 тысяч", "5 ribu", "5 हज़ार", "5 ألف")
        ],
        *[
            (text, 5_000_000)
            for text in ("5 millones", "5 млн", "5 juta", "5 triệu", "5 Millionen")
        ],
        *[(text, 5_000_000_000) for text in ("5 Mrd.", "5 Milliarden", "5 milliards", "5 млрд")],
        *[(text, 5) for text in ("5 m3", "5 kg m2", "5 s-1", r"\$5", r"$\$5$", r"5\%", "5 x")],
        *[(text, 5) for text in ("5 miles", "5 bins", r"5\text{ cm}", "5 times", "5 mm")],
    ],
)
def test_scales_of_other_languages_multiply(text: str, number: int) -> None:
    assert read_number(text) == number
