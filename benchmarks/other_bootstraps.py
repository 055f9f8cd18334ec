"""Percentile, BCa and studentised bootstraps over videos: what an audit's intervals compete with.

Textbook forms (Efron and Tibshirani, An Introduction to the Bootstrap, chapters 12 to 14), with
whole videos resampled and each resample scaled to the known totals of the strata.
"""

import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats

from judges.statistics.agreement import binary_labels
from judges.statistics.cluster_bootstrap import Floats, SampleDesign
from judges.statistics.coefficients import cell_statistics, confusion_features

STATISTICS = (
    "agreement",
    "precision",
    "recall",
    "kappa",
    "ac1",
    "prevalence",
    "rejected_but_sufficient",
)
TAILS = np.array([0.025, 0.975])

Bounds = dict[str, tuple[float, float]]


def intervals(
    judge: Floats, human: Floats, design: SampleDesign, resamples: int, seed: int
) -> dict[str, Bounds]:
    """The 95 % interval of each statistic by each method."""
    judged, said = binary_labels(judge, design, "judge"), binary_labels(human, design, "human")
    totals = _totals_by_video(confusion_features(judged, said), design)
    num_videos = len(totals)
    strata_totals = totals.sum(axis=0).reshape(-1, 4).sum(axis=1)

    def statistics(summed: Floats) -> Floats:
        """[..., strata * 4] -> [..., statistics]."""
        cells = summed.reshape(*summed.shape[:-1], -1, 4)
        with np.errstate(all="ignore"):
            cells = cells * (strata_totals / cells.sum(axis=-1))[..., None]
            named = cell_statistics(np.nan_to_num(cells).sum(axis=-2), len(judged))
        return np.stack([named[name] for name in STATISTICS], axis=-1)

    generator = np.random.default_rng(seed)
    counts = generator.multinomial(
        num_videos, np.full(num_videos, 1 / num_videos), resamples
    ).astype(float)
    whole = totals.sum(axis=0)
    value, draws = statistics(whole), statistics(counts @ totals)
    return {
        "percentile": _named(np.nanquantile(draws, TAILS, axis=0)),
        "bca": _named(_bca(value, draws, statistics(whole - totals))),
        "studentised": _named(_studentised(value, draws, counts, totals, statistics)),
    }


def _bca(value: Floats, draws: Floats, left_out: Floats) -> Floats:
    with np.errstate(all="ignore"):
        bias = stats.norm.ppf(np.mean(draws < value, axis=0))
        distance = np.nanmean(left_out, axis=0) - left_out
        skew = np.nansum(distance**3, axis=0) / (6 * np.nansum(distance**2, axis=0) ** 1.5)
        quantiles = stats.norm.ppf(TAILS)[:, None] + bias
        levels = stats.norm.cdf(bias + quantiles / (1 - skew * quantiles))
    levels = np.nan_to_num(levels, nan=0.5)
    columns = [np.nanquantile(draws[:, i], levels[:, i]) for i in range(len(value))]
    return np.stack(columns, axis=1)


def _studentised(
    value: Floats,
    draws: Floats,
    counts: Floats,
    totals: Floats,
    statistics: Callable[[Floats], Floats],
) -> Floats:
    """Bootstrap t with standard errors by linearisation of each resample."""

    def standard_errors(times_drawn: Floats) -> Floats:
        summed = times_drawn @ totals
        at_point = statistics(summed)
        variance = np.zeros_like(at_point)
        step = 1e-5 * summed.sum(axis=-1, keepdims=True)
        slopes = np.stack(
            [
                (statistics(summed + step * unit) - at_point) / step
                for unit in np.eye(totals.shape[1])
            ],
            axis=-1,
        )
        for i in range(at_point.shape[-1]):
            influence = slopes[..., i, :] @ totals.T
            variance[..., i] = (times_drawn * influence**2).sum(axis=-1)
        return np.sqrt(variance)

    own = standard_errors(np.ones((1, len(totals))))[0]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a sample without errors: all are NaN
        ratios = (draws - value) / standard_errors(counts)
        ratios[~np.isfinite(ratios)] = np.nan
        low, high = np.nanquantile(ratios, TAILS, axis=0)
    return np.stack([value - high * own, value - low * own])


def _totals_by_video(features: Floats, design: SampleDesign) -> Floats:
    videos = np.unique(design.videos, return_inverse=True)[1]
    strata = np.unique(design.strata, return_inverse=True)[1]
    totals = np.zeros((videos.max() + 1, strata.max() + 1, 4))
    np.add.at(totals, (videos, strata), features * design.weights[:, None])
    return totals.reshape(len(totals), -1)


def _named(bounds: Floats) -> Bounds:
    return {name: (float(bounds[0, i]), float(bounds[1, i])) for i, name in enumerate(STATISTICS)}
