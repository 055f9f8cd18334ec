"""All that a report says, as plain data: computed once, then shown on screen, page and pictures.

Statistics refer to the population that the sample stands for; intervals come from resampling
videos. A judge's unscored reply is never a No: such rows are counted, and left out of agreement.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from judges.audits.arrays import AuditRows, JudgeView, Resampling, judge_views, without_echoes
from judges.audits.audit_kinds import KINDS, SUFFICIENCY, AuditKind
from judges.audits.records import AuditLabel, AuditVerdict, Stratum
from judges.audits.report.data_impact import Consequences, consequences_of
from judges.audits.report.number_format import is_too_few
from judges.audits.report.robustness import (
    Change,
    Probe,
    Stability,
    changes_of,
    probes_of,
    stability_of,
)
from judges.audits.report.slices import SliceResults, slices_of
from judges.statistics.agreement import Agreement, Ceiling, agreement, human_ceiling
from judges.statistics.cluster_bootstrap import Booleans, Estimate, Floats, share
from judges.statistics.paired_comparison import Comparison, compare_judges


@dataclass(frozen=True)
class Annotator:
    """What one person (or the sandbox's truth) has labelled."""

    name: str
    labels: dict[str, int]
    origins: dict[str, int]


@dataclass(frozen=True)
class RowCounts:
    """What was drawn and labelled. `num_reference` rows have a label that people agree on."""

    num_rows: int
    num_videos: int
    population: int
    strata: tuple[Stratum, ...]
    annotators: tuple[Annotator, ...]
    num_labelled: int
    num_reference: int
    num_tied: int
    num_only_unsure: int


@dataclass(frozen=True)
class JudgeResults:
    """One judge, asked in one way, against people.

    `unscored` and `judged_yes` are over all rows it was asked, labelled or not. `with_one_person`
    is how often it says what one annotator says, on the rows with two labels or more: what people's
    agreement with each other can be held against. Dollars and seconds are per 1,000 verdicts, None
    where they are not known; seconds are those of its calls, one after the other.
    """

    name: str
    judge: str
    variant: str
    is_source: bool
    prompt_ids: dict[str, int]
    num_asked: int
    unscored: Estimate
    unscored_reasons: dict[str, int]
    judged_yes: Estimate
    against_people: Agreement
    with_one_person: Estimate
    is_too_few: bool
    usd_per_1000: float | None
    seconds_per_1000: float | None
    calls_per_verdict: float | None


@dataclass(frozen=True)
class Pair:
    """Two judges on the same rows: how they agree, and who agrees more with people.

    `sensitivity` and `specificity` are the comparison on the rows that people call Yes, and on
    those that they call No.
    """

    first: str
    second: str
    agreement: Agreement
    comparison: Comparison
    sensitivity: Comparison
    specificity: Comparison


@dataclass(frozen=True)
class PeoplePair:
    """Two annotators on the rows that both labelled."""

    first: str
    second: str
    agreement: Agreement


@dataclass(frozen=True)
class PeopleResults:
    """The ceiling: how well people agree with each other. None with fewer than two annotators."""

    ceiling: Ceiling | None
    pairs: tuple[PeoplePair, ...]


@dataclass(frozen=True)
class ReportSettings:
    """What decides the numbers besides the audit itself."""

    resamples: int = 2000
    seed: int = 0
    widths: tuple[float, ...] = (0.1,)


@dataclass(frozen=True)
class AuditResults:
    """The report. `all_judges` is the agreement of all judges among each other."""

    kind: AuditKind
    source: dict[str, Any]
    settings: ReportSettings
    rows: RowCounts
    people: PeopleResults
    judges: tuple[JudgeResults, ...]
    pairs: tuple[Pair, ...]
    all_judges: Ceiling | None
    consequences: Consequences
    probes: tuple[Probe, ...]
    stability: tuple[Stability, ...]
    changes: tuple[Change, ...]
    slices: tuple[SliceResults, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Numbers and texts only; what is not defined is null."""
        return report_json(self, self.kind)


def collect(
    rows: AuditRows,
    strata: Sequence[Stratum],
    labels: Sequence[AuditLabel],
    verdicts: Sequence[AuditVerdict],
    source: dict[str, Any],
    settings: ReportSettings,
) -> AuditResults:
    """Compute everything; nothing is read or written."""
    views = without_echoes(judge_views(rows.items, verdicts))
    given = Resampling(resamples=settings.resamples, seed=settings.seed)
    judges = tuple(_judge_results(view, rows, given) for view in views)
    people = _people_results(rows, given)
    kind = KINDS[source.get("kind", SUFFICIENCY.name)]
    row_counts = count_rows(rows, strata, labels, kind)
    return AuditResults(
        kind=kind,
        source=source,
        settings=settings,
        rows=row_counts,
        people=people,
        judges=judges,
        pairs=tuple(_pair(one, two, rows, given) for one, two in combinations(views, 2)),
        all_judges=(
            human_ceiling([view.said for view in views], rows.design, **given)
            if len(views) > 2
            else None
        ),
        consequences=consequences_of(
            views[0], judges[0].against_people, rows, strata, settings.widths, given
        ),
        probes=probes_of(verdicts, rows, given),
        stability=stability_of(verdicts, rows, given),
        changes=changes_of(verdicts, rows, given),
        slices=slices_of(views, rows, given),
        notes=(*kind.notes, *_notes(row_counts, people, judges)),
    )


def count_rows(
    rows: AuditRows, strata: Sequence[Stratum], labels: Sequence[AuditLabel], kind: AuditKind
) -> RowCounts:
    """What was drawn and labelled, by the words of the labels."""
    said: dict[str, list[str]] = {}
    for label in labels:
        said.setdefault(label.item_id, []).append(label.label or "")
    decided = {
        item_id: (words.count(kind.yes), words.count(kind.no)) for item_id, words in said.items()
    }
    return RowCounts(
        num_rows=len(rows.items),
        num_videos=len({item.video for item in rows.items}),
        population=sum(stratum.population for stratum in strata),
        strata=tuple(strata),
        annotators=tuple(
            Annotator(
                name,
                dict(Counter(label.label or "" for label in labels if label.annotator == name)),
                dict(Counter(label.origin for label in labels if label.annotator == name)),
            )
            for name in rows.annotators
        ),
        num_labelled=len(said),
        num_reference=sum(yes != no for yes, no in decided.values()),
        num_tied=sum(yes == no > 0 for yes, no in decided.values()),
        num_only_unsure=sum(yes == no == 0 for yes, no in decided.values()),
    )


def _judge_results(view: JudgeView, rows: AuditRows, given: Resampling) -> JudgeResults:
    asked = [verdict for verdict in view.verdicts if verdict is not None]
    reasons = Counter(verdict.unscored_reason for verdict in asked if verdict.verdict == "unscored")
    is_unscored = np.array(
        [
            math.nan if verdict is None else float(verdict.verdict == "unscored")
            for verdict in view.verdicts
        ]
    )
    against_people = agreement(view.said, rows.reference, rows.design, **given)
    return JudgeResults(
        name=view.name,
        judge=view.judge,
        variant=view.variant,
        is_source=view.is_source,
        prompt_ids=dict(view.prompt_ids),
        num_asked=len(asked),
        unscored=share_of_all(is_unscored, view, rows, given),
        unscored_reasons=dict(reasons),
        judged_yes=share_of_all(view.said, view, rows, given),
        against_people=against_people,
        with_one_person=share(_with_one_person(view, rows), rows.design, **given),
        is_too_few=is_too_few(against_people.num_rows, against_people.num_videos),
        usd_per_1000=per_1000([verdict.cost_usd for verdict in asked]),
        seconds_per_1000=per_1000([verdict.seconds for verdict in asked]),
        calls_per_verdict=calls_per_verdict(asked),
    )


def calls_per_verdict(asked: Sequence[AuditVerdict]) -> float | None:
    """Requests, retries of unreadable replies included; None where none was made here."""
    counts = [len(verdict.call_keys) for verdict in asked if verdict.call_keys]
    return sum(counts) / len(counts) if counts else None


def share_of_all(hits: Floats, view: JudgeView, rows: AuditRows, given: Resampling) -> Estimate:
    """A share of what a judge said; of the judge that made the data it is known without error."""
    found = share(hits, rows.design, **given)
    return Estimate(found.value, found.value, found.value) if view.is_source else found


def _with_one_person(view: JudgeView, rows: AuditRows) -> Floats:
    """The share of a row's annotators that said what the judge says; NaN with fewer than two."""
    num_labels = (~np.isnan(rows.labels)).sum(axis=0)
    matches = (rows.labels == view.said).sum(axis=0)
    is_comparable = (num_labels >= 2) & ~np.isnan(view.said)
    return np.where(is_comparable, matches / np.maximum(num_labels, 1), np.nan)


def _pair(one: JudgeView, two: JudgeView, rows: AuditRows, given: Resampling) -> Pair:
    people = rows.reference

    def compared(among: Booleans | None = None) -> Comparison:
        return compare_judges(one.said, two.said, people, rows.design, among=among, **given)

    return Pair(
        one.name,
        two.name,
        agreement(one.said, two.said, rows.design, **given),
        compared(),
        sensitivity=compared(people == 1),
        specificity=compared(people == 0),
    )


def _people_results(rows: AuditRows, given: Resampling) -> PeopleResults:
    if len(rows.annotators) < 2:
        return PeopleResults(None, ())
    return PeopleResults(
        human_ceiling(rows.labels, rows.design, **given),
        tuple(
            PeoplePair(
                one, two, agreement(rows.said_by(one), rows.said_by(two), rows.design, **given)
            )
            for one, two in combinations(rows.annotators, 2)
        ),
    )


def _notes(
    rows: RowCounts, people: PeopleResults, judges: Sequence[JudgeResults]
) -> tuple[str, ...]:
    """What a reader must know before quoting a number."""
    notes = []
    if not rows.num_labelled:
        notes.append(
            "No row is labelled yet, so nothing is known about any judge's errors: "
            "label some with `judges.audit label`."
        )
    elif rows.num_labelled < rows.num_rows:
        notes.append(
            f"{rows.num_rows - rows.num_labelled} of {rows.num_rows} rows have no label. The "
            "labelled ones stand for them, which is right while rows are labelled in the order of "
            "the page and not by choice."
        )
    undecided = rows.num_tied + rows.num_only_unsure
    if undecided:
        notes.append(
            f"{undecided} labelled rows have no label to compare with ({rows.num_tied} ties "
            f"between people, {rows.num_only_unsure} unsure only). They are left out of agreement; "
            "being the hard ones, they would lower it."
        )
    if rows.num_labelled and people.ceiling is None:
        notes.append(
            "One annotator only: how well people would agree with each other is not known, so "
            "there is no ceiling to hold a judge against."
        )
    for judge in judges:
        if len(judge.prompt_ids) > 1:
            notes.append(
                f"The verdicts of {judge.name} come from {len(judge.prompt_ids)} prompts "
                f"({', '.join(sorted(judge.prompt_ids))}): its numbers mix them."
            )
        if judge.num_asked < rows.num_rows:
            notes.append(f"{judge.name} was asked about {judge.num_asked} of {rows.num_rows} rows.")
    return tuple(notes)


def per_1000(values: Sequence[float | None]) -> float | None:
    """A thousand times the mean; None where a value is not known."""
    known = [value for value in values if value is not None]
    return 1000 * sum(known) / len(known) if known and len(known) == len(values) else None


def report_json(results: Any, kind: AuditKind) -> dict[str, Any]:
    """The results of an audit of this kind as plain JSON, with the words of its labels."""
    plain = {name: _plain(value) for name, value in asdict(results).items()}
    return plain | {"kind": kind.name, "labels": list(kind.labels)}


def _plain(value: Any) -> Any:
    """Dicts, lists, texts and numbers; what is not finite is None."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
