"""How much of the data is really sufficient: the judge's share of Yes, corrected for its errors.

The judge has spoken on every row, humans on a few. The naive answer is the judge's share of Yes;
it is off by as much as false Yes and false No do not cancel. Two corrections:

* Rogan and Gladen (American Journal of Epidemiology 107, 1978): p = (q + sp - 1) / (se + sp - 1)
  with the judge's share of Yes q, sensitivity se (its recall) and specificity sp. The only one that
  can be carried to other data on which nobody labelled anything, if se and sp are the same there.
* Prediction-powered inference (Angelopoulos et al., Science 382, 2023; with the tuning of
  arXiv:2311.01453): p = lam q + mean(human - lam judge) over the labelled rows. Needs no
  assumption on the errors, but labels from the very population.

On a sample stratified by verdict with weights both are the weighted mean of the labels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from judges.statistics.agreement import CellDraws, binary_labels, draw_cells
from judges.statistics.cluster_bootstrap import (
    LEVEL,
    RESAMPLES,
    Estimate,
    Floats,
    SampleDesign,
    estimate_from,
)
from judges.statistics.coefficients import ratio


@dataclass(frozen=True)
class Prevalence:
    """Share of rows that are sufficient: what the judge says, and both corrections.

    `tuning` is lam, the weight of the judge's word in `prediction_powered`: 0 ignores it.
    """

    naive: float
    rogan_gladen: Estimate
    prediction_powered: Estimate
    tuning: float


@dataclass(frozen=True)
class PredictionPowered:
    """Mean of labels helped by predictions, with the normal interval of the original paper."""

    mean: Estimate
    tuning: float


def corrected_prevalence(
    judge: ArrayLike,
    human: ArrayLike,
    design: SampleDesign,
    *,
    judged_yes: float,
    num_judged: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Prevalence:
    """Prevalence in the population that the labelled rows were drawn from.

    `judged_yes` is the judge's share of Yes in the whole population of `num_judged` rows. Intervals
    come from the bootstrap by video. The Rogan-Gladen value is kept inside [0, 1]; it is NaN if
    se + sp = 1, where the judge's word says nothing.
    """
    _check_share(judged_yes, num_judged)
    judged, said = binary_labels(judge, design, "judge"), binary_labels(human, design, "human")
    cells = draw_cells(judged, said, design, resamples=resamples, seed=seed)
    has_both = ~(np.isnan(judged) | np.isnan(said))
    tuning = prediction_powered_mean(
        said[has_both],
        judged[has_both],
        judged_yes,
        num_judged,
        weights=design.weights[has_both],
        level=level,
    ).tuning
    return Prevalence(
        naive=judged_yes,
        rogan_gladen=estimate_from(
            float(_rogan_gladen_of(cells.estimate, judged_yes)),
            _rogan_gladen_of(cells.draws, judged_yes),
            level=level,
        ),
        prediction_powered=estimate_from(
            float(_rectified(cells.estimate, judged_yes, tuning)),
            _rectified(cells.draws, judged_yes, tuning),
            level=level,
        ),
        tuning=tuning,
    )


def transported_prevalence(
    judge: ArrayLike,
    human: ArrayLike,
    design: SampleDesign,
    *,
    judged_yes: float,
    num_judged: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Rogan-Gladen prevalence in other data, from the sensitivity and specificity of this audit.

    `judged_yes` is the judge's share of Yes among `num_judged` rows of the other data, whose own
    sampling error is drawn from its Jeffreys posterior. Rests on the judge erring there as here.
    """
    _check_share(judged_yes, num_judged)
    judged, said = binary_labels(judge, design, "judge"), binary_labels(human, design, "human")
    cells: CellDraws = draw_cells(judged, said, design, resamples=resamples, seed=seed)
    yes = judged_yes * num_judged
    generator = np.random.default_rng([seed, 1])
    shares = generator.beta(yes + 0.5, num_judged - yes + 0.5, len(cells.draws))
    value = float(_rogan_gladen_of(cells.estimate, judged_yes))
    return estimate_from(value, _rogan_gladen_of(cells.draws, shares), level=level)


def rogan_gladen(
    judged_yes: float | Floats, sensitivity: float | Floats, specificity: float | Floats
) -> Floats:
    """p = (q + sp - 1) / (se + sp - 1), kept inside [0, 1]; NaN if se + sp = 1.

    Rogan and Gladen (1978), equation 1. A judge with se + sp < 1 is worse than chance; the formula
    then still holds, because its word is turned round.
    """
    above_chance = np.asarray(sensitivity + specificity - 1, dtype=np.float64)
    corrected = np.asarray(judged_yes + specificity - 1, dtype=np.float64)
    clipped: Floats = np.clip(ratio(corrected, above_chance), 0, 1)
    return clipped


def prediction_powered_mean(
    labels: ArrayLike,
    predictions: ArrayLike,
    predicted_yes: float,
    num_predicted: int,
    *,
    weights: ArrayLike | None = None,
    tuning: float | None = None,
    level: float = LEVEL,
) -> PredictionPowered:
    """PPI mean of binary labels with the paper's normal interval for independent rows.

    value = lam q + mean(w (y - lam f)), variance = lam^2 q (1 - q) / N + var(w (y - lam f)) / n,
    with weights of mean 1; lam = cov(w y, w f) / ((1 + n / N) var(f)), kept inside [0, 1]:
    PPI++ (arXiv:2311.01453) section 6, as computed by `ppi_py.ppi_mean_ci`. Rows of one video and
    rare errors make this interval too short; `corrected_prevalence` has the same value and an
    interval that knows both.
    """
    truth, guess = np.asarray(labels, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    if truth.shape != guess.shape or truth.ndim != 1:
        raise ValueError(
            f"labels {truth.shape} and predictions {guess.shape}: expected one of each per row"
        )
    _check_share(predicted_yes, num_predicted)
    count = len(truth)
    if count == 0:
        nothing = float("nan")
        return PredictionPowered(Estimate(nothing, nothing, nothing), nothing)
    weight = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    weight = weight / weight.mean()
    if tuning is None:
        tuning = _best_tuning(truth, guess, weight, predicted_yes, num_predicted)
    rectifiers = weight * (truth - tuning * guess)
    value = float(tuning * predicted_yes + rectifiers.mean())
    imputed_variance = tuning**2 * predicted_yes * (1 - predicted_yes) / num_predicted
    standard_error = float(np.sqrt(imputed_variance + rectifiers.var() / count))
    reach = float(stats.norm.ppf((1 + level) / 2)) * standard_error
    return PredictionPowered(Estimate(value, value - reach, value + reach), tuning)


def _best_tuning(
    truth: Floats, guess: Floats, weight: Floats, predicted_yes: float, num_predicted: int
) -> float:
    """Lam with the least variance; 0 if the predictions do not vary."""
    count = len(truth)
    untuned = predicted_yes + (weight * (truth - guess)).mean()
    of_truth, of_guess = weight * (truth - untuned), weight * (guess - untuned)
    covariance = (of_truth * of_guess).mean() - of_truth.mean() * of_guess.mean()
    # Variance over labelled and unlabelled predictions together; the latter are known by count.
    values_summed = of_guess.sum() + num_predicted * (predicted_yes - untuned)
    squares_summed = (of_guess**2).sum() + num_predicted * (
        predicted_yes * (1 - untuned) ** 2 + (1 - predicted_yes) * untuned**2
    )
    total = count + num_predicted
    variance = (squares_summed - values_summed**2 / total) / (total - 1)
    tuning = ratio(np.asarray(covariance), np.asarray((1 + count / num_predicted) * variance))
    return float(np.clip(np.nan_to_num(tuning, nan=0.0), 0, 1))


def _rogan_gladen_of(cells: Floats, judged_yes: float | Floats) -> Floats:
    yes_yes, yes_no, no_yes, no_no = np.moveaxis(cells, -1, 0)
    return rogan_gladen(judged_yes, ratio(yes_yes, yes_yes + no_yes), ratio(no_no, no_no + yes_no))


def _rectified(cells: Floats, judged_yes: float, tuning: float) -> Floats:
    """PPI from weighted cells: lam q + P(human yes) - lam P(judge yes)."""
    shares = ratio(cells, cells.sum(axis=-1)[..., None])
    yes_yes, yes_no, no_yes, _ = np.moveaxis(shares, -1, 0)
    rectified: Floats = tuning * judged_yes + yes_yes + no_yes - tuning * (yes_yes + yes_no)
    return rectified


def _check_share(judged_yes: float, num_judged: int) -> None:
    if not 0 <= judged_yes <= 1 or num_judged < 1:
        raise ValueError(
            f"the judge said Yes to a share of {judged_yes} of {num_judged} rows: expected a share"
            " from 0 to 1 of at least one row"
        )
