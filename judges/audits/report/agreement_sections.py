"""Tables of agreement (judges, people), of what the errors mean for the data, of labels needed."""

import math
from collections.abc import Sequence

from judges.audits.audit_kinds import AuditKind
from judges.audits.report.data_impact import Part
from judges.audits.report.number_format import (
    TOO_FEW,
    UNKNOWN,
    Section,
    Table,
    coefficient,
    count,
    dollars,
    is_too_few,
    p_value,
    percent,
    points,
)
from judges.audits.report.results import AuditResults, JudgeResults
from judges.statistics.agreement import Agreement, Confusion
from judges.statistics.cluster_bootstrap import Estimate
from judges.statistics.paired_comparison import Comparison
from judges.statistics.prevalence import Prevalence

_Names = tuple[str, ...]


def against_people_section(results: AuditResults) -> Section | None:
    """Agreement and its coefficients; None without a label."""
    judges = [judge for judge in results.judges if judge.against_people.num_rows]
    if not judges:
        return None
    agreements = [((judge.name,), judge.against_people) for judge in judges]
    return Section(
        "judges",
        "Judges against people",
        (
            "Intervals are 95 %, from resampling videos, weighted to the whole population. Kappa "
            "falls when nearly all rows have one answer, AC1 does not: read both with the "
            "prevalence.",
        ),
        (
            _rates(("judge",), agreements),
            _sensitivity(judges, results.kind),
            _coefficients(("judge",), agreements),
            _confusions(agreements, results.kind),
        ),
    )


def people_section(results: AuditResults) -> Section | None:
    """The ceiling; None with one annotator or none."""
    ceiling = results.people.ceiling
    if ceiling is None:
        return None
    if not ceiling.num_rows:
        return Section(
            "people", "People among each other", ("No row was labelled by two of them.",)
        )
    pairs = [
        ((pair.first, pair.second), pair.agreement)
        for pair in results.people.pairs
        if pair.agreement.num_rows
    ]
    return Section(
        "people",
        "People among each other",
        (
            f"{count(ceiling.num_annotators, 'annotator')}, {count(ceiling.num_rows, 'row')} with "
            f"two labels or more: agreement {percent(ceiling.agreement)}, AC1 "
            f"{coefficient(ceiling.ac1)}, Krippendorff's alpha {coefficient(ceiling.alpha)}.",
        ),
        (
            _coefficients(("first", "second"), pairs),
            Table(
                ("judge", "agrees with one person, on the same rows"),
                tuple((judge.name, percent(judge.with_one_person)) for judge in results.judges),
            ),
        ),
    )


def between_judges_section(results: AuditResults) -> Section | None:
    """How judges agree with each other, and which is right more often; None with one judge."""
    if not results.pairs:
        return None
    sentences = [
        "Who is right more often is asked on the rows that both scored and people decided "
        "(difference: the first judge's agreement less the second's). The exact test takes rows as "
        "independent, the other one videos."
    ]
    if results.all_judges is not None:
        among = results.all_judges
        sentences.append(
            f"All {among.num_annotators} judges among each other: agreement "
            f"{percent(among.agreement)}, AC1 {coefficient(among.ac1)}, Krippendorff's alpha "
            f"{coefficient(among.alpha)}."
        )
    names = [((pair.first, pair.second), pair.agreement) for pair in results.pairs]
    rows = []
    for pair, (name, _) in zip(results.pairs, names, strict=True):
        seen = pair.comparison
        if seen.num_rows:
            rows.append(
                (
                    *name,
                    f"{seen.num_rows:,}",
                    f"{seen.only_first_right:,}",
                    f"{seen.only_second_right:,}",
                    points(seen.difference),
                    p_value(seen.exact_p),
                    p_value(seen.clustered_p),
                )
            )
    columns = (
        "first", "second", "rows", "only first right", "only second right", "difference",
        "McNemar, exact p", "p by video",
    )  # fmt: skip
    return Section(
        "pairs",
        "Judges among each other",
        tuple(sentences),
        (
            _coefficients(("first", "second"), names),
            Table(columns, tuple(rows), num_texts=2),
            _paired_sensitivity(results),
        ),
    )


def data_section(results: AuditResults) -> Section:
    """Wrong rows among kept and rejected ones, and prevalence corrected for the judge's errors."""
    found = results.consequences
    parts = [part for part in (found.kept, found.rejected, found.unscored) if part.population]
    tables = [
        Table(
            ("rows of the population", "all", "labelled", "wrong", "wrong rows", ""),
            tuple(_part_row(part, results.kind) for part in parts),
        )
    ]
    sentences: tuple[str, ...] = ()
    if found.prevalence is not None:
        corrected = found.prevalence
        sentences = (
            f"How much of what was judged is really {results.kind.yes}? The judge's own share of "
            "Yes is naive: false Yes and false No need not cancel. The corrections use its errors "
            "on the labelled rows.",
        )
        tables.append(
            Table(
                (f"share of {results.kind.yes} rows", "value (95 % interval)"),
                (
                    ("as the judge says (naive)", f"{100 * corrected.naive:.1f} %"),
                    ("corrected, Rogan-Gladen", percent(corrected.rogan_gladen)),
                    (
                        f"corrected, prediction-powered (its word counts {corrected.tuning:.2f})",
                        percent(corrected.prediction_powered),
                    ),
                    *_opposite(corrected, results.kind),
                ),
            )
        )
    return Section("data", "What its errors mean for the data", sentences, tuple(tables))


def labels_needed_section(results: AuditResults) -> Section | None:
    """How many labels an interval of a given width takes."""
    found = results.consequences.labels_needed
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
                        _statistic(one.statistic, results.kind),
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


def _rates(who: _Names, found: Sequence[tuple[_Names, Agreement]]) -> Table:
    return Table(
        (*who, "rows", "videos", "agreement", "precision", "recall", "F1"),
        tuple(
            (
                *name,
                f"{seen.num_rows:,}",
                f"{seen.num_videos:,}",
                *(percent(one) for one in (seen.agreement, seen.precision, seen.recall, seen.f1)),
            )
            for name, seen in found
        ),
    )


def _sensitivity(judges: Sequence[JudgeResults], kind: AuditKind) -> Table:
    """What a judge finds of each kind of row, and what that costs."""
    return Table(
        (
            "judge", f"sensitivity: yes among {kind.yes}", f"specificity: no among {kind.no}",
            "$ per 1,000", "calls per verdict",
        ),
        tuple(
            (
                one.name,
                percent(one.against_people.recall),
                percent(one.against_people.specificity),
                dollars(one.usd_per_1000),
                UNKNOWN if one.calls_per_verdict is None else f"{one.calls_per_verdict:.1f}",
            )
            for one in judges
        ),
    )  # fmt: skip


def _paired_sensitivity(results: AuditResults) -> Table:
    """Sensitivity and specificity of the first judge less the second's, on the same rows."""

    def cells(seen: Comparison) -> tuple[str, ...]:
        p = p_value(seen.exact_p) if seen.num_rows else UNKNOWN
        return f"{seen.num_rows:,}", points(seen.difference), p

    kind = results.kind
    return Table(
        (
            "first", "second", f"{kind.yes} rows", "sensitivity, difference", "exact p",
            f"{kind.no} rows", "specificity, difference", "exact p ",
        ),
        tuple(
            (pair.first, pair.second, *cells(pair.sensitivity), *cells(pair.specificity))
            for pair in results.pairs
            if pair.comparison.num_rows
        ),
        num_texts=2,
    )  # fmt: skip


def _coefficients(who: _Names, found: Sequence[tuple[_Names, Agreement]]) -> Table:
    whose = ("first's yes", "second's yes") if len(who) == 2 else ("its yes", "people's yes")
    return Table(
        (*who, "rows", "Cohen's kappa", "Gwet's AC1", "Krippendorff's alpha", *whose),
        tuple(
            (
                *name,
                f"{seen.num_rows:,}",
                *(coefficient(one) for one in (seen.kappa, seen.ac1, seen.alpha)),
                percent(seen.judged_yes),
                percent(seen.prevalence),
            )
            for name, seen in found
        ),
        num_texts=len(who),
    )


def _confusions(found: Sequence[tuple[_Names, Agreement]], kind: AuditKind) -> Table:
    """Rows as counted, and the share of the population that they stand for."""

    def cells(counted: Confusion, weighted: Confusion) -> tuple[str, ...]:
        total = sum(vars(weighted).values())
        return tuple(
            f"{vars(counted)[name]:,.0f} = {100 * vars(weighted)[name] / total:.1f} %"
            for name in ("yes_yes", "yes_no", "no_yes", "no_no")
        )

    return Table(
        (
            "confusion: rows = share of the population", f"yes, {kind.yes}", f"yes, {kind.no}",
            f"no, {kind.yes}", f"no, {kind.no}", "unscored", "no label",
        ),
        tuple(
            (
                *name,
                *cells(seen.rows, seen.weights),
                f"{seen.num_unscored:,}",
                f"{seen.num_unlabelled:,}",
            )
            for name, seen in found
        ),
    )  # fmt: skip


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
