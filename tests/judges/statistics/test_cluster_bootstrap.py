"""Intervals by video: against closed forms, in simulation, and what each of their parts is for."""

import time

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from judges.statistics.agreement import agreement, draw_cells, human_ceiling
from judges.statistics.cluster_bootstrap import Estimate, estimate_from, sample_design, share
from judges.statistics.paired_comparison import compare_judges

pytestmark = pytest.mark.heavy


def test_single_rows_of_many_videos_give_the_jeffreys_interval() -> None:
    """Beta(x + 1/2, n - x + 1/2) quantiles; 2 % for the t factor, 2 % for 20,000 draws' noise."""
    hits = np.repeat([1.0, 0.0], [7, 193])
    found = share(hits, sample_design(range(200)), resamples=20_000)
    low, high = stats.beta.ppf([0.025, 0.975], 7.5, 193.5)
    assert found.value == pytest.approx(0.035)
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.04)


def test_an_error_that_was_not_seen_is_still_possible() -> None:
    """No error among 100: the interval starts at 0 and ends near Jeffreys' 0.0247, not at 0."""
    found = share(np.zeros(100), sample_design(range(100)), resamples=20_000)
    assert found.value == found.low == 0
    assert found.high == pytest.approx(stats.beta.ppf(0.975, 0.5, 100.5), rel=0.05)


def test_the_spread_is_that_of_a_cluster_robust_regression() -> None:
    """Weighted mean of labels in 80 videos of 5 like-minded rows; statsmodels' sandwich error."""
    generator = np.random.default_rng(4)
    videos = np.repeat(np.arange(80), 5)
    hits = (generator.random(80)[videos] * 0.7 + generator.random(400) * 0.3 < 0.5).astype(float)
    weights = generator.uniform(50, 150, 400)
    design = sample_design(videos, weights=weights)
    found = share(hits, design, resamples=20_000)
    fitted = sm.WLS(hits, np.ones(400), weights=weights).fit(
        cov_type="cluster", cov_kwds={"groups": videos}
    )
    reach = stats.t.ppf(0.975, 79) * fitted.bse[0]
    assert found.width == pytest.approx(2 * reach, rel=0.04)
    independent = share(hits, sample_design(range(400), weights=weights), resamples=5000)
    assert found.width > 1.5 * independent.width


def test_weights_scale_nothing_but_the_finite_population() -> None:
    labels = np.array([1, 1, 1, 0] * 25, dtype=float)
    judge = np.array([1, 1, 0, 0] * 25, dtype=float)
    endless = agreement(judge, labels, sample_design(range(100)))
    large = agreement(judge, labels, sample_design(range(100), weights=[1e9] * 100))
    assert large.kappa.low == pytest.approx(endless.kappa.low, abs=1e-6)
    assert large.kappa.value == pytest.approx(endless.kappa.value, abs=1e-12)
    # Half of all rows labelled: variance halves, sqrt(1/2) = 0.71.
    half = agreement(judge, labels, sample_design(range(100), weights=[2.0] * 100))
    assert half.agreement.width == pytest.approx(0.71 * endless.agreement.width, rel=0.05)
    everything = agreement(judge, labels, sample_design(range(100), weights=[1.0] * 100))
    assert everything.kappa.width == pytest.approx(0, abs=1e-9)


def test_known_strata_leave_no_doubt_about_the_judges_share_of_yes() -> None:
    judge = np.repeat([1.0, 0.0], 50)
    human = np.where(np.arange(100) % 10 == 0, 1 - judge, judge)
    weights = np.where(judge == 1, 80.0, 20.0)
    known = agreement(judge, human, sample_design(range(100), weights=weights, strata=judge))
    unknown = agreement(judge, human, sample_design(range(100), weights=weights))
    assert known.judged_yes.value == pytest.approx(0.8)
    assert known.judged_yes.width == pytest.approx(0, abs=1e-9)
    assert unknown.judged_yes.width > 0.05
    assert known.prevalence.value == pytest.approx(0.8 * 0.9 + 0.2 * 0.1)
    assert known.prevalence.width < unknown.prevalence.width


def test_missing_labels_are_made_up_for_inside_their_stratum() -> None:
    """Stratum a has 30 of 40 labels missing; its weight of 400 rows stays with the ten left."""
    strata = ["a"] * 40 + ["b"] * 20
    human = np.r_[np.ones(10), np.full(30, np.nan), np.zeros(20)]
    design = sample_design(range(60), weights=[10.0] * 60, strata=strata)
    found = agreement(np.ones(60), human, design)
    assert found.prevalence.value == pytest.approx(400 / 600)
    cells = draw_cells(np.ones(60), human, design)
    assert cells.estimate.tolist() == pytest.approx([400, 200, 0, 0])
    assert cells.draws.sum(axis=1) == pytest.approx(np.full(2000, 600.0))


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly() -> None:
    judge, human = np.array([1, 0, 1, 1, 0] * 20), np.array([1, 0, 1, 0, 0] * 20)
    design = sample_design(np.arange(100) // 2)
    first, again = (agreement(judge, human, design, seed=5) for _ in range(2))
    assert first == again
    other = agreement(judge, human, design, seed=6)
    assert other.kappa.low != first.kappa.low
    assert other.kappa.low == pytest.approx(first.kappa.low, abs=0.03)


def test_intervals_cover_in_simulated_audits() -> None:
    """400 audits of 150 rows in 75 videos; percents covered are known to 1.1, so 92 to 98 or so.

    Without the half prior rows precision is covered in 86 %.
    """
    generator = np.random.default_rng(8)
    videos = np.repeat(np.arange(75), 2)
    # 4 % of the judge's Yes are wrong and 10 % of its No; with 0.3 a video's rows share their luck.
    true = {"precision": 0.96, "agreement": 0.6 * 0.96 + 0.4 * 0.9, "prevalence": 0.576 + 0.04}
    covered = dict.fromkeys(true, 0)
    for _ in range(400):
        together = generator.random(75) < 0.3
        luck = np.where(together[videos], generator.random(75)[videos], generator.random(150))
        judge = (np.arange(75) < 45).astype(float)[videos]
        human = np.where(luck < np.where(judge == 1, 0.04, 0.1), 1 - judge, judge)
        found = agreement(judge, human, sample_design(videos, strata=judge), resamples=400)
        for name, value in true.items():
            estimate = getattr(found, name)
            covered[name] += estimate.low <= value <= estimate.high
    assert all(0.92 <= count / 400 <= 0.985 for count in covered.values()), covered


def test_a_draw_of_two_thousand_takes_well_under_a_second() -> None:
    generator = np.random.default_rng(9)
    human = (generator.random(200) < 0.7).astype(float)
    judge = np.where(generator.random(200) < 0.1, 1 - human, human)
    design = sample_design(
        generator.integers(0, 120, 200), weights=np.full(200, 20.0), strata=judge
    )
    started = time.process_time()
    agreement(judge, human, design, resamples=2000)
    assert time.process_time() - started < 0.5


def test_an_interval_contains_its_value_and_ignores_undefined_draws() -> None:
    draws = np.array([0.2, 0.3, np.nan, 0.4, np.nan])
    assert estimate_from(0.1, draws, level=0.5) == Estimate(0.1, 0.1, 0.35)
    assert estimate_from(0.9, draws, level=0.5) == Estimate(0.9, 0.25, 0.9)


def test_annotators_ceiling_has_intervals_by_video() -> None:
    generator = np.random.default_rng(10)
    videos = np.repeat(np.arange(40), 5)
    truth = (generator.random(40) < 0.6)[videos]
    wrong = (generator.random((3, 40)) < 0.15)[:, videos]
    labels = np.where(wrong, ~truth, truth).astype(float)
    by_video = human_ceiling(labels, sample_design(videos))
    by_row = human_ceiling(labels, sample_design(range(200)))
    assert by_video.alpha.value == by_row.alpha.value
    assert by_video.alpha.width > 1.8 * by_row.alpha.width  # whole videos repeat: sqrt(5) = 2.2
    assert by_video.alpha.low < by_video.alpha.value < by_video.alpha.high


def test_two_judges_differ_by_the_weighted_difference_of_their_agreement() -> None:
    human = np.ones(120)
    first = (np.arange(120) % 10 != 0).astype(float)  # right in 90 %
    second = (np.arange(120) % 4 != 0).astype(float)  # right in 75 %
    found = compare_judges(first, second, human, sample_design(range(120)))
    # Wrong: first on multiples of 10, second on multiples of 4; both on the 6 multiples of 20.
    assert (found.both_right, found.only_first_right) == (84, 24)
    assert (found.only_second_right, found.neither_right) == (6, 6)
    assert found.difference.value == pytest.approx(0.15)
    assert 0.05 < found.difference.low < 0.15 < found.difference.high < 0.25
    assert found.exact_p == pytest.approx(stats.binomtest(24, 30).pvalue)
    assert found.clustered_p == pytest.approx(stats.chi2.sf(18**2 / 30, 1))
    in_pairs = compare_judges(first, second, human, sample_design(np.arange(120) // 20))
    assert in_pairs.num_videos == 6
    assert in_pairs.clustered_p != pytest.approx(found.clustered_p)
    missing = compare_judges(first, np.full(120, np.nan), human, sample_design(range(120)))
    assert missing.num_rows == 0


def test_a_share_in_a_part_is_weighted_as_the_whole_is() -> None:
    """Sensitivity: a judge's yes among what people call yes, in a sample that took 1 of 10 of its
    yes and all of its no. 40 of its 50 yes are true and 5 of its 50 no: 400 / 405, as the ratio of
    the confusion cells has it, not the 40 / 45 of rows, and not with strata scaled up again.
    """
    said = np.repeat([1.0, 0.0], 50)
    truth = np.tile([1.0] * 4 + [0.0], 20)
    truth[50:] = np.tile([1.0] + [0.0] * 9, 5)
    design = sample_design(list(range(100)), weights=[10.0] * 50 + [1.0] * 50, strata=said.tolist())
    found = share(said, design, among=truth == 1)
    assert found.value == pytest.approx(400 / 405)
    recall = agreement(said, truth, design).recall
    assert found.value == pytest.approx(recall.value)
    # It does not know that no row of the yes can be a miss: wider, on the safe side.
    assert found.low <= recall.low
    assert found.high >= recall.high - 0.01


def test_two_judges_are_compared_on_a_part_of_the_rows() -> None:
    """Of four rows that people call yes the first finds three, the second one; of the others both
    are right in one of two. Weights count inside of a part as outside.
    """
    truth = np.array([1.0, 1, 1, 1, 0, 0])
    first = np.array([1.0, 1, 1, 0, 0, 1])
    second = np.array([1.0, 0, 0, 0, 0, 1])
    design = sample_design(list("abcdef"), weights=[1.0, 3, 1, 1, 1, 1])
    on_yes = compare_judges(first, second, truth, design, among=truth == 1)
    assert (on_yes.num_rows, on_yes.num_videos) == (4, 4)
    assert (on_yes.both_right, on_yes.only_first_right, on_yes.only_second_right) == (1, 2, 0)
    assert on_yes.neither_right == 1
    assert on_yes.difference.value == pytest.approx(4 / 6)
    on_no = compare_judges(first, second, truth, design, among=truth == 0)
    assert (on_no.num_rows, on_no.both_right, on_no.difference.value) == (2, 1, 0)
    nowhere = compare_judges(first, second, truth, design, among=truth == 2)
    assert nowhere.num_rows == 0
    assert np.isnan(nowhere.difference.value)
