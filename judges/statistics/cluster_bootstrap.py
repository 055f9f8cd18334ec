"""Intervals for audits: a bootstrap over videos that keeps weights, strata and rare errors honest.

Questions on one video share its difficulties, so videos are resampled, never rows. Every statistic
of an audit is a function of weighted totals (of confusion cells, of pairs of labels), so a draw is
one matrix product and thousands of them cost milliseconds.

The resampling is Rubin's Bayesian bootstrap (Annals of Statistics 9, 1981): a video's rows are
multiplied by a gamma weight of mean and variance 1 instead of a count of 0, 1, 2, ... Added are:

* Half a row of each possible outcome, with a gamma weight of its own: the Jeffreys prior, which
  for single independent rows makes this the Jeffreys interval (Brown, Cai and DasGupta, Statistical
  Science 16, 2001). A plain bootstrap cannot imagine an error that it did not see: with 1 % errors
  and 100 labels it reports "no error, sure of it" one time in three. Where rows of a video repeat
  each other, a prior row counts as many rows as a row of data does in truth (Kish's design effect).
* Totals of strata are known, so each draw is scaled back to them: a sample stratified by verdict
  has no uncertainty about how many verdicts of each kind there are.
* A row that stands for w rows is known itself; only w - 1 are guessed. Its gamma weight is damped
  by sqrt(1 - 1/w), which gives the finite population correction 1 - n/N of simple sampling.
* In a stratum with V videos weights have variance (V + 1) / (V - 1) * (t / z)^2, t being Student's
  quantile with V - 1 degrees of freedom: few videos show less than the spread there is.

`benchmarks/audit_coverage.py` compares this with percentile, BCa and studentised bootstraps.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Keys = Sequence[Hashable] | Integers | Floats
"""What names a video, a stratum or a slice: strings, numbers, tuples of them."""

LEVEL = 0.95
RESAMPLES = 2000
JEFFREYS = 0.5
LEAST_CORRELATION = 0.25
MAX_FACTORS = 4_000_000  # in memory at once


@dataclass(frozen=True)
class Estimate:
    """A value and its interval. NaN where it is not defined: 0/0, or an interval of one video."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """From the lower to the upper end."""
        return self.high - self.low


@dataclass(frozen=True, eq=False)
class SampleDesign:
    """How labelled rows were drawn; one entry per row. Make it with `sample_design`.

    `weights` is how many rows of the population a row stands for; `has_population` is False if
    the rows are a simple sample of more rows than anyone counted.
    """

    videos: Integers
    weights: Floats
    strata: Integers
    has_strata: bool
    has_population: bool

    def subset(self, chosen: Booleans) -> "SampleDesign":
        """The design of one slice: weights then add up to the slice's rows."""
        return SampleDesign(
            self.videos[chosen],
            self.weights[chosen],
            self.strata[chosen],
            self.has_strata,
            self.has_population,
        )


@dataclass(frozen=True, eq=False)
class PriorRows:
    """Outcomes that are possible even if nobody saw them: features, and how many rows of each.

    A prior row is spread over strata like the real rows of its group, so that strata in which an
    outcome cannot be (a judge's No among the rows that it accepted) get none of it. Without strata
    every outcome is possible.
    """

    features: Floats
    num_rows: Floats
    groups: Integers
    group_of_row: Integers


@dataclass(frozen=True, eq=False)
class TotalDraws:
    """Weighted totals: `estimate` [strata, features], `draws` [resamples, strata, features]."""

    estimate: Floats
    draws: Floats
    num_videos: int


def sample_design(
    videos: Keys,
    *,
    weights: Sequence[float] | Floats | None = None,
    strata: Keys | None = None,
) -> SampleDesign:
    """Check and code the design of a sample: the video of each row, its weight, its stratum.

    With weights the statistics refer to the counted population they add up to; without, to endless
    rows like these. Strata with less than about ten rows each are better merged by the caller:
    scaled to its known total, a stratum of one row would look as if it had no spread.
    """
    count = len(videos)
    for name, given in (("weights", weights), ("strata", strata)):
        if given is not None and len(given) != count:
            raise ValueError(f"{len(given)} {name} for {count} rows: give one for each row")
    row_weights = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if not np.all(row_weights >= 1 - 1e-9) or not np.all(np.isfinite(row_weights)):
        raise ValueError(
            "a weight is the number of rows that a labelled row stands for, so at least 1,"
            f" got {row_weights.min()}; leave weights out if nobody counted the population"
        )
    return SampleDesign(
        codes(videos),
        row_weights,
        np.zeros(count, dtype=np.int64) if strata is None else codes(strata),
        has_strata=strata is not None,
        has_population=weights is not None,
    )


def draw_totals(
    features: Floats,
    design: SampleDesign,
    prior: PriorRows,
    *,
    is_usable: Booleans,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> TotalDraws:
    """Totals of each feature in each stratum, and draws of them by the bootstrap described above.

    features: [rows, features]. Rows that are not usable (a label is missing) are taken as missing
    at random inside their stratum: the usable ones are scaled up to the stratum's whole weight. A
    stratum without any usable row is left out.
    """
    usable_strata, strata = np.unique(design.strata[is_usable], return_inverse=True)
    videos = np.unique(design.videos[is_usable], return_inverse=True)[1]
    num_strata, num_videos = len(usable_strata), int(videos.max(initial=-1)) + 1
    whole = _sums(design.strata, design.weights, 0)[usable_strata]
    present = _sums(strata, design.weights[is_usable], num_strata)
    weights = design.weights[is_usable] * (whole / present)[strata]
    counts = np.bincount(strata, minlength=num_strata)

    # One more feature, always 1, carries the drawn size of a stratum.
    with_size = np.column_stack([features[is_usable], np.ones(len(weights))])
    weighted = weights[:, None] * with_size
    estimate = np.zeros((num_strata, with_size.shape[1]))
    np.add.at(estimate, strata, weighted)
    if num_videos < 2:
        nothing = np.full((0, num_strata, features.shape[1]), np.nan)
        return TotalDraws(estimate[:, :-1], nothing, num_videos)

    generator = np.random.default_rng(seed)
    if design.has_population:
        weighted = weighted * np.sqrt(np.maximum(1 - 1 / weights, 0))[:, None]
    pairs, pair_of_row = np.unique(videos * num_strata + strata, return_inverse=True)
    video_of_pair, stratum_of_pair = np.divmod(pairs, num_strata)
    guessed = np.zeros((len(pairs), *estimate.shape))
    np.add.at(guessed, (pair_of_row, strata), weighted)
    # Factors of mean 1 with variances 1 and 1 / shape have a product of variance 1 + 2 / shape.
    shapes = (2 / (variance_for(np.bincount(stratum_of_pair)) - 1))[stratum_of_pair]
    at_once = max(MAX_FACTORS // len(pairs), 1)
    parts = []
    for done in range(0, resamples, at_once):
        count = min(at_once, resamples - done)
        factors = generator.standard_exponential((count, num_videos))[:, video_of_pair]
        factors *= generator.standard_gamma(shapes, factors.shape) / shapes
        parts.append((factors - 1) @ guessed.reshape(len(pairs), -1))
    draws = estimate + np.concatenate(parts).reshape(resamples, *estimate.shape)
    row_weights = _design_effects(features[is_usable], videos, strata) * whole / counts
    if design.has_population:
        row_weights *= 1 - counts / whole
    for shapes, prior_features in _spread(prior, design, is_usable, strata, whole):
        gammas = generator.standard_gamma(shapes, (resamples, num_strata))
        draws += (gammas * row_weights)[:, :, None] * prior_features
    sizes = draws[:, :, -1:]
    # With two or three videos all weights of a draw can underflow to 0: it then says nothing.
    scaled = np.where(sizes > 0, draws * whole[:, None] / np.where(sizes > 0, sizes, 1), estimate)
    return TotalDraws(estimate[:, :-1], scaled[:, :, :-1], num_videos)


def of_part(features: Floats, among: Booleans | None) -> tuple[Floats, PriorRows]:
    """Features that exclude each other, on a part of the rows only, and prior rows for them.

    Beside half a row of each outcome there is half a row outside of the part.
    """
    outcomes = np.eye(features.shape[1])
    if among is not None:
        features = features * among[:, None]
        outcomes = np.vstack([outcomes, np.zeros(features.shape[1])])
    prior = PriorRows(
        outcomes,
        np.full(len(outcomes), JEFFREYS),
        np.zeros(len(outcomes), dtype=np.int64),
        np.zeros(len(features), dtype=np.int64),
    )
    return features, prior


def estimate_from(value: float, draws: Floats, *, level: float = LEVEL) -> Estimate:
    """The value with the equal-tailed interval of its draws, widened where needed to contain it.

    Widening matters at the ends only: no error seen gives 0 itself and not a bound just above.
    """
    finite = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(finite) == 0:
        return Estimate(float(value), float("nan"), float("nan"))
    tail = (1 - level) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))


def share(
    is_hit: Floats,
    design: SampleDesign,
    *,
    among: Booleans | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The weighted share of rows that are 1 rather than 0; NaN is missing and left out.

    With `among` it is the share in that part of the rows, whose size nobody counted (what people
    say, for example). Rows outside of it that are not NaN still tell how large it is.
    """
    hits = np.asarray(is_hit, dtype=np.float64)
    is_usable = ~np.isnan(hits)
    features, prior = of_part(np.column_stack([hits, 1 - hits]), among)
    totals = draw_totals(
        features, design, prior, is_usable=is_usable, resamples=resamples, seed=seed
    )
    summed, draws = totals.estimate.sum(axis=0), totals.draws.sum(axis=1)
    if summed.sum() == 0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    return estimate_from(summed[0] / summed.sum(), draws[:, 0] / draws.sum(axis=1), level=level)


def variance_for(num_videos: Integers) -> Floats:
    """Variance of the weights in strata of V videos: (V + 1) / (V - 1) * (t / z)^2.

    The first factor turns the draws' spread into that of the usual unbiased variance, the second
    a normal interval into Student's. A stratum of one video counts as two.
    """
    count = np.maximum(num_videos, 2)
    student = stats.t.ppf(0.975, count - 1) / stats.norm.ppf(0.975)
    variance: Floats = (count + 1) / (count - 1) * student**2
    return variance


def codes(values: Keys) -> Integers:
    """0, 1, 2, ... for each distinct value; arrays are coded in sorted order, which is faster."""
    if isinstance(values, np.ndarray):
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _sums(codes: Integers, weights: Floats, at_least: int) -> Floats:
    return np.bincount(codes, weights=weights, minlength=at_least).astype(np.float64)


def _design_effects(features: Floats, videos: Integers, strata: Integers) -> Floats:
    """How many rows weigh as much as one independent row, by stratum: 1 + (m - 1) rho.

    m is the mean number of rows of a row's video in its stratum, rho the correlation of features
    inside videos over all strata (Kish, Survey Sampling, 1965, section 5.4). It is taken as at
    least 0.25: from a handful of errors a correlation cannot be seen to be absent.
    """
    num_strata = int(strata.max()) + 1
    counts = np.bincount(strata)
    means = np.zeros((num_strata, features.shape[1]))
    np.add.at(means, strata, features)
    residuals = features - (means / counts[:, None])[strata]
    in_video = np.zeros((int(videos.max()) + 1, features.shape[1]))
    np.add.at(in_video, videos, residuals)
    rows_per_video = np.bincount(videos)
    num_pairs = (rows_per_video * (rows_per_video - 1)).sum()
    squares = (residuals**2).sum()
    correlation = LEAST_CORRELATION
    if num_pairs > 0 and squares > 0:
        found = ((in_video**2).sum() - squares) / num_pairs * len(features) / squares
        correlation = min(max(float(found), LEAST_CORRELATION), 1.0)
    pair_counts = np.zeros((len(rows_per_video), num_strata))
    np.add.at(pair_counts, (videos, strata), 1)
    effects: Floats = 1 + ((pair_counts**2).sum(axis=0) / counts - 1) * correlation
    return effects


def _spread(
    prior: PriorRows,
    design: SampleDesign,
    is_usable: Booleans,
    strata: Integers,
    whole: Floats,
) -> list[tuple[Floats, Floats]]:
    """For each prior row: gamma shapes by stratum, and its features with size 1."""
    groups, weights = prior.group_of_row[is_usable], design.weights[is_usable]
    spread = []
    for features, num_rows, group in zip(prior.features, prior.num_rows, prior.groups, strict=True):
        chosen = groups == group
        of_group = _sums(strata[chosen], weights[chosen], len(whole))
        if of_group.sum() == 0:
            if design.has_strata:
                continue
            of_group = whole
        spread.append((num_rows * of_group / of_group.sum(), np.append(features, 1.0)))
    return spread
