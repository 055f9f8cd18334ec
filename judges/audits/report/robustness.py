"""How many empty observations a judge accepts, and whether repeated requests give one verdict."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from judges.audits.arrays import (
    AS_PUBLISHED,
    FIRST,
    USUAL_VARIANTS,
    AuditRows,
    Resampling,
    as_numbers,
    view_name,
)
from judges.audits.records import REAL, AuditVerdict
from judges.statistics.agreement import Agreement, agreement, human_ceiling
from judges.statistics.cluster_bootstrap import Estimate, Floats, share
from judges.statistics.paired_comparison import Comparison, compare_judges

_ByItem = Mapping[str, AuditVerdict]


@dataclass(frozen=True)
class Probe:
    """Observations of one kind that show nothing: `passed` is the share that the judge accepted.

    Unscored replies are left out of `passed`, and counted.
    """

    judge: str
    probe: str
    num_rows: int
    num_passed: int
    num_unscored: int
    passed: Estimate


@dataclass(frozen=True)
class Stability:
    """The same request several times: share of rows with one and the same verdict each time.

    Yes, no and unscored are three words; `alpha` is Krippendorff's, on yes and no.
    """

    judge: str
    num_repeats: int
    num_rows: int
    num_changed: int
    unchanged: Estimate
    alpha: Estimate


@dataclass(frozen=True)
class Change:
    """The same rows with another kind of request: another prompt variant, or options rewritten.

    `changed` is the share of rows with another word; `comparison` has the usual way first, and
    `against_people` is the agreement of the other way.
    """

    judge: str
    what: str
    num_rows: int
    num_changed: int
    changed: Estimate
    against_people: Agreement
    comparison: Comparison


def probes_of(
    verdicts: Sequence[AuditVerdict], rows: AuditRows, given: Resampling
) -> tuple[Probe, ...]:
    """Each judge and probe, as asked first."""
    asked: dict[tuple[str, str], dict[str, AuditVerdict]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.probe != REAL and (verdict.permutation, verdict.repeat) == (AS_PUBLISHED, FIRST):
            asked[view_name(verdict.judge, verdict.variant), verdict.probe][verdict.item_id] = (
                verdict
            )
    found = []
    for (judge, probe), by_item in sorted(asked.items()):
        said = _said(by_item, rows)
        found.append(
            Probe(
                judge=judge,
                probe=probe,
                num_rows=len(by_item),
                num_passed=int(np.nansum(said)),
                num_unscored=sum(one.verdict == "unscored" for one in by_item.values()),
                passed=share(said, rows.design, **given),
            )
        )
    return tuple(found)


def stability_of(
    verdicts: Sequence[AuditVerdict], rows: AuditRows, given: Resampling
) -> tuple[Stability, ...]:
    """Each judge and variant that was asked the same more than once."""
    asked: dict[str, dict[int, dict[str, AuditVerdict]]] = defaultdict(lambda: defaultdict(dict))
    for verdict in verdicts:
        if (verdict.probe, verdict.permutation) == (REAL, AS_PUBLISHED):
            name = view_name(verdict.judge, verdict.variant)
            asked[name][verdict.repeat][verdict.item_id] = verdict
    found = []
    for judge, by_repeat in sorted(asked.items()):
        if len(by_repeat) < 2:
            continue
        unchanged = np.array([_is_one_word(item.item_id, by_repeat) for item in rows.items])
        among = human_ceiling(
            [_said(one, rows) for one in by_repeat.values()], rows.design, **given
        )
        found.append(
            Stability(
                judge=judge,
                num_repeats=len(by_repeat),
                num_rows=int((~np.isnan(unchanged)).sum()),
                num_changed=int((unchanged == 0).sum()),
                unchanged=share(unchanged, rows.design, **given),
                alpha=among.alpha,
            )
        )
    return tuple(found)


def changes_of(
    verdicts: Sequence[AuditVerdict], rows: AuditRows, given: Resampling
) -> tuple[Change, ...]:
    """Variants against the same judge's usual prompt, permutations against the published order.

    Where a judge was not asked with the usual prompt, its first variant takes its place.
    """
    asked: dict[tuple[str, str, int], dict[str, AuditVerdict]] = defaultdict(dict)
    for verdict in verdicts:
        if (verdict.probe, verdict.repeat) == (REAL, FIRST):
            key = (verdict.judge, verdict.variant, verdict.permutation)
            asked[key][verdict.item_id] = verdict
    found = []
    for (judge, variant, permutation), by_item in sorted(asked.items()):
        if permutation != AS_PUBLISHED:
            usual = asked.get((judge, variant, AS_PUBLISHED))
            moved = "in another order" if permutation % 2 else "under other letters"
            what = f"options {moved} ({permutation})"
            judge_name = view_name(judge, variant)
        else:
            variants = sorted(one for who, one, way in asked if (who, way) == (judge, AS_PUBLISHED))
            first = next((one for one in variants if one in USUAL_VARIANTS), variants[0])
            usual = asked[judge, first, AS_PUBLISHED] if variant != first else None
            what, judge_name = f"prompt {variant} instead of {first}", judge
        if usual is not None:
            found.append(_change(judge_name, what, usual, by_item, rows, given))
    return tuple(found)


def _change(
    judge: str,
    what: str,
    usual: _ByItem,
    other: _ByItem,
    rows: AuditRows,
    given: Resampling,
) -> Change:
    is_changed = np.array(
        [
            float(usual[item.item_id].verdict != other[item.item_id].verdict)
            if item.item_id in usual and item.item_id in other
            else math.nan
            for item in rows.items
        ]
    )
    # The usual way is looked at on the same rows: permutations exist for some questions only.
    said = np.where(np.isnan(is_changed), np.nan, _said(usual, rows))
    said_otherwise = np.where(np.isnan(is_changed), np.nan, _said(other, rows))
    return Change(
        judge=judge,
        what=what,
        num_rows=int((~np.isnan(is_changed)).sum()),
        num_changed=int(np.nansum(is_changed)),
        changed=share(is_changed, rows.design, **given),
        against_people=agreement(said_otherwise, rows.reference, rows.design, **given),
        comparison=compare_judges(said, said_otherwise, rows.reference, rows.design, **given),
    )


def _is_one_word(item_id: str, by_repeat: Mapping[int, _ByItem]) -> float:
    words = [one[item_id].verdict for one in by_repeat.values() if item_id in one]
    return math.nan if len(words) < 2 else float(len(set(words)) == 1)


def _said(by_item: _ByItem, rows: AuditRows) -> Floats:
    return as_numbers(by_item.get(item.item_id) for item in rows.items)
