"""What an audit says where a formula has nothing to say, and which labels it refuses."""

import math

import numpy as np
import pytest

from judges.statistics.agreement import Agreement, agreement, human_ceiling, majority
from judges.statistics.cluster_bootstrap import Estimate, sample_design, share
from judges.statistics.paired_comparison import compare_judges

NAN = math.nan
ESTIMATES = [name for name, kind in Agreement.__annotations__.items() if kind is Estimate]


def audit(judge: list[float], human: list[float]) -> Agreement:
    return agreement(judge, human, sample_design(range(len(judge))), resamples=400)


def values(found: Agreement, *names: str) -> tuple[float, ...]:
    return tuple(round(getattr(found, name).value, 12) for name in names)


def test_perfect_agreement_is_one_and_its_interval_ends_there() -> None:
    found = audit([1, 1, 1, 0, 0] * 8, [1, 1, 1, 0, 0] * 8)
    names = ("agreement", "precision", "recall", "f1", "kappa", "ac1", "alpha")
    assert values(found, *names) == (1,) * 7
    assert values(found, "kept_but_insufficient", "rejected_but_sufficient") == (0, 0)
    for name in names:
        estimate = getattr(found, name)
        assert estimate.high == 1
        assert 0.6 < estimate.low < 0.99, name  # 40 labels without an error prove no perfection


def test_inverse_agreement_is_minus_one_on_balanced_labels() -> None:
    """Alpha by hand: Do = 1, De = 0.5 * 40 / 39, so 1 - 1 / De = 1 - 78 / 40."""
    found = audit([1, 0] * 10, [0, 1] * 10)
    assert values(found, "agreement", "kappa", "ac1", "precision", "f1") == (0, -1, -1, 0, 0)
    assert found.alpha.value == pytest.approx(1 - 78 / 40, abs=1e-12)


def test_a_judge_that_always_says_yes_has_kappa_zero_and_no_answer_about_its_no() -> None:
    found = audit([1] * 10, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0])
    assert values(found, "agreement", "precision", "recall", "kappa") == (0.8, 0.8, 1, 0)
    assert found.ac1.value == pytest.approx((0.8 - 0.18) / 0.82, abs=1e-12)  # pe = 2 * .9 * .1
    unknown = found.rejected_but_sufficient
    assert math.isnan(unknown.value)
    assert math.isnan(unknown.low)
    assert math.isnan(unknown.high)


def test_where_everybody_always_says_yes_kappa_and_alpha_are_undefined_and_ac1_is_one() -> None:
    found = audit([1] * 10, [1] * 10)
    assert values(found, "agreement", "precision", "ac1", "prevalence") == (1, 1, 1, 1)
    for name in ("kappa", "alpha", "rejected_but_sufficient"):
        assert math.isnan(getattr(found, name).value), name


def test_a_judge_that_never_says_yes_has_no_precision() -> None:
    found = audit([0] * 4, [1, 0, 0, 1])
    assert math.isnan(found.precision.value)
    assert values(found, "recall", "f1", "rejected_but_sufficient") == (0, 0, 0.5)


def test_two_rows_give_values_and_very_wide_intervals() -> None:
    found = audit([1, 0], [1, 1])
    assert values(found, "agreement", "precision", "recall", "kappa") == (0.5, 1, 0.5, 0)
    assert found.agreement.width > 0.8
    assert found.kappa.width > 0.8


def test_one_video_gives_values_and_no_interval() -> None:
    found = agreement([1, 0, 1], [1, 1, 1], sample_design(["a"] * 3), resamples=50)
    assert found.agreement.value == pytest.approx(2 / 3)
    assert math.isnan(found.agreement.low)
    assert math.isnan(found.agreement.high)


def test_an_empty_slice_is_all_undefined() -> None:
    found = audit([], [])
    assert (found.num_rows, found.num_videos, found.rows.yes_yes) == (0, 0, 0)
    for name in ESTIMATES:
        estimate = getattr(found, name)
        assert [math.isnan(part) for part in (estimate.value, estimate.low, estimate.high)] == (
            [True] * 3
        )
    design = sample_design([])
    assert math.isnan(human_ceiling(np.zeros((3, 0)), design).alpha.value)
    assert math.isnan(share([], design).value)
    compared = compare_judges([], [], [], design)
    assert math.isnan(compared.difference.value)
    assert (compared.exact_p, compared.clustered_p) == (1, 1)
    assert math.isnan(share(np.array([NAN]), sample_design([0])).value)


def test_missing_labels_are_counted_apart_and_leave_the_other_rows_as_they_are() -> None:
    found = audit([1, 0, NAN, 1, NAN, 0], [1, 0, 1, NAN, NAN, 1])
    assert (found.num_rows, found.num_unscored, found.num_unlabelled) == (3, 2, 2)
    assert found.agreement.value == pytest.approx(2 / 3)
    whole = audit([1, 0, 0], [1, 0, 1])
    assert values(found, "kappa", "ac1", "alpha") == values(whole, "kappa", "ac1", "alpha")


def test_rows_with_one_label_count_for_ac1_only() -> None:
    pairs = [[1, 1, 0, 0, 1], [1, 0, 0, 0, 1]]
    more = [[*pairs[0], 1, NAN, 1], [*pairs[1], NAN, NAN, NAN]]
    few = human_ceiling(pairs, sample_design(range(5)), resamples=50)
    many = human_ceiling(more, sample_design(range(8)), resamples=50)
    assert (few.num_rows, many.num_rows, many.num_annotators) == (5, 5, 2)
    assert many.agreement.value == few.agreement.value == pytest.approx(0.8)
    assert many.alpha.value == pytest.approx(few.alpha.value, abs=1e-12)
    # pi = (1 + .5 + 0 + 0 + 1 + 1 + 1) / 7 = 9 / 14, pe = 2 * 9 / 14 * 5 / 14
    chance = 2 * (9 / 14) * (5 / 14)
    assert many.ac1.value == pytest.approx((0.8 - chance) / (1 - chance), abs=1e-12)


def test_majority_of_annotators_is_missing_for_ties_and_for_no_label() -> None:
    labels = [[1, 1, 0, NAN, NAN], [1, 0, 0, 1, NAN], [0, NAN, 0, NAN, NAN]]
    assert np.array_equal(majority(labels), [1, NAN, 0, 1, NAN], equal_nan=True)


def test_labels_that_are_no_labels_are_refused_with_their_row() -> None:
    with pytest.raises(ValueError, match=r"human label of row 2 is 2\.0: expected 1"):
        audit([1, 0, 1], [1, 0, 2])
    with pytest.raises(ValueError, match=r"judge labels have shape \(2,\), but the design has 3"):
        agreement([1, 0], [1, 0, 1], sample_design("abc"))
    with pytest.raises(ValueError, match=r"annotator label of row 0 is -1"):
        human_ceiling([[-1, 0]], sample_design("ab"))
    with pytest.raises(ValueError, match=r"at least 1, got 0\.5"):
        sample_design("ab", weights=[0.5, 2])
    with pytest.raises(ValueError, match="1 strata for 2 rows"):
        sample_design("ab", strata=["x"])


def test_sensitivity_and_specificity_are_shares_of_what_people_say() -> None:
    """Of three insufficient rows the judge rejects one, of two sufficient ones it keeps one."""
    found = audit([1, 1, 1, 0, 0] * 8, [1, 0, 0, 0, 1] * 8)
    assert values(found, "recall", "specificity") == (0.5, round(1 / 3, 12))
