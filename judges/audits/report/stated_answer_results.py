"""What an audit of answer extraction says: each reader of replies compared with people's answers.

A reader is right where it gives the answer that people give, or finds none where they find none. A
reply of an extractor that could not be read is left out and counted, as everywhere. Statistics
refer to the replies that the sample stands for; intervals come from resampling videos.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from judges.audits.arrays import AuditRows, Resampling
from judges.audits.records import IN_THE_DATA, AuditItem, AuditLabel, AuditVerdict, Stratum
from judges.audits.report.number_format import is_too_few
from judges.audits.report.replies_read import (
    KIND,
    Reader,
    Stated,
    is_right,
    people_of,
    readers_of,
    said_by,
    stated,
)
from judges.audits.report.results import (
    ReportSettings,
    RowCounts,
    calls_per_verdict,
    count_rows,
    per_1000,
    report_json,
)
from judges.statistics.cluster_bootstrap import Booleans, Estimate, Floats, share
from judges.statistics.paired_comparison import Comparison, compare_judges


@dataclass(frozen=True)
class ReaderResults:
    """One reader against people. `found` is the share of stated answers that it reads as people do
    (sensitivity), `left_alone` that of replies without one that it reads as such (specificity),
    `precision` that of the answers it gives that are people's.
    """

    name: str
    is_source: bool
    prompt_ids: dict[str, int]
    num_asked: int
    num_unscored: int
    unscored_reasons: dict[str, int]
    num_rows: int
    num_videos: int
    is_too_few: bool
    same_answer: int
    other_answer: int
    missed_answer: int
    invented_answer: int
    both_none: int
    agreement: Estimate
    found: Estimate
    left_alone: Estimate
    precision: Estimate
    usd_per_1000: float | None
    calls_per_reply: float | None


@dataclass(frozen=True)
class ReaderPair:
    """Two readers on the rows that both read: all of them, those with an answer, those without."""

    first: str
    second: str
    comparison: Comparison
    found: Comparison
    left_alone: Comparison


@dataclass(frozen=True)
class PeoplePair:
    """Two annotators on the rows that both decided."""

    first: str
    second: str
    num_rows: int
    agreement: Estimate


@dataclass(frozen=True)
class ReaderSlice:
    """One reader on the replies to a kind of question, or on those that rules did (not) read."""

    kind: str
    value: str
    reader: str
    num_rows: int
    num_videos: int
    is_too_few: bool
    agreement: Estimate


@dataclass(frozen=True)
class Repeated:
    """A reader that was asked several times: the share of rows with one answer each time."""

    reader: str
    num_repeats: int
    num_rows: int
    unchanged: Estimate


@dataclass(frozen=True)
class AnswerResults:
    """The report of an audit of answer extraction."""

    source: dict[str, Any]
    settings: ReportSettings
    rows: RowCounts
    readers: tuple[ReaderResults, ...]
    pairs: tuple[ReaderPair, ...]
    people: tuple[PeoplePair, ...]
    slices: tuple[ReaderSlice, ...]
    repeated: tuple[Repeated, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Numbers and texts only; what is not defined is null."""
        return report_json(self, KIND)


def collect_answers(
    rows: AuditRows,
    strata: Sequence[Stratum],
    labels: Sequence[AuditLabel],
    verdicts: Sequence[AuditVerdict],
    source: dict[str, Any],
    settings: ReportSettings,
) -> AnswerResults:
    """Compute everything; nothing is read or written."""
    given = Resampling(resamples=settings.resamples, seed=settings.seed)
    readers = readers_of(rows.items, verdicts)
    people = people_of(rows)
    right = {reader.name: _right(rows, reader, people) for reader in readers}
    counts = _counts(rows, strata, labels, people)
    found = tuple(_results(one, right[one.name], rows, people, given) for one in readers)
    return AnswerResults(
        source=source,
        settings=settings,
        rows=counts,
        readers=found,
        pairs=tuple(
            _pair(one.name, two.name, right, rows, people, given)
            for one, two in combinations(readers, 2)
        ),
        people=_people_pairs(rows, given),
        slices=_slices(readers, right, rows, given),
        repeated=_repeated(verdicts, rows, given),
        notes=_notes(counts, found),
    )


def _right(rows: AuditRows, reader: Reader, people: Sequence[Stated | None]) -> Floats:
    """1 where a reader is right, 0 where it is not, NaN where one of the two says nothing."""
    return np.array(
        [
            np.nan if said is None or true is None else float(is_right(item, said, true))
            for item, said, true in zip(rows.items, reader.said, people, strict=True)
        ]
    )


def _has_answer(said: Sequence[Stated | None]) -> Booleans:
    return np.array([one is not None and one.answer is not None for one in said], dtype=np.bool_)


def _results(
    reader: Reader,
    right: Floats,
    rows: AuditRows,
    people: Sequence[Stated | None],
    given: Resampling,
) -> ReaderResults:
    asked = [verdict for verdict in reader.verdicts if verdict is not None]
    unscored = [one.unscored_reason for one in asked if one.verdict == "unscored"]
    is_stated, reads = _has_answer(people), _has_answer(reader.said)
    is_used = ~np.isnan(right)

    def of(among: Booleans) -> Estimate:
        return share(right, rows.design, among=among, **given)

    num_rows, num_videos = int(is_used.sum()), len(np.unique(rows.design.videos[is_used]))
    return ReaderResults(
        name=reader.name,
        is_source=reader.is_source,
        prompt_ids=dict(Counter(one.prompt_id for one in asked if one.prompt_id)),
        num_asked=len(asked),
        num_unscored=len(unscored),
        unscored_reasons=dict(Counter(unscored)),
        num_rows=num_rows,
        num_videos=num_videos,
        is_too_few=is_too_few(num_rows, num_videos),
        same_answer=int((is_used & is_stated & (right == 1)).sum()),
        other_answer=int((is_used & is_stated & reads & (right == 0)).sum()),
        missed_answer=int((is_used & is_stated & ~reads).sum()),
        invented_answer=int((is_used & ~is_stated & reads).sum()),
        both_none=int((is_used & ~is_stated & ~reads).sum()),
        agreement=of(is_used),
        found=of(is_stated),
        left_alone=of(~is_stated),
        precision=of(reads),
        usd_per_1000=None if reader.is_source else per_1000([one.cost_usd for one in asked]),
        calls_per_reply=calls_per_verdict(asked),
    )


def _pair(
    first: str,
    second: str,
    right: dict[str, Floats],
    rows: AuditRows,
    people: Sequence[Stated | None],
    given: Resampling,
) -> ReaderPair:
    is_stated = _has_answer(people)

    def compared(among: Booleans | None = None) -> Comparison:
        # Correctness against a column of ones: who is right more often.
        ones = np.ones(len(rows.items))
        return compare_judges(right[first], right[second], ones, rows.design, among=among, **given)

    return ReaderPair(
        first,
        second,
        compared(),
        found=compared(is_stated),
        left_alone=compared(~is_stated),
    )


def _people_pairs(rows: AuditRows, given: Resampling) -> tuple[PeoplePair, ...]:
    pairs = []
    for one, two in combinations(rows.annotators, 2):
        same = np.array([_is_same(rows, item, one, two) for item in rows.items])
        num_rows = int((~np.isnan(same)).sum())
        pairs.append(PeoplePair(one, two, num_rows, share(same, rows.design, **given)))
    return tuple(pairs)


def _is_same(rows: AuditRows, item: AuditItem, one: str, two: str) -> float:
    first, second = (stated(rows.given.get((item.item_id, name))) for name in (one, two))
    if first is None or second is None:
        return np.nan
    return float(is_right(item, second, first))


def _slices(
    readers: Sequence[Reader], right: dict[str, Floats], rows: AuditRows, given: Resampling
) -> tuple[ReaderSlice, ...]:
    """Kinds of questions, and who read the reply: the lowest agreement first."""
    was_read = {"reply": [_who_read(item) for item in rows.items]}
    named = was_read | {
        "problem type": [item.question.problem_type.value for item in rows.items],
        "data source": [item.question.data_source or "(not named)" for item in rows.items],
    }
    found = []
    for kind, values in named.items():
        if len(set(values)) < 2:
            continue
        for value in sorted(set(values)):
            chosen = np.array([one == value for one in values], dtype=np.bool_)
            design = rows.design.subset(chosen)
            for reader in readers:
                hits = right[reader.name][chosen]
                is_used = ~np.isnan(hits)
                num_rows = int(is_used.sum())
                num_videos = len(np.unique(design.videos[is_used]))
                if num_rows:
                    too_few = is_too_few(num_rows, num_videos)
                    estimate = share(hits, design, **given)
                    found.append(
                        ReaderSlice(
                            kind, value, reader.name, num_rows, num_videos, too_few, estimate
                        )
                    )
    return tuple(sorted(found, key=lambda one: (one.is_too_few, one.agreement.value)))


def _who_read(item: AuditItem) -> str:
    """Whether rules read the reply, as the stratum has it."""
    return "read by rules" if item.stratum.endswith("read by rules") else "extractor asked"


def _repeated(
    verdicts: Sequence[AuditVerdict], rows: AuditRows, given: Resampling
) -> tuple[Repeated, ...]:
    by_reader: dict[str, dict[int, dict[str, AuditVerdict]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for verdict in verdicts:
        if verdict.variant != IN_THE_DATA:
            by_reader[verdict.judge][verdict.repeat][verdict.item_id] = verdict
    found = []
    for reader, by_repeat in sorted(by_reader.items()):
        if len(by_repeat) < 2:
            continue
        same = np.array([_is_one_answer(item, by_repeat) for item in rows.items])
        num_rows = int((~np.isnan(same)).sum())
        unchanged = share(same, rows.design, **given)
        found.append(Repeated(reader, len(by_repeat), num_rows, unchanged))
    return tuple(found)


def _is_one_answer(item: AuditItem, by_repeat: dict[int, dict[str, AuditVerdict]]) -> float:
    asked = [said_by(item, one[item.item_id]) for one in by_repeat.values() if item.item_id in one]
    if len(asked) < 2:
        return np.nan
    first, *others = asked
    return float(
        all(
            other is first if first is None or other is None else is_right(item, other, first)
            for other in others
        )
    )


def _counts(
    rows: AuditRows,
    strata: Sequence[Stratum],
    labels: Sequence[AuditLabel],
    people: Sequence[Stated | None],
) -> RowCounts:
    counts = count_rows(rows, strata, labels, KIND)
    num_reference = sum(one is not None for one in people)
    num_tied = counts.num_labelled - num_reference - counts.num_only_unsure
    return replace(counts, num_reference=num_reference, num_tied=num_tied)


def _notes(rows: RowCounts, readers: Sequence[ReaderResults]) -> tuple[str, ...]:
    """What a reader of the report must know before quoting a number."""
    notes = []
    if not rows.num_labelled:
        notes.append(
            "No reply is labelled yet, so nothing is known about any reader's errors: label some "
            "with `judges.audit label`."
        )
    elif rows.num_labelled < rows.num_rows:
        notes.append(
            f"{rows.num_rows - rows.num_labelled} of {rows.num_rows} replies have no label. The "
            "labelled ones stand for them, which is right while rows are labelled in the order of "
            "the page and not by choice."
        )
    if undecided := rows.num_tied + rows.num_only_unsure:
        notes.append(
            f"{undecided} labelled replies have no answer to compare with ({rows.num_tied} on "
            f"which people differ, {rows.num_only_unsure} unsure only). They are left out."
        )
    if rows.num_labelled and len(rows.annotators) < 2:
        notes.append(
            "One annotator only: how well people would agree with each other is not known, so "
            "there is no ceiling to hold a reader against."
        )
    for reader in readers:
        if len(reader.prompt_ids) > 1:
            notes.append(
                f"What {reader.name} says comes from {len(reader.prompt_ids)} prompts "
                f"({', '.join(sorted(reader.prompt_ids))}): its numbers mix them."
            )
        if reader.num_asked < rows.num_rows:
            notes.append(
                f"{reader.name} was asked about {reader.num_asked} of {rows.num_rows} replies."
            )
    return tuple(notes)
