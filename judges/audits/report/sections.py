"""The report in sentences and tables: what the screen and the page both show."""

from judges.audits.audit_kinds import AuditKind
from judges.audits.report.agreement_sections import (
    against_people_section,
    between_judges_section,
    data_section,
    labels_needed_section,
    people_section,
)
from judges.audits.report.number_format import (
    MIN_ROWS,
    TOO_FEW,
    UNKNOWN,
    Section,
    Table,
    coefficient,
    count,
    dollars,
    p_value,
    percent,
    points,
    seconds,
)
from judges.audits.report.results import AuditResults, JudgeResults
from judges.audits.run.leak_probes import probe_reasons

MAX_SLICES_SHOWN = 30


def sections_of(results: AuditResults) -> tuple[Section, ...]:
    """The whole report, most important first; what there is nothing to say about is left out."""
    found = (
        _summary(results),
        data_section(results),
        against_people_section(results),
        people_section(results),
        between_judges_section(results),
        _probes(results),
        _stability(results),
        _changes(results),
        _slices(results),
        _costs(results),
        labels_needed_section(results),
        _rows(results),
    )
    return tuple(one for one in found if one is not None)


def headline(judge: JudgeResults, kind: AuditKind) -> str:
    """What can be said of a judge in one sentence."""
    seen = judge.against_people
    rows = f"{count(seen.num_rows, 'labelled row')} of {count(seen.num_videos, 'video')}"
    if judge.is_too_few:
        return f"{judge.name}: {TOO_FEW} ({rows})."
    return (
        f"{judge.name} agrees with people on {percent(seen.agreement)} of rows ({rows}). "
        f"Of what it accepts, {percent(seen.kept_but_insufficient)} is {kind.no}; "
        f"of what it rejects, {percent(seen.rejected_but_sufficient)} was {kind.fine}."
    )


def _summary(results: AuditResults) -> Section:
    sentences = [headline(judge, results.kind) for judge in results.judges]
    ceiling = results.people.ceiling
    if ceiling is not None and ceiling.num_rows:
        sentences.append(
            f"People agree with each other on {percent(ceiling.agreement)} of "
            f"{count(ceiling.num_rows, 'row')} with two labels or more; a judge that agrees with "
            "one person as often is as good as a person (the table is below)."
        )
    return Section("summary", "Can this judge be trusted?", (*sentences, *results.notes))


def _probes(results: AuditResults) -> Section | None:
    if not results.probes:
        return None
    reasons = probe_reasons()
    return Section(
        "probes",
        "Leak probes: what share does each judge let through",
        (
            "Nothing can be deduced from these observations, so every Yes is a mistake.",
            *(
                f"{name}: {reasons[name]}"
                for name in dict.fromkeys(probe.probe for probe in results.probes)
                if name in reasons
            ),
        ),
        (
            Table(
                ("judge", "probe", "rows", "let through", "share", "unscored"),
                tuple(
                    (
                        probe.judge,
                        probe.probe,
                        f"{probe.num_rows:,}",
                        f"{probe.num_passed:,}",
                        percent(probe.passed),
                        f"{probe.num_unscored:,}",
                    )
                    for probe in sorted(results.probes, key=lambda one: (one.judge, one.probe))
                ),
                num_texts=2,
            ),
        ),
    )


def _stability(results: AuditResults) -> Section | None:
    if not results.stability:
        return None
    return Section(
        "stability",
        "Asked again: does it say the same",
        (),
        (
            Table(
                ("judge", "times", "rows", "changed", "the same each time", "alpha"),
                tuple(
                    (
                        one.judge,
                        f"{one.num_repeats}",
                        f"{one.num_rows:,}",
                        f"{one.num_changed:,}",
                        percent(one.unchanged),
                        coefficient(one.alpha),
                    )
                    for one in results.stability
                ),
            ),
        ),
    )


def _changes(results: AuditResults) -> Section | None:
    if not results.changes:
        return None
    return Section(
        "changes",
        "Asked in another way: other prompts, options rewritten",
        ("Difference: agreement with people of the usual way, less that of the other way.",),
        (
            Table(
                ("judge", "way", "rows", "other verdict", "agreement", "difference", "p"),
                tuple(
                    (
                        one.judge,
                        one.what,
                        f"{one.num_rows:,}",
                        percent(one.changed),
                        percent(one.against_people.agreement),
                        points(one.comparison.difference),
                        p_value(one.comparison.exact_p) if one.comparison.num_rows else UNKNOWN,
                    )
                    for one in results.changes
                ),
                num_texts=2,
            ),
        ),
    )


def _slices(results: AuditResults) -> Section | None:
    if not results.slices:
        return None
    shown = results.slices[:MAX_SLICES_SHOWN]
    sentences = [
        "The lowest agreement first. Among many slices the worst one looks worse than it is: trust "
        "an interval that stays below the judge's own agreement. A dash: fewer than "
        f"{MIN_ROWS} labelled rows have that verdict."
    ]
    if len(results.slices) > len(shown):
        sentences.append(
            f"{len(results.slices) - len(shown)} further slices are in report.json, those with too "
            "few labels among them."
        )
    return Section(
        "slices",
        "Where it errs: the worst slices first",
        tuple(sentences),
        (
            Table(
                (
                    "judge", "slice", "rows", "agreement", "AC1",
                    f"{results.kind.no} among {results.kind.kept}",
                    f"{results.kind.yes} among {results.kind.rejected}", "",
                ),
                tuple(
                    (
                        one.judge,
                        f"{one.kind}: {one.value}",
                        f"{one.num_rows:,}",
                        percent(one.agreement),
                        coefficient(one.ac1),
                        percent(one.kept_but_insufficient),
                        percent(one.rejected_but_sufficient),
                        TOO_FEW if one.is_too_few else "",
                    )
                    for one in shown
                ),
                num_texts=2,
            ),
        ),
    )  # fmt: skip


def _costs(results: AuditResults) -> Section:
    return Section(
        "costs",
        "Prompts, unscored replies, cost",
        (
            "Seconds are those of the calls, one after the other; many run at once. A verdict from "
            "the cache counts with what it took when it was paid for.",
        ),
        (
            Table(
                (
                    "judge", "prompt", "verdicts", "yes", "unscored", "reasons",
                    "$ per 1,000", "seconds per 1,000",
                ),
                tuple(
                    (
                        judge.name,
                        ", ".join(sorted(judge.prompt_ids)) or UNKNOWN,
                        f"{judge.num_asked:,}",
                        percent(judge.judged_yes),
                        percent(judge.unscored),
                        ", ".join(f"{why} {n}" for why, n in judge.unscored_reasons.items()),
                        dollars(judge.usd_per_1000),
                        seconds(judge.seconds_per_1000),
                    )
                    for judge in results.judges
                ),
                num_texts=2,
            ),
        ),
    )  # fmt: skip


def _rows(results: AuditResults) -> Section:
    rows = results.rows
    people = tuple(
        (
            one.name,
            *(f"{one.labels.get(word, 0):,}" for word in results.kind.labels),
            ", ".join(one.origins),
        )
        for one in rows.annotators
    )
    strata = tuple(
        (
            one.source_verdict,
            one.problem_type,
            one.data_source,
            str(one.population),
            str(one.sampled),
        )
        for one in rows.strata
    )
    return Section(
        "rows",
        "What was drawn and labelled",
        (
            f"{count(rows.num_rows, 'row')} of {count(rows.num_videos, 'video')} stand for "
            f"{rows.population:,} verdicts; {rows.num_labelled:,} are labelled, "
            f"{rows.num_reference:,} of them with a label that people agree on.",
        ),
        (
            Table(("annotator", *results.kind.labels, "from"), people),
            Table(
                ("verdict", "problem type", "data source", "population", "drawn"),
                strata,
                num_texts=3,
                screen_rows=0,
                what="strata",
            ),
        ),
    )
