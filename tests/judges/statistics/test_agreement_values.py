"""Coefficients against values recorded from irrCAC, krippendorff, sklearn and statsmodels.

`tests/reference/independent_agreement.py` made them, on published examples and degenerate ones.
Seen to fail for: pe of kappa from the mean share, AC1 without rows of a single rating, alpha
without n - 1, precision and recall exchanged.
"""

import json
from typing import Any

import krippendorff
import numpy as np
import pytest
from helpers.folders import REFERENCE
from statsmodels.stats.inter_rater import cohens_kappa

from judges.statistics.agreement import agreement, human_ceiling
from judges.statistics.cluster_bootstrap import sample_design, share
from judges.statistics.coefficients import (
    cell_statistics,
    confusion_features,
    gwet_ac1,
    krippendorff_alpha,
    num_paired_values,
    pair_agreement,
    rating_features,
)
from judges.statistics.paired_comparison import mcnemar_clustered, mcnemar_exact

RECORDED = json.loads((REFERENCE / "agreement_values.json").read_text("utf-8"))
NAMES = sorted(RECORDED["ratings"])
TWO_BINARY = [
    name
    for name in NAMES
    if len(RECORDED["ratings"][name]["labels"]) == 2
    and RECORDED["ratings"][name]["categories"] == [0, 1]
]


def as_array(labels: list[list[float | None]]) -> Any:
    return np.array(labels, dtype=float)


def ours(categories: list[float], labels: Any) -> dict[str, float]:
    totals = rating_features(labels, tuple(categories)).sum(axis=0)
    return {
        "agreement": float(pair_agreement(totals)),
        "ac1": float(gwet_ac1(totals)),
        "alpha": float(krippendorff_alpha(totals, num_paired_values(labels))),
    }


@pytest.mark.parametrize("name", NAMES)
def test_coefficients_of_any_number_of_raters_equal_irrcac(name: str) -> None:
    case = RECORDED["ratings"][name]
    found = ours(case["categories"], as_array(case["labels"]))
    for coefficient, value in found.items():
        assert value == pytest.approx(case["values"][coefficient], rel=0, abs=1e-9), coefficient
        if coefficient in case["printed"]:  # to the digits of the publication
            assert value == pytest.approx(case["printed"][coefficient], rel=0, abs=5e-4)


@pytest.mark.parametrize("name", TWO_BINARY)
def test_two_raters_coefficients_equal_sklearn_and_irrcac(name: str) -> None:
    case = RECORDED["ratings"][name]
    judge, human = as_array(case["labels"])
    cells = confusion_features(judge, human).sum(axis=0)
    found = cell_statistics(cells, len(judge))
    assert {"agreement", "ac1", "alpha", "kappa"} <= case["values"].keys()
    for coefficient, value in case["values"].items():
        assert found[coefficient] == pytest.approx(value, rel=0, abs=1e-9, nan_ok=True), coefficient
    for coefficient, value in case["printed"].items():
        assert found[coefficient] == pytest.approx(value, rel=0, abs=5e-3), coefficient


def test_there_are_published_and_degenerate_examples() -> None:
    printed = [name for name in NAMES if RECORDED["ratings"][name]["printed"]]
    assert len(printed) >= 6
    assert {"one_always_yes", "two_rows", "perfect", "inverse", "missing_binary"} <= set(NAMES)


def test_weights_count_rows_as_sklearn_and_repeated_rows_do() -> None:
    case = RECORDED["weighted"]
    design = sample_design(range(40), weights=case["weights"])
    found = agreement(case["judge"], case["human"], design, resamples=10)
    for coefficient, value in case["values"].items():
        estimate = getattr(found, coefficient).value
        assert estimate == pytest.approx(value, rel=0, abs=1e-9), coefficient
    # Alpha's small-sample factor counts rows looked at; with all repeated rows it is irrCAC's.
    features = rating_features(as_array([case["judge"], case["human"]]))
    totals = (features * np.array(case["weights"])[:, None]).sum(axis=0)
    repeated = krippendorff_alpha(totals, 2 * sum(case["weights"]))
    assert repeated == pytest.approx(case["alpha_of_repeated_rows"], rel=0, abs=1e-9)


def test_judge_and_human_tables_agree_with_the_libraries_on_random_labels() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        human = (generator.random(30) < 0.7).astype(float)
        judge = np.where(generator.random(30) < 0.3, 1 - human, human)
        found = agreement(judge, human, sample_design(range(30)), resamples=10)
        table = np.array([[found.rows.yes_yes, found.rows.yes_no],
                          [found.rows.no_yes, found.rows.no_no]])  # fmt: skip
        assert found.kappa.value == pytest.approx(cohens_kappa(table).kappa, abs=1e-12)
        of_library = krippendorff.alpha(
            reliability_data=[judge, human], level_of_measurement="nominal"
        )
        assert found.alpha.value == pytest.approx(of_library, abs=1e-12)
        both = human_ceiling(np.stack([judge, human]), sample_design(range(30)), resamples=10)
        for name in ("agreement", "ac1", "alpha"):
            assert getattr(both, name).value == pytest.approx(getattr(found, name).value, abs=1e-12)


@pytest.mark.parametrize("case", RECORDED["mcnemar"], ids=str)
def test_mcnemar_equals_statsmodels(case: dict[str, Any]) -> None:
    only_first, only_second = case["only_first"], case["only_second"]
    assert mcnemar_exact(only_first, only_second) == pytest.approx(case["exact_p"], abs=1e-12)
    if case["chi2_p"] is not None:
        one_row_each = np.repeat([1.0, -1.0, 0.0], [only_first, only_second, 20])
        assert mcnemar_clustered(one_row_each) == pytest.approx(case["chi2_p"], abs=1e-12)


def test_clustered_mcnemar_by_hand() -> None:
    """Videos with b - c of 2, 2, -1 and 0: (2 + 2 - 1)^2 / (4 + 4 + 1) = 1, p = P(|Z| > 1)."""
    assert mcnemar_clustered([2, 2, -1, 0]) == pytest.approx(0.31731050786291415, abs=1e-12)


@pytest.mark.parametrize("case", RECORDED["wilson"], ids=str)
def test_a_share_of_single_rows_is_near_statsmodels_and_newcombe(case: dict[str, Any]) -> None:
    """Jeffreys' interval but for the bootstrap's widening for few videos; near Wilson's."""
    successes, trials = case["successes"], case["trials"]
    hits = np.repeat([1.0, 0.0], [successes, trials - successes])
    found = share(hits, sample_design(range(trials)), resamples=20_000)
    assert found.value == successes / trials
    if trials == 1:
        assert np.isnan([found.low, found.high]).all()
        return
    bounds = (found.low, found.high)
    assert bounds == pytest.approx(tuple(case["jeffreys"]), abs=0.5 / trials)
    assert bounds == pytest.approx((case["low"], case["high"]), abs=1 / trials)
    if case["printed"]:
        assert bounds == pytest.approx(tuple(case["printed"]), abs=1 / trials)
