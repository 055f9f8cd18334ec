"""Whether a judge agrees less with people than it did, row by row on the same rows."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from judges.audits.baseline import Baseline
from judges.audits.views import AuditRows, JudgeView
from judges.comparison import Comparison, compare_judges
from judges.intervals_by_video import Booleans, Estimate, Floats, share
from schemas.config import UsageError

_NUMBER = {"yes": 1.0, "no": 0.0}


@dataclass(frozen=True)
class Fall:
    """The baseline first in `comparison`, so a positive difference is a fall.

    Its interval has the level 1 - 2 alpha: what is below its lower end has a chance of alpha.
    `one_sided_p` is of the judge now being right less often, by McNemar's test: the larger one of
    rows as independent (exact) and of videos as independent.
    """

    comparison: Comparison
    before: Estimate
    now: Estimate
    unscored_before: int
    unscored_now: int
    one_sided_p: float


def fall_of(
    baseline: Baseline,
    view: JudgeView,
    rows: AuditRows,
    *,
    alpha: float,
    resamples: int,
    seed: int,
) -> Fall:
    """Compare on all rows of the baseline that people decided. Raises UsageError."""
    truth = rows.reference
    is_used = ~np.isnan(truth) & np.array(
        [item.item_id in baseline.verdicts for item in rows.items], dtype=np.bool_
    )
    if not is_used.any():
        raise UsageError(
            f"none of the {len(baseline.verdicts)} rows of the baseline has a label in this audit; "
            "give the audit that it was stored from, and label rows with judges.audit label"
        )
    num_missing = int((is_used & ~view.is_asked).sum())
    if num_missing:
        raise UsageError(
            f"{view.name} has not judged {num_missing} of the {int(is_used.sum())} labelled rows "
            "of the baseline; ask it about all of them with judges.audit run"
        )
    words_before = [baseline.verdicts.get(item.item_id, "") for item in rows.items]
    words_now = ["" if one is None else one.verdict for one in view.verdicts]
    before, now = (_right(words, truth, is_used) for words in (words_before, words_now))
    # Whether each was right, held against a column of ones: unscored counts as wrong.
    comparison = compare_judges(
        before,
        now,
        np.where(is_used, 1.0, np.nan),
        rows.design,
        level=1 - 2 * alpha,
        resamples=resamples,
        seed=seed,
    )
    return Fall(
        comparison=comparison,
        before=share(before, rows.design, resamples=resamples, seed=seed),
        now=share(now, rows.design, resamples=resamples, seed=seed),
        unscored_before=_count_unscored(words_before, is_used),
        unscored_now=_count_unscored(words_now, is_used),
        one_sided_p=_one_sided(comparison),
    )


def is_significant(fall: Fall, alpha: float) -> bool:
    """Whether the fall is more than chance explains, with the weights of the rows and without.

    Both have to say so: the weighted interval is of this population, the tests of any rows like
    these. One video has no interval, and proves nothing.
    """
    return bool(fall.comparison.difference.low > 0) and fall.one_sided_p < alpha


def _right(words: list[str], truth: Floats, is_used: Booleans) -> Floats:
    said = np.array([_NUMBER.get(word, np.nan) for word in words])
    return np.where(is_used, (said == truth).astype(np.float64), np.nan)


def _count_unscored(words: list[str], is_used: Booleans) -> int:
    return sum(word == "unscored" and bool(used) for word, used in zip(words, is_used, strict=True))


def _one_sided(seen: Comparison) -> float:
    differing = seen.only_first_right + seen.only_second_right
    if not differing:
        return 1.0
    exact = stats.binomtest(seen.only_first_right, differing, alternative="greater").pvalue
    return max(float(exact), seen.clustered_p / 2)
