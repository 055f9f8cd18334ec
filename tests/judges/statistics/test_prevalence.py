"""Corrected prevalence: Rogan-Gladen and prediction-powered means, against references and truth.

Seen to fail for: sensitivity and specificity exchanged, the rectifier's sign turned, weights left
out, tuning not kept inside [0, 1].
"""

import json
import math
from typing import Any

import numpy as np
import pytest
from helpers.folders import REFERENCE

from judges.statistics.cluster_bootstrap import sample_design
from judges.statistics.prevalence import (
    corrected_prevalence,
    prediction_powered_mean,
    rogan_gladen,
    transported_prevalence,
)

RECORDED = json.loads((REFERENCE / "agreement_values.json").read_text("utf-8"))


@pytest.mark.parametrize("case", RECORDED["prediction_powered"], ids=lambda case: case["name"])
def test_prediction_powered_mean_and_interval_equal_ppi_py(case: dict[str, Any]) -> None:
    found = prediction_powered_mean(
        case["labels"],
        case["predictions"],
        case["num_predicted_yes"] / case["num_predicted"],
        case["num_predicted"],
        weights=case["weights"],
        tuning=case["tuning"],
    )
    assert found.mean.value == pytest.approx(case["value"], rel=0, abs=1e-9)
    assert found.mean.low == pytest.approx(case["low"], rel=0, abs=1e-9)
    assert found.mean.high == pytest.approx(case["high"], rel=0, abs=1e-9)


def test_tuning_is_zero_for_predictions_that_do_not_vary() -> None:
    found = prediction_powered_mean([1, 0, 1, 1], [1, 1, 1, 1], 1.0, 50)
    assert found.tuning == 0
    assert found.mean.value == 0.75
    against = prediction_powered_mean([1, 0, 1, 0], [0, 1, 0, 1], 0.4, 50)
    assert against.tuning == 0  # would be negative
    assert against.mean.value == 0.5


def test_rogan_gladen_by_hand() -> None:
    """Of 1000 rows 600 sufficient; se 0.9 and sp 0.8: 540 + 80 said Yes, and back again."""
    assert rogan_gladen(0.62, 0.9, 0.8) == pytest.approx(0.6, abs=1e-12)
    # Worse than chance: 60 + 360 said Yes of 600 and 400 with se 0.1 and sp 0.1.
    assert rogan_gladen(0.42, 0.1, 0.1) == pytest.approx(0.6, abs=1e-12)
    assert rogan_gladen(0.05, 0.9, 0.8) == 0  # less Yes than false Yes alone would give
    assert rogan_gladen(0.95, 0.9, 0.8) == 1
    assert math.isnan(rogan_gladen(0.5, 0.7, 0.3))


def test_corrections_recover_the_share_that_the_judge_misses() -> None:
    """2,000 rows, 1,200 judged Yes. Of 100 labelled Yes 15 are wrong, of 100 labelled No 30 are."""
    judge = np.repeat([1.0, 0.0], 100)
    human = np.concatenate([np.repeat([0.0, 1.0], [15, 85]), np.repeat([1.0, 0.0], [30, 70])])
    weights = np.repeat([12.0, 8.0], 100)
    truth = 0.6 * 0.85 + 0.4 * 0.3
    for strata in (judge, None):
        design = sample_design(np.arange(200), weights=weights, strata=strata)
        found = corrected_prevalence(judge, human, design, judged_yes=0.6, num_judged=2000)
        assert found.naive == 0.6
        for estimate in (found.rogan_gladen, found.prediction_powered):
            assert estimate.value == pytest.approx(truth, abs=1e-12)
            assert 0.03 < truth - estimate.low < 0.12
            assert 0.03 < estimate.high - truth < 0.12
    assert 0 < found.tuning < 1


def test_a_plain_sample_is_corrected_by_what_the_judge_says_elsewhere() -> None:
    """By hand: se 3 / 3, sp 3 / 5, (0.7 - 0.4) / 0.6; with lam = 1, 0.7 + mean(human - judge)."""
    judge = np.array([1, 1, 1, 1, 1, 0, 0, 0.0])
    human = np.array([1, 1, 1, 0, 0, 0, 0, 0.0])
    design = sample_design(np.arange(8))
    found = corrected_prevalence(judge, human, design, judged_yes=0.7, num_judged=10**6)
    assert found.rogan_gladen.value == pytest.approx(0.5)
    shift = found.tuning * (0.7 - 5 / 8)
    assert found.prediction_powered.value == pytest.approx(3 / 8 + shift)
    plain = prediction_powered_mean(human, judge, 0.7, 10**6, tuning=1.0)
    assert plain.mean.value == pytest.approx(0.45)


def test_a_judge_at_chance_level_cannot_be_corrected_by_rogan_gladen() -> None:
    judge, human = [1, 0, 1, 0], [1, 1, 0, 0]
    found = corrected_prevalence(judge, human, sample_design("abcd"), judged_yes=0.5, num_judged=9)
    assert math.isnan(found.rogan_gladen.value)
    assert found.prediction_powered.value == pytest.approx(0.5)
    nothing = corrected_prevalence([], [], sample_design([]), judged_yes=0.5, num_judged=9)
    assert math.isnan(nothing.rogan_gladen.value)
    assert math.isnan(nothing.prediction_powered.value)


def test_transport_uses_the_other_datas_share_and_its_noise() -> None:
    judge = np.repeat([1.0, 0.0], 100)
    human = np.where(np.arange(200) % 10 == 0, 1 - judge, judge)
    design = sample_design(np.arange(200))
    many = transported_prevalence(judge, human, design, judged_yes=0.34, num_judged=10**6)
    few = transported_prevalence(judge, human, design, judged_yes=0.34, num_judged=50)
    assert many.value == few.value == pytest.approx((0.34 + 0.9 - 1) / 0.8)
    assert few.width > 2 * many.width
    assert many.low < 0.3 < many.high


def test_corrections_are_unbiased_where_the_naive_share_is_not() -> None:
    """300 audits, 20 % false Yes, 5 % false No: naive 0.7625 for a truth of 0.75.

    Labels by a simple sample of 150: the mean of 300 has a standard error of about 0.0016.
    """
    generator = np.random.default_rng(12)
    errors = []
    for _ in range(300):
        truth = (generator.random(3000) < 0.75).astype(float)
        wrong = generator.random(3000) < np.where(truth == 1, 0.05, 0.2)
        verdicts = np.where(wrong, 1 - truth, truth)
        rows = generator.choice(3000, 150, replace=False)
        design = sample_design(rows, weights=np.full(150, 20.0))
        found = corrected_prevalence(
            verdicts[rows],
            truth[rows],
            design,
            judged_yes=float(verdicts.mean()),
            num_judged=3000,
            resamples=20,
        )
        estimates = [found.naive, found.rogan_gladen.value, found.prediction_powered.value]
        errors.append(np.array(estimates) - truth.mean())
    mean, noise = np.mean(errors, axis=0), np.std(errors, axis=0) / math.sqrt(300)
    assert mean[0] == pytest.approx(0.0125, abs=4 * noise[0])
    assert noise[1] < 0.003
    assert abs(mean[1]) < 3 * noise[1]
    assert abs(mean[2]) < 3 * noise[2]


def test_impossible_shares_and_shapes_are_refused() -> None:
    design = sample_design("ab")
    with pytest.raises(ValueError, match=r"share of 1\.2 of 10 rows: expected a share"):
        corrected_prevalence([1, 0], [1, 0], design, judged_yes=1.2, num_judged=10)
    with pytest.raises(ValueError, match=r"labels \(2,\) and predictions \(3,\)"):
        prediction_powered_mean([1, 0], [1, 0, 1], 0.5, 10)
