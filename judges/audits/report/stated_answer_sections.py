"""The report of an audit of answer extraction in sentences, tables and rows to look at."""

from collections.abc import Sequence

from judges.audits.arrays import AuditRows
from judges.audits.records import AuditItem, AuditVerdict
from judges.audits.report.disagreements import KINDS, Card, Kind, Mark, Said
from judges.audits.report.number_format import (
    TOO_FEW,
    UNKNOWN,
    Section,
    Table,
    count,
    dollars,
    p_value,
    percent,
    points,
)
from judges.audits.report.replies_read import (
    Reader,
    Stated,
    is_right,
    people_of,
    readers_of,
    said_by,
)
from judges.audits.report.stated_answer_results import AnswerResults, ReaderResults
from judges.statistics.paired_comparison import Comparison

MAX_SLICES_SHOWN = 30


def answer_sections(results: AnswerResults) -> tuple[Section, ...]:
    """The whole report, most important first; what there is nothing to say about is left out."""
    found = (
        _summary(results),
        _against_people(results),
        _people(results),
        _pairs(results),
        _repeated(results),
        _slices(results),
        _rows(results),
    )
    return tuple(one for one in found if one is not None)


def answer_cards(rows: AuditRows, verdicts: Sequence[AuditVerdict]) -> tuple[Card, ...]:
    """The replies on which readers or people disagree, the gravest kind first."""
    readers, people = readers_of(rows.items, verdicts), people_of(rows)
    cards = [
        _card(place, item, rows, readers, people[place], verdicts)
        for place, item in enumerate(rows.items)
    ]
    gravity = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(
        sorted(
            (card for card in cards if card.marks),
            key=lambda card: (
                min(gravity[mark.kind] for mark in card.marks),
                -card.item.weight,
                card.item.position,
            ),
        )
    )


def _summary(results: AnswerResults) -> Section:
    return Section(
        "summary",
        "Can what was read from replies be trusted?",
        (*(_headline(reader) for reader in results.readers), *results.notes),
    )


def _headline(reader: ReaderResults) -> str:
    rows = f"{count(reader.num_rows, 'labelled row')} of {count(reader.num_videos, 'video')}"
    if reader.is_too_few:
        return f"{reader.name}: {TOO_FEW} ({rows})."
    return (
        f"{reader.name} agrees with people on {percent(reader.agreement)} of replies ({rows}). Of "
        f"the answers that it gives, {percent(reader.precision)} are those that people read."
    )


def _against_people(results: AnswerResults) -> Section | None:
    readers = [reader for reader in results.readers if reader.num_rows]
    if not readers:
        return None
    rates = Table(
        (
            "reader", "rows", "agreement", "sensitivity: answers read as people do",
            "specificity: none where there is none", "precision", "$ per 1,000", "calls per reply",
        ),
        tuple(
            (
                one.name,
                f"{one.num_rows:,}",
                *(percent(rate) for rate in (one.agreement, one.found, one.left_alone)),
                percent(one.precision),
                dollars(one.usd_per_1000),
                UNKNOWN if one.calls_per_reply is None else f"{one.calls_per_reply:.1f}",
            )
            for one in readers
        ),
    )  # fmt: skip
    counts = Table(
        (
            "rows as counted", "same answer", "another answer", "missed", "invented",
            "none, as people", "unscored", "reasons",
        ),
        tuple(
            (
                one.name,
                *(
                    f"{number:,}"
                    for number in (
                        one.same_answer,
                        one.other_answer,
                        one.missed_answer,
                        one.invented_answer,
                        one.both_none,
                        one.num_unscored,
                    )
                ),
                ", ".join(f"{why} {number}" for why, number in one.unscored_reasons.items()),
            )
            for one in readers
        ),
    )  # fmt: skip
    return Section(
        "readers",
        "Readers of replies against people",
        (
            "Intervals are 95 %, from resampling videos, weighted to all replies of the "
            "evaluation. Two answers are the same where they name one option, one number (two "
            "decimals) or the same times (a tenth of a second); texts where the words are, or "
            "where the task's metric takes one for the other.",
        ),
        (rates, counts),
    )


def _people(results: AnswerResults) -> Section | None:
    if not results.people:
        return None
    return Section(
        "people",
        "People among each other",
        (),
        (
            Table(
                ("first", "second", "rows", "the same answer"),
                tuple(
                    (pair.first, pair.second, f"{pair.num_rows:,}", percent(pair.agreement))
                    for pair in results.people
                ),
                num_texts=2,
            ),
        ),
    )


def _pairs(results: AnswerResults) -> Section | None:
    pairs = [pair for pair in results.pairs if pair.comparison.num_rows]
    if not pairs:
        return None

    def cells(seen: Comparison) -> tuple[str, ...]:
        return points(seen.difference), p_value(seen.exact_p) if seen.num_rows else UNKNOWN

    return Section(
        "pairs",
        "Readers among each other",
        ("Difference: the first reader's share less the second's, on the rows that both read.",),
        (
            Table(
                (
                    "first", "second", "rows", "agreement, difference", "exact p",
                    "sensitivity, difference", "exact p ", "specificity, difference", " exact p",
                ),
                tuple(
                    (
                        pair.first,
                        pair.second,
                        f"{pair.comparison.num_rows:,}",
                        *cells(pair.comparison),
                        *cells(pair.found),
                        *cells(pair.left_alone),
                    )
                    for pair in pairs
                ),
                num_texts=2,
            ),
        ),
    )  # fmt: skip


def _repeated(results: AnswerResults) -> Section | None:
    if not results.repeated:
        return None
    return Section(
        "stability",
        "Asked again: does it say the same",
        (),
        (
            Table(
                ("reader", "times", "rows", "the same each time"),
                tuple(
                    (one.reader, f"{one.num_repeats}", f"{one.num_rows:,}", percent(one.unchanged))
                    for one in results.repeated
                ),
            ),
        ),
    )


def _slices(results: AnswerResults) -> Section | None:
    if not results.slices:
        return None
    return Section(
        "slices",
        "Where they err: the worst slices first",
        ("Among many slices the worst one looks worse than it is.",),
        (
            Table(
                ("reader", "slice", "rows", "agreement", ""),
                tuple(
                    (
                        one.reader,
                        f"{one.kind}: {one.value}",
                        f"{one.num_rows:,}",
                        percent(one.agreement),
                        TOO_FEW if one.is_too_few else "",
                    )
                    for one in results.slices[:MAX_SLICES_SHOWN]
                ),
                num_texts=2,
            ),
        ),
    )


def _rows(results: AnswerResults) -> Section:
    rows = results.rows
    words = ("stated", "none", "unsure")
    return Section(
        "rows",
        "What was drawn and labelled",
        (
            f"{count(rows.num_rows, 'row')} of {count(rows.num_videos, 'video')} stand for "
            f"{rows.population:,} replies; {rows.num_labelled:,} are labelled, "
            f"{rows.num_reference:,} of them with an answer, or none, that people agree on.",
        ),
        (
            Table(
                ("annotator", *words, "from"),
                tuple(
                    (
                        one.name,
                        *(f"{one.labels.get(word, 0):,}" for word in words),
                        ", ".join(one.origins),
                    )
                    for one in rows.annotators
                ),
            ),
            Table(
                ("read", "problem type", "data source", "population", "drawn"),
                tuple(
                    (
                        one.source_verdict,
                        one.problem_type,
                        one.data_source,
                        f"{one.population:,}",
                        f"{one.sampled:,}",
                    )
                    for one in rows.strata
                ),
                num_texts=3,
            ),
        ),
    )


def _card(
    place: int,
    item: AuditItem,
    rows: AuditRows,
    readers: Sequence[Reader],
    people: Stated | None,
    verdicts: Sequence[AuditVerdict],
) -> Card:
    labels = tuple(
        label for name in rows.annotators if (label := rows.given.get((item.item_id, name)))
    )
    marks: list[Mark] = []
    if people is None and labels:
        marks.append(Mark("", "unsure" if len(labels) == 1 else "people"))
    said = []
    for reader in readers:
        verdict = reader.verdicts[place]
        if verdict is None:
            continue
        said.append(Said(reader.name, "", verdict))
        kind = _disagreement(item, reader.said[place], people)
        if kind is not None:
            marks.append(Mark(reader.name, kind))
    others = []
    for verdict in verdicts:
        if verdict.item_id == item.item_id and verdict.repeat:
            first = next(one for one in readers if one.name == verdict.judge).said[place]
            again = said_by(item, verdict)
            if first is None or again is None:
                is_changed = first is not again
            else:
                is_changed = not is_right(item, again, first)
            if is_changed:
                marks.append(Mark(verdict.judge, "again"))
                others.append(Said(verdict.judge, f"asked again ({verdict.repeat + 1})", verdict))
    return Card(item, tuple(dict.fromkeys(marks)), labels, tuple(said), tuple(others))


def _disagreement(item: AuditItem, said: Stated | None, people: Stated | None) -> Kind | None:
    if said is None:
        return "unscored"
    if people is None or is_right(item, said, people):
        return None
    if said.answer is None:
        return "missed-answer"
    return "invented-answer" if people.answer is None else "other-answer"
