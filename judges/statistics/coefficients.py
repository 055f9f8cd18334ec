"""Agreement coefficients as functions of weighted totals.

Each works on one set of totals or on thousands of resampled ones: leading dimensions are kept, the
last one holds the totals. 0/0 is NaN, "not defined", never 0: precision of a judge that never said
Yes, kappa and alpha where everybody always said the same.

Confusion cells [..., 4], judge first, then human: yes-yes, yes-no, no-yes, no-no.
Rating totals [..., 4 + 2K] for K categories: see `rating_features`.
"""

import numpy as np

from judges.statistics.cluster_bootstrap import Floats

YES_YES, YES_NO, NO_YES, NO_NO = range(4)
BINARY = (0.0, 1.0)

_PAIRED, _RATED, _PAIR_AGREEMENT, _MATCHES, _CATEGORIES = range(5)


def confusion_features(judge: Floats, human: Floats) -> Floats:
    """One-hot confusion cell of each row; all zero where a label is missing.  [rows, 4]."""
    is_cell = (judge[:, None] == [1, 1, 0, 0]) & (human[:, None] == [1, 0, 1, 0])
    features: Floats = is_cell.astype(np.float64)
    return features


def cell_statistics(cells: Floats, num_rows: int) -> dict[str, Floats]:
    """All statistics of a judge against humans from confusion cells.  [..., 4] -> [...] each.

    With cells as shares p, po = p_yy + p_nn, judge's share of Yes j, human share of Yes h:
    precision p_yy / j, recall (sensitivity) p_yy / h, specificity p_nn / (1 - h),
    F1 2 p_yy / (j + h);
    kappa (po - pe) / (1 - pe) with pe = j h + (1 - j)(1 - h): Cohen (Educational and Psychological
    Measurement 20, 1960);
    AC1 the same with pe = 2 m (1 - m), m = (j + h) / 2: Gwet (British Journal of Mathematical and
    Statistical Psychology 61, 2008) equation 2;
    alpha 1 - (1 - po) / De with De = 2 m (1 - m) n / (n - 1), n = 2 num_rows values:
    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section A. `num_rows` is the
    number of rows labelled, not their weight: the correction is for how few were looked at.
    """
    yes_yes, yes_no, no_yes, no_no = np.moveaxis(np.asarray(cells, dtype=np.float64), -1, 0)
    total = yes_yes + yes_no + no_yes + no_no
    judged_yes, judged_no = yes_yes + yes_no, no_yes + no_no
    human_yes = yes_yes + no_yes
    agreed = ratio(yes_yes + no_no, total)
    judge_share, human_share = ratio(judged_yes, total), ratio(human_yes, total)
    by_chance = judge_share * human_share + (1 - judge_share) * (1 - human_share)
    mean_share = (judge_share + human_share) / 2
    hard_to_say = 2 * mean_share * (1 - mean_share)
    num_values = 2 * num_rows
    return {
        "agreement": agreed,
        "precision": ratio(yes_yes, judged_yes),
        "recall": ratio(yes_yes, human_yes),
        "specificity": ratio(no_no, total - human_yes),
        "f1": ratio(2 * yes_yes, judged_yes + human_yes),
        "kappa": ratio(agreed - by_chance, 1 - by_chance),
        "ac1": ratio(agreed - hard_to_say, 1 - hard_to_say),
        "alpha": 1 - ratio((1 - agreed) * (num_values - 1), hard_to_say * num_values),
        "prevalence": human_share,
        "judged_yes": judge_share,
        "kept_but_insufficient": ratio(yes_no, judged_yes),
        "rejected_but_sufficient": ratio(no_yes, judged_no),
    }


def rating_features(labels: Floats, categories: tuple[float, ...] = BINARY) -> Floats:
    """What each row adds to the totals of any number of raters.  [raters, rows] -> [rows, 4 + 2K].

    With n_k ratings of category k and m = sum_k n_k in a row: whether m >= 2; whether m >= 1;
    sum_k n_k (n_k - 1) / (m (m - 1)), the share of agreeing pairs; sum_k n_k (n_k - 1) / (m - 1),
    the diagonal of Krippendorff's coincidences; n_k / m for each k; n_k for each k if m >= 2.
    """
    counts = np.stack([(labels == category).sum(axis=0) for category in categories], axis=1)
    counts = counts.astype(np.float64)
    rated = counts.sum(axis=1)
    is_paired, is_rated = rated >= 2, rated >= 1
    agreeing = (counts * (counts - 1)).sum(axis=1)
    others = np.where(is_paired, rated - 1, 1)
    matches = np.where(is_paired, agreeing / others, 0)
    per_rating = np.where(is_rated, rated, 1)
    return np.column_stack(
        [
            is_paired,
            is_rated,
            matches / per_rating,
            matches,
            counts / per_rating[:, None],
            counts * is_paired[:, None],
        ]
    )


def pair_agreement(totals: Floats) -> Floats:
    """Mean share of agreeing pairs of ratings, over rows with two ratings or more."""
    return ratio(totals[..., _PAIR_AGREEMENT], totals[..., _PAIRED])


def gwet_ac1(totals: Floats) -> Floats:
    """AC1 for any number of raters with missing ratings: (pa - pe) / (1 - pe).

    pe = sum_k pi_k (1 - pi_k) / (K - 1), pi_k the mean over rated rows of n_k / m: Gwet, Handbook
    of Inter-Rater Reliability (4th edition, 2014), section 2.4. Rows with a single rating count
    for pe. K is the number of categories that could be chosen, used or not.
    """
    num_categories = (totals.shape[-1] - _CATEGORIES) // 2
    shares = totals[..., _CATEGORIES : _CATEGORIES + num_categories]
    shares = ratio(shares, totals[..., _RATED, None])
    by_chance = (shares * (1 - shares)).sum(axis=-1) / (num_categories - 1)
    return ratio(pair_agreement(totals) - by_chance, 1 - by_chance)


def krippendorff_alpha(totals: Floats, num_values: int) -> Floats:
    """Nominal alpha for any number of raters with missing ratings: 1 - Do / De.

    Do = 1 - (sum of coincidence diagonals) / n, De = (1 - sum_k (n_k / n)^2) n / (n - 1):
    Krippendorff (2011), section C. `num_values` is n as counted, for the last factor; everywhere
    else n is the weighted total. Rows with fewer than two ratings play no part.
    """
    num_categories = (totals.shape[-1] - _CATEGORIES) // 2
    values = totals[..., _CATEGORIES + num_categories :]
    weight = values.sum(axis=-1)
    shares = ratio(values, weight[..., None])
    disagreed = 1 - ratio(totals[..., _MATCHES], weight)
    expected = 1 - (shares**2).sum(axis=-1)
    return 1 - ratio(disagreed * (num_values - 1), expected * num_values)


def num_paired_values(labels: Floats) -> int:
    """How many ratings stand in rows with two or more: Krippendorff's n."""
    rated = (~np.isnan(labels)).sum(axis=0)
    return int(rated[rated >= 2].sum())


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Division that gives NaN for a denominator of 0, rounding of shares included."""
    is_zero = np.abs(denominator) < 1e-12
    return np.where(is_zero, np.nan, numerator / np.where(is_zero, 1, denominator))
