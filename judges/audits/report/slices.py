"""Where a judge errs most: agreement in each part of the data, the worst parts first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from judges.audits.arrays import AuditRows, JudgeView, Resampling
from judges.audits.records import AuditItem
from judges.audits.report.number_format import MIN_ROWS, is_too_few
from judges.statistics.agreement import Agreement, agreement
from judges.statistics.cluster_bootstrap import Estimate

KINDS = ("problem type", "data source", "level", "media", "observation")


@dataclass(frozen=True)
class SliceResults:
    """One judge on one part of the rows; all rows, where there is just one part, are none."""

    judge: str
    kind: str
    value: str
    num_rows: int
    num_videos: int
    is_too_few: bool
    agreement: Estimate
    ac1: Estimate
    kept_but_insufficient: Estimate
    rejected_but_sufficient: Estimate


def slices_of(
    views: Sequence[JudgeView], rows: AuditRows, given: Resampling
) -> tuple[SliceResults, ...]:
    """Every slice with a labelled row: lowest agreement first, those with too few labels last."""
    thirds = thirds_of_words(rows.items)
    named = [slice_names(item, thirds) for item in rows.items]
    found = []
    for kind in KINDS:
        values = np.array([names[kind] for names in named])
        if len(set(values)) < 2:
            continue
        for value in sorted(set(values)):
            chosen = values == value
            design, truth = rows.design.subset(chosen), rows.reference[chosen]
            for view in views:
                on_slice = agreement(view.said[chosen], truth, design, **given)
                if on_slice.num_rows:
                    found.append(
                        SliceResults(
                            judge=view.name,
                            kind=kind,
                            value=str(value),
                            num_rows=on_slice.num_rows,
                            num_videos=on_slice.num_videos,
                            is_too_few=is_too_few(on_slice.num_rows, on_slice.num_videos),
                            **slice_estimates(on_slice),
                        )
                    )
    return tuple(sorted(found, key=lambda one: (one.is_too_few, one.agreement.value)))


def slice_estimates(found: Agreement) -> dict[str, Estimate]:
    """The estimates that are reported of one part of the data.

    The share of wrong rows among kept and among rejected ones only where at least `MIN_ROWS`
    labelled rows have that verdict: errors come in whole rows, and no interval of a dozen rows
    covers as often as it says.
    """
    rows = found.rows
    num_kept, num_rejected = rows.yes_yes + rows.yes_no, rows.no_yes + rows.no_no
    return {
        "agreement": found.agreement,
        "ac1": found.ac1,
        "kept_but_insufficient": _if_enough(found.kept_but_insufficient, num_kept),
        "rejected_but_sufficient": _if_enough(found.rejected_but_sufficient, num_rejected),
    }


def _if_enough(estimate: Estimate, num_rows: float) -> Estimate:
    return estimate if num_rows >= MIN_ROWS else Estimate(math.nan, math.nan, math.nan)


def slice_names(item: AuditItem, thirds: tuple[int, int]) -> dict[str, str]:
    """Which part a row belongs to, for each kind of slice."""
    question, num_words = item.question, _num_words(item)
    short, long = thirds
    if num_words <= short:
        length = f"at most {short} words"
    else:
        length = f"{short + 1} to {long} words" if num_words <= long else f"over {long} words"
    return {
        "problem type": question.problem_type.value,
        "data source": question.data_source or "(not named)",
        "level": question.level or "(not named)",
        "media": question.data_type,
        "observation": length,
    }


def thirds_of_words(items: Sequence[AuditItem]) -> tuple[int, int]:
    """The lengths, in words, that part the observations into short, middle and long ones."""
    counts = sorted(_num_words(item) for item in items)
    return counts[math.ceil(len(counts) / 3) - 1], counts[math.ceil(2 * len(counts) / 3) - 1]


def _num_words(item: AuditItem) -> int:
    return len(item.observation.split())
