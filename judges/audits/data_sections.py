"""What the audited judge's errors mean for the data, in sentences and tables."""

import math

from judges.audits.consequences import Part
from judges.audits.facts import AuditFacts
from judges.audits.kinds import AuditKind
from judges.audits.section_parts import Section, Table
from judges.audits.wording import TOO_FEW, UNKNOWN, is_too_few, percent
from judges.intervals_by_video import Estimate
from judges.prevalence import Prevalence


def data_section(facts: AuditFacts) -> Section:
    """Wrong rows among kept and rejected ones, and prevalence corrected for the judge's errors."""
    found = facts.consequences
    parts = [part for part in (found.kept, found.rejected, found.unscored) if part.population]
    tables = [
        Table(
            ("rows of the population", "all", "labelled", "wrong", "wrong rows", ""),
            tuple(_part_row(part, facts.kind) for part in parts),
        )
    ]
    sentences: tuple[str, ...] = ()
    if found.prevalence is not None:
        corrected = found.prevalence
        sentences = (
            f"How much of what was judged is really {facts.kind.yes}? The judge's own share of Yes "
            "is naive: false Yes and false No need not cancel. The corrections use its errors on "
            "the labelled rows.",
        )
        tables.append(
            Table(
                (f"share of {facts.kind.yes} rows", "value (95 % interval)"),
                (
                    ("as the judge says (naive)", f"{100 * corrected.naive:.1f} %"),
                    ("corrected, Rogan-Gladen", percent(corrected.rogan_gladen)),
                    (
                        f"corrected, prediction-powered (its word counts {corrected.tuning:.2f})",
                        percent(corrected.prediction_powered),
                    ),
                    *_opposite(corrected, facts.kind),
                ),
            )
        )
    return Section("data", "What its errors mean for the data", sentences, tuple(tables))


def labels_needed_section(facts: AuditFacts) -> Section | None:
    """How many labels an interval of a given width takes."""
    found = facts.consequences.labels_needed
    if not found:
        return None
    return Section(
        "labels",
        "How many labels for a narrower interval",
        (
            "If the judge errs as often as found here, and kept and rejected rows are labelled in "
            "the proportion of this audit. The effect of videos and weights is how many times more "
            "rows are needed than independent, equal ones.",
        ),
        (
            Table(
                ("of", "width now", "wanted", "labels needed", "effect of videos and weights"),
                tuple(
                    (
                        _statistic(one.statistic, facts.kind),
                        UNKNOWN if math.isnan(one.now) else f"{100 * one.now:.1f} points",
                        f"{100 * one.width:.1f} points",
                        "not known" if one.num_labels is None else f"{one.num_labels:,}",
                        UNKNOWN if math.isnan(one.effect) else f"{one.effect:.2f}",
                    )
                    for one in found
                ),
            ),
        ),
    )


def wrong_words(verdict: str, kind: AuditKind) -> str:
    """What a wrong row is called among those with this verdict."""
    return {
        "yes": f"{kind.kept}, but {kind.no}",
        "no": f"{kind.rejected}, but {kind.yes}",
        "unscored": f"no verdict, but {kind.yes}",
    }[verdict]


def _statistic(name: str, kind: AuditKind) -> str:
    return {
        "agreement": "agreement with people",
        "kept_but_insufficient": f"{kind.no} among {kind.kept}",
        "rejected_but_sufficient": f"{kind.yes} among {kind.rejected}",
    }[name]


def _opposite(corrected: Prevalence, kind: AuditKind) -> tuple[tuple[str, str], ...]:
    """The share of Noes, where that is what the audit is about."""
    if not kind.opposite:
        return ()
    found = corrected.prediction_powered
    turned = Estimate(1 - found.value, 1 - found.high, 1 - found.low)
    return (
        (f"{kind.opposite} as the judge says (naive)", f"{100 * (1 - corrected.naive):.1f} %"),
        (f"{kind.opposite}, corrected, prediction-powered", percent(turned)),
    )


def _part_row(part: Part, kind: AuditKind) -> tuple[str, ...]:
    note = TOO_FEW if is_too_few(part.num_labelled, part.num_videos) else ""
    return (
        wrong_words(part.verdict, kind),
        f"{part.population:,}",
        f"{part.num_labelled:,}",
        percent(part.wrong),
        _rows(part.num_wrong),
        note,
    )


def _rows(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return UNKNOWN
    if math.isnan(estimate.low):
        return f"{estimate.value:,.0f} (no interval)"
    return f"{estimate.value:,.0f} ({estimate.low:,.0f} to {estimate.high:,.0f})"
