"""How many labels until an interval is narrow enough, and what videos and weights cost."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from judges.statistics.agreement import CellDraws, binary_labels, draw_cells
from judges.statistics.cluster_bootstrap import JEFFREYS, SampleDesign, sample_design, variance_for
from judges.statistics.coefficients import cell_statistics

MAX_LABELS = 1_000_000
_FIRST_GUESS, _MAX_STEPS = 200, 10
_DATA_SETS, _DRAWS = 400, 1000


@dataclass(frozen=True)
class JudgeGuess:
    """What one expects of a judge before labelling, or found in a first audit.

    judged_yes: its share of Yes; kept_but_insufficient and rejected_but_sufficient: its error
    shares among its Yes and its No.
    """

    judged_yes: float
    kept_but_insufficient: float
    rejected_but_sufficient: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, got {value}")


def required_labels(
    guess: JudgeGuess,
    statistic: str,
    width: float,
    *,
    labels_for_yes: float | None = 0.5,
    design_effect: float = 1.0,
    seed: int = 0,
) -> int:
    """The fewest labels whose 95 % interval of `statistic` is on average at most `width` wide.

    `statistic` is a name from `cell_statistics`. `labels_for_yes` is the share of labels spent on
    rows that the judge accepted, with the rest on those it rejected; None takes rows as they come.
    `design_effect` is how much more variance rows of one video and unequal weights bring (see
    `design_effect`): n labels then count as n / design_effect.

    Computed by imagining audits: for a number of labels, 400 audits are drawn from the guess, each
    gets the Jeffreys interval of independent rows, which is what the bootstrap by video comes to
    there, and the mean width decides. Width falls about with the root of the number of labels, so a
    few steps of n * (width(n) / width)^2 find it, to about 2 %.
    """
    if width <= 0 or design_effect <= 0:
        raise ValueError(f"width {width} and design effect {design_effect}: both must be above 0")
    num_labels = _FIRST_GUESS
    for _ in range(_MAX_STEPS):
        found = _expected_width(guess, statistic, num_labels / design_effect, labels_for_yes, seed)
        better = max(math.ceil(num_labels * (found / width) ** 2), 2)
        if better > MAX_LABELS:
            raise ValueError(
                f"an interval of {statistic} of width {width} needs more than {MAX_LABELS:,}"
                " labels: ask for a wider one"
            )
        if abs(better - num_labels) <= max(1, num_labels // 200):
            break
        num_labels = better
    return num_labels


def design_effect(
    judge: ArrayLike,
    human: ArrayLike,
    design: SampleDesign,
    statistic: str,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> float:
    """Variance of a statistic in this sample over its variance with independent, equal rows.

    Kish (Survey Sampling, 1965) section 8.2. Above 1: rows of one video agree with each other, or
    weights differ; from 200 labels it is known to about 20 %. NaN where the statistic is undefined.
    """
    judged, said = binary_labels(judge, design, "judge"), binary_labels(human, design, "human")
    # As many rows of each stratum, each one a video of its own, with the stratum's mean weight.
    counts = np.bincount(design.strata)
    mean_weights = np.bincount(design.strata, weights=design.weights) / np.maximum(counts, 1)
    plain = sample_design(
        range(len(judged)),
        weights=mean_weights[design.strata] if design.has_population else None,
        strata=design.strata.tolist() if design.has_strata else None,
    )
    variances = [
        _variance(draw_cells(judged, said, each, resamples=resamples, seed=seed), statistic)
        for each in (design, plain)
    ]
    return variances[0] / variances[1] if variances[1] > 0 else float("nan")


def _variance(cells: CellDraws, statistic: str) -> float:
    values = cell_statistics(cells.draws, cells.num_rows)[statistic]
    finite = values[np.isfinite(values)]
    return float(finite.var()) if len(finite) else float("nan")


def _expected_width(
    guess: JudgeGuess, statistic: str, num_labels: float, labels_for_yes: float | None, seed: int
) -> float:
    """Mean width of the 95 % interval over imagined audits with independent rows."""
    generator = np.random.default_rng(seed)
    count = max(round(num_labels), 2)
    share_of_yes = guess.judged_yes if labels_for_yes is None else labels_for_yes
    if labels_for_yes is None:
        num_yes = generator.binomial(count, share_of_yes, _DATA_SETS)
    else:
        num_yes = np.full(_DATA_SETS, round(count * share_of_yes))
    false_yes = generator.binomial(num_yes, guess.kept_but_insufficient)
    false_no = generator.binomial(count - num_yes, guess.rejected_but_sufficient)
    counts = np.stack([num_yes - false_yes, false_yes, false_no, count - num_yes - false_no])
    if labels_for_yes is None:
        variance = np.broadcast_to(variance_for(np.array([count])), (4, 1))
    else:
        variance = variance_for(np.stack([num_yes, num_yes, count - num_yes, count - num_yes]))
    shapes = counts / variance + JEFFREYS
    cells = generator.standard_gamma(np.broadcast_to(shapes, (_DRAWS, *counts.shape)))
    cells = np.moveaxis(cells, 1, -1)
    if labels_for_yes is not None:
        of_verdict = np.repeat(cells.reshape(*cells.shape[:-1], 2, 2).sum(axis=-1), 2, axis=-1)
        known = np.repeat([guess.judged_yes, 1 - guess.judged_yes], 2)
        cells = cells / of_verdict * known
    statistics = cell_statistics(cells, count)
    if statistic not in statistics:
        raise ValueError(
            f"no statistic is called {statistic!r}: choose from {', '.join(statistics)}"
        )
    low, high = np.nanquantile(statistics[statistic], [0.025, 0.975], axis=0)
    return float((high - low).mean())
