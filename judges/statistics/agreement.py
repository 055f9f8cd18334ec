"""A judge against humans, and humans against each other: agreement with intervals.

Labels are 1 (sufficient, Yes), 0 (insufficient, No) and NaN (missing: unscored, unsure, not yet
labelled), one per row. Why several coefficients: a filter keeps most rows, labels are skewed, and
kappa then falls although agreement is high (Feinstein and Cicchetti, Journal of Clinical
Epidemiology 43, 1990). Kappa, AC1 and prevalence side by side mislead in neither direction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from judges.statistics.cluster_bootstrap import (
    JEFFREYS,
    LEVEL,
    RESAMPLES,
    Booleans,
    Estimate,
    Floats,
    PriorRows,
    SampleDesign,
    TotalDraws,
    draw_totals,
    estimate_from,
)
from judges.statistics.coefficients import (
    cell_statistics,
    confusion_features,
    gwet_ac1,
    krippendorff_alpha,
    num_paired_values,
    pair_agreement,
    rating_features,
)


@dataclass(frozen=True)
class Confusion:
    """How often judge and human said what: judge's word first. Rows, or their weights."""

    yes_yes: float
    yes_no: float
    no_yes: float
    no_no: float


@dataclass(frozen=True)
class Agreement:
    """A judge against human labels, in the population that the sample's weights stand for.

    `num_rows` have both labels. A statistic that is not defined is NaN (see `coefficients`).
    """

    num_rows: int
    num_videos: int
    num_unscored: int
    num_unlabelled: int
    rows: Confusion
    weights: Confusion
    agreement: Estimate
    precision: Estimate
    recall: Estimate
    specificity: Estimate
    f1: Estimate
    kappa: Estimate
    ac1: Estimate
    alpha: Estimate
    prevalence: Estimate
    judged_yes: Estimate
    kept_but_insufficient: Estimate
    rejected_but_sufficient: Estimate


@dataclass(frozen=True)
class Ceiling:
    """How well humans agree with each other: what no judge can be asked to surpass.

    `num_rows` have two labels or more; rows with one count for AC1's chance agreement only.
    """

    num_annotators: int
    num_rows: int
    num_videos: int
    agreement: Estimate
    ac1: Estimate
    alpha: Estimate


@dataclass(frozen=True, eq=False)
class CellDraws:
    """Weighted confusion cells, estimated and resampled: [4] and [resamples, 4]."""

    estimate: Floats
    draws: Floats
    num_rows: int
    num_videos: int


def agreement(
    judge: ArrayLike,
    human: ArrayLike,
    design: SampleDesign,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """All statistics of a judge against one human label per row.

    The consequences for the data are `kept_but_insufficient`, the share of the rows that the judge
    accepted which are in truth insufficient (1 - precision), and `rejected_but_sufficient`, the
    share of those it rejected which were fine.
    """
    judged, said = binary_labels(judge, design, "judge"), binary_labels(human, design, "human")
    cells = draw_cells(judged, said, design, resamples=resamples, seed=seed)
    values = cell_statistics(cells.estimate, cells.num_rows)
    drawn = cell_statistics(cells.draws, cells.num_rows)
    counted = confusion_features(judged, said).sum(axis=0)
    return Agreement(
        num_rows=cells.num_rows,
        num_videos=cells.num_videos,
        num_unscored=int(np.isnan(judged).sum()),
        num_unlabelled=int(np.isnan(said).sum()),
        rows=Confusion(*counted.tolist()),
        weights=Confusion(*cells.estimate.tolist()),
        **{
            name: estimate_from(float(value), drawn[name], level=level)
            for name, value in values.items()
        },
    )


def draw_cells(
    judge: Floats,
    human: Floats,
    design: SampleDesign,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> CellDraws:
    """Weighted confusion cells of the rows with both labels, with half a prior row in each cell."""
    is_usable = ~(np.isnan(judge) | np.isnan(human))
    judged = np.nan_to_num(judge, nan=-1).astype(np.int64)
    prior = PriorRows(
        features=np.eye(4),
        num_rows=np.full(4, JEFFREYS),
        groups=np.array([1, 1, 0, 0]),
        group_of_row=judged,
    )
    totals = draw_totals(
        confusion_features(judge, human),
        design,
        prior,
        is_usable=is_usable,
        resamples=resamples,
        seed=seed,
    )
    return CellDraws(
        totals.estimate.sum(axis=0),
        totals.draws.sum(axis=1),
        int(is_usable.sum()),
        totals.num_videos,
    )


def human_ceiling(
    labels: ArrayLike,
    design: SampleDesign,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Ceiling:
    """Agreement among annotators.  labels: [annotators, rows], 1, 0 or NaN.

    Kappa is for two raters: `agreement` of one annotator against another gives it for each pair.
    """
    ratings = np.atleast_2d(np.asarray(labels, dtype=np.float64))
    for rating in ratings:
        binary_labels(rating, design, "annotator")
    rated = (~np.isnan(ratings)).sum(axis=0)
    # Half a row in each cell of two raters' table: both yes, one of each (two cells), both no.
    pairs = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    prior = PriorRows(
        features=rating_features(pairs),
        num_rows=JEFFREYS * np.array([1.0, 2.0, 1.0]),
        groups=np.zeros(3, dtype=np.int64),
        group_of_row=np.zeros(ratings.shape[1], dtype=np.int64),
    )
    totals = draw_totals(
        rating_features(ratings),
        design,
        prior,
        is_usable=rated >= 1,
        resamples=resamples,
        seed=seed,
    )
    of_alpha = partial(krippendorff_alpha, num_values=num_paired_values(ratings))
    return Ceiling(
        num_annotators=len(ratings),
        num_rows=int((rated >= 2).sum()),
        num_videos=totals.num_videos,
        agreement=_estimate(pair_agreement, totals, level),
        ac1=_estimate(gwet_ac1, totals, level),
        alpha=_estimate(of_alpha, totals, level),
    )


def majority(labels: ArrayLike) -> Floats:
    """What most annotators said of each row; NaN for a tie or no label.  [annotators, rows]."""
    ratings = np.atleast_2d(np.asarray(labels, dtype=np.float64))
    num_yes, num_no = (ratings == 1).sum(axis=0), (ratings == 0).sum(axis=0)
    return np.where(num_yes == num_no, np.nan, (num_yes > num_no).astype(np.float64))


def binary_labels(labels: ArrayLike, design: SampleDesign, whose: str) -> Floats:
    """The labels as floats, checked: one for each row of the design, each 1, 0 or NaN."""
    values = np.asarray(labels, dtype=np.float64)
    if values.shape != design.videos.shape:
        raise ValueError(
            f"{whose} labels have shape {values.shape}, but the design has"
            f" {len(design.videos)} rows: give one label per row, NaN where it is missing"
        )
    is_label: Booleans = np.isnan(values) | (values == 0) | (values == 1)
    if not is_label.all():
        row = int(np.argmin(is_label))
        raise ValueError(
            f"{whose} label of row {row} is {values[row]}: expected 1 (yes), 0 (no) or NaN"
            " (missing)"
        )
    return values


def _estimate(statistic: Callable[[Floats], Floats], totals: TotalDraws, level: float) -> Estimate:
    value = statistic(totals.estimate.sum(axis=0))
    return estimate_from(float(value), statistic(totals.draws.sum(axis=1)), level=level)
