"""Percentages are as exact as the number of questions allows."""

import pytest

from train.evaluation.metrics import Metric, all_metrics
from train.evaluation.page import _model_name
from train.evaluation.tables import comparison_table, decimals, number, percent


@pytest.mark.parametrize(
    ("num_questions", "shown"),
    [(30, "33 %"), (99, "33 %"), (100, "33.3 %"), (999, "33.3 %"), (1000, "33.33 %")],
)
def test_a_percentage_has_the_decimals_that_its_questions_allow(
    num_questions: int, shown: str
) -> None:
    assert percent(1 / 3, num_questions) == shown
    assert decimals(num_questions) == len(shown.partition(".")[2].removesuffix(" %"))


def test_nothing_is_a_dash_and_one_answer_has_one_decimal() -> None:
    assert percent(None, 10) == "–"
    assert percent(0.537) == "53.7 %"


def test_only_shares_are_percentages() -> None:
    share = next(one for one in all_metrics() if one.is_share)
    assert number(share, 0.5, 50) == "50 %"
    plain = Metric("words", "words", lambda question: True, lambda one: None)
    assert number(plain, 12.3456, 50) == "12.35"


def test_differences_have_the_same_decimals() -> None:
    seen = {
        "both_right": 1,
        "only_first_right": 2,
        "only_second_right": 3,
        "neither_right": 4,
        "difference": {"score": -0.1, "low": -0.3, "high": 0.1},
        "mcnemar_exact_p": 1.0,
        "mcnemar_clustered_p": 1.0,
    }
    for matched, shown in ((10, "-10 points (-30 to +10)"), (150, "-10.0 points (-30.0 to +10.0)")):
        _, rows = comparison_table({"matched": matched, "strict": seen, "tolerant": seen})
        assert [row[6] for row in rows] == [shown, shown]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("/somewhere/out/rl/model (weights-0123)", "rl/model"),
        ("tiny", "tiny"),
        ("", "Answers that exist"),
    ],
)
def test_a_page_is_named_after_its_model(model: str, name: str) -> None:
    assert _model_name(model) == name
