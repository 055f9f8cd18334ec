"""Two judges on the same rows: which is right more often, and could it be chance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from judges.statistics.agreement import binary_labels
from judges.statistics.cluster_bootstrap import (
    LEVEL,
    RESAMPLES,
    Booleans,
    Estimate,
    Floats,
    SampleDesign,
    draw_totals,
    estimate_from,
    of_part,
)


@dataclass(frozen=True)
class Comparison:
    """Rows by who was right, the weighted difference in agreement (first - second), p-values.

    `exact_p` takes rows as independent, `clustered_p` takes videos as independent; both ask
    whether the judges are right equally often and ignore weights.
    """

    num_rows: int
    num_videos: int
    both_right: int
    only_first_right: int
    only_second_right: int
    neither_right: int
    difference: Estimate
    exact_p: float
    clustered_p: float


def compare_judges(
    first: ArrayLike,
    second: ArrayLike,
    human: ArrayLike,
    design: SampleDesign,
    *,
    among: Booleans | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """McNemar's comparison of two judges on the rows that both scored and a human labelled.

    With `among` on a part of these, see `judges.statistics.cluster_bootstrap.share`.
    """
    one = binary_labels(first, design, "first judge's")
    two = binary_labels(second, design, "second judge's")
    said = binary_labels(human, design, "human")
    is_usable = ~(np.isnan(one) | np.isnan(two) | np.isnan(said))
    one_right, two_right = one == said, two == said
    features = np.column_stack(
        [
            one_right & two_right,
            one_right & ~two_right,
            ~one_right & two_right,
            ~one_right & ~two_right,
        ]
    ).astype(np.float64)
    features, prior = of_part(features, among)
    totals = draw_totals(
        features, design, prior, is_usable=is_usable, resamples=resamples, seed=seed
    )
    is_compared = is_usable if among is None else is_usable & among
    both, only_one, only_two, neither = features[is_usable].sum(axis=0).astype(int).tolist()
    videos = np.unique(design.videos[is_usable], return_inverse=True)[1]
    per_video = np.bincount(videos, weights=(features[:, 1] - features[:, 2])[is_usable])
    summed = totals.estimate.sum(axis=0)
    return Comparison(
        num_rows=int(is_compared.sum()),
        num_videos=len(np.unique(design.videos[is_compared])),
        both_right=both,
        only_first_right=only_one,
        only_second_right=only_two,
        neither_right=neither,
        difference=estimate_from(
            float(_difference(summed)), _difference(totals.draws.sum(axis=1)), level=level
        ),
        exact_p=mcnemar_exact(only_one, only_two),
        clustered_p=mcnemar_clustered(per_video),
    )


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar test (Psychometrika 12, 1947): is the split a fair coin's, by scipy.

    1 where the judges never differ: there is nothing that speaks against chance.
    """
    differing = only_first + only_second
    return float(stats.binomtest(only_first, differing).pvalue) if differing else 1.0


def mcnemar_clustered(difference_per_video: ArrayLike) -> float:
    """McNemar's test with videos as the independent units; d_v = b_v - c_v of each video.

    chi2 = (sum d_v)^2 / sum d_v^2 with one degree of freedom: the modified Obuchowski test of Yang,
    Sun and Hardin (Biometrical Journal 52, 2010). With one row per video it is McNemar's test
    without continuity correction. It wants some 25 videos on which the judges differ.
    """
    differences = np.asarray(difference_per_video, dtype=np.float64)
    spread = float((differences**2).sum())
    if spread == 0:
        return 1.0
    return float(stats.chi2.sf(differences.sum() ** 2 / spread, 1))


def worse_now_p(before_and_now: Comparison) -> float:
    """One-sided p-value of the second judge being right less often than the first: McNemar's test.

    The larger one of rows as independent (exact) and of videos as independent.
    """
    only_first = before_and_now.only_first_right
    differing = only_first + before_and_now.only_second_right
    if not differing:
        return 1.0
    exact = stats.binomtest(only_first, differing, alternative="greater").pvalue
    return max(float(exact), before_and_now.clustered_p / 2)


def _difference(totals: Floats) -> Floats:
    sizes = totals.sum(axis=-1)
    difference: Floats = np.where(
        sizes > 0, (totals[..., 1] - totals[..., 2]) / np.where(sizes > 0, sizes, 1), np.nan
    )
    return difference
