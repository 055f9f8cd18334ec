"""How many labels: against a closed form, against audits of that size, and the design effect."""

import numpy as np
import pytest
from scipy import stats

from judges.statistics.agreement import agreement
from judges.statistics.cluster_bootstrap import sample_design
from judges.statistics.sample_size import JudgeGuess, design_effect, required_labels

pytestmark = pytest.mark.heavy


def test_labels_for_a_share_follow_from_the_jeffreys_interval() -> None:
    """All labels on accepted rows of which 30 % are insufficient: mean width over the binomial."""
    guess = JudgeGuess(0.7, 0.3, 0.1)
    num_labels = required_labels(guess, "kept_but_insufficient", 0.1, labels_for_yes=1.0)
    errors = np.arange(num_labels + 1)
    low, high = stats.beta.ppf([[0.025], [0.975]], errors + 0.5, num_labels - errors + 0.5)
    mean_width = (stats.binom.pmf(errors, num_labels, 0.3) * (high - low)).sum()
    assert (mean_width / 0.1) ** 2 == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("labels_for_yes", [0.5, None])
@pytest.mark.parametrize("statistic", ["prevalence", "kappa"])
def test_audits_with_the_planned_labels_have_the_planned_width(
    statistic: str, labels_for_yes: float | None
) -> None:
    """Width within 5 % is a number of labels within 10 %."""
    guess = JudgeGuess(0.7, 0.1, 0.2)
    num_labels = required_labels(guess, statistic, 0.16, labels_for_yes=labels_for_yes)
    generator = np.random.default_rng(13)
    widths = []
    for _ in range(60):
        share = 0.7 if labels_for_yes is None else labels_for_yes
        judge = np.zeros(num_labels)
        judge[: round(share * num_labels)] = 1
        if labels_for_yes is None:
            judge = (generator.random(num_labels) < share).astype(float)
        wrong = generator.random(num_labels) < np.where(judge == 1, 0.1, 0.2)
        human = np.where(wrong, 1 - judge, judge)
        weights = np.where(judge == 1, 0.7 / share, 0.3 / (1 - share)) * 1e6
        strata = None if labels_for_yes is None else judge
        design = sample_design(np.arange(num_labels), weights=weights, strata=strata)
        found = agreement(judge, human, design, resamples=500)
        widths.append(getattr(found, statistic).width)
    assert np.mean(widths) == pytest.approx(0.16, rel=0.05)


def test_half_the_width_takes_about_four_times_the_labels() -> None:
    guess = JudgeGuess(0.7, 0.1, 0.1)
    wide, narrow = (required_labels(guess, "agreement", width) for width in (0.1, 0.05))
    assert narrow / wide == pytest.approx(4, rel=0.08)
    doubled = required_labels(guess, "agreement", 0.1, design_effect=2.0)
    assert doubled / wide == pytest.approx(2, rel=0.02)


def test_rows_that_repeat_their_video_count_once() -> None:
    """Four equal rows in each of 60 videos: variance is four times that of 240 separate rows."""
    generator = np.random.default_rng(14)
    judge = (generator.random(60) < 0.6).astype(float)
    human = np.where(generator.random(60) < 0.25, 1 - judge, judge)
    videos = np.repeat(np.arange(60), 4)
    rows = np.repeat(np.stack([judge, human]), 4, axis=1)
    found = design_effect(*rows, sample_design(videos), "agreement")
    assert found == pytest.approx(4, rel=0.25)
    apart = design_effect(*rows, sample_design(np.arange(240)), "agreement")
    assert apart == pytest.approx(1, abs=0.01)


def test_unequal_weights_cost_labels() -> None:
    """Kish: n sum(w^2) / (sum w)^2 = 2 (1 + 81) / 100 = 1.64 for weights of 1 and 9 times 100."""
    generator = np.random.default_rng(15)
    judge = (generator.random(400) < 0.6).astype(float)
    human = np.where(generator.random(400) < 0.25, 1 - judge, judge)
    weights = np.tile([100.0, 900.0], 200)
    found = design_effect(judge, human, sample_design(range(400), weights=weights), "agreement")
    assert found == pytest.approx(1.64, rel=0.15)


def test_plans_that_make_no_sense_are_refused() -> None:
    guess = JudgeGuess(0.7, 0.1, 0.1)
    with pytest.raises(ValueError, match="no statistic is called 'accuracy': choose from agree"):
        required_labels(guess, "accuracy", 0.1)
    with pytest.raises(ValueError, match="width 0 and design effect"):
        required_labels(guess, "kappa", 0)
    with pytest.raises(ValueError, match="needs more than 1,000,000 labels"):
        required_labels(guess, "kappa", 1e-4)
    with pytest.raises(ValueError, match=r"judged_yes is a share from 0 to 1, got 70"):
        JudgeGuess(70, 0.1, 0.1)
