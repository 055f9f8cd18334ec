"""What each reader of replies says of each row, and what people say: an answer, or none."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from judges.answer_extraction import parse_extracted
from judges.audits.arrays import AuditRows
from judges.audits.audit_kinds import ANSWER_EXTRACTION
from judges.audits.records import IN_THE_DATA, AuditItem, AuditLabel, AuditVerdict
from judges.audits.stated_answers import is_same_answer, most_given

KIND = ANSWER_EXTRACTION
_FIRST = 0


@dataclass(frozen=True)
class Stated:
    """What somebody says of a reply: its answer, or None where it states none."""

    answer: str | None


@dataclass(frozen=True, eq=False)
class Reader:
    """One reader over all rows: its verdicts, and what each says; None where it was not asked, or
    its reply could not be read.
    """

    name: str
    is_source: bool
    verdicts: tuple[AuditVerdict | None, ...]
    said: tuple[Stated | None, ...]


def readers_of(items: Sequence[AuditItem], verdicts: Sequence[AuditVerdict]) -> tuple[Reader, ...]:
    """The evaluation's reading first, then its rules, then every extractor that the audit asked."""
    asked: dict[tuple[bool, str], dict[str, AuditVerdict]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.repeat == _FIRST:
            asked[verdict.variant != IN_THE_DATA, verdict.judge][verdict.item_id] = verdict
    sources = {item.source_judge for item in items}
    ordered = sorted(asked, key=lambda key: (key[0], key[1] not in sources, key[1]))
    return tuple(
        _reader(name, items, asked[is_asked_here, name], is_source=not is_asked_here)
        for is_asked_here, name in ordered
    )


def people_of(rows: AuditRows) -> tuple[Stated | None, ...]:
    """What most people say of each row; None where nobody decided or as many say another thing."""
    found = []
    for item in rows.items:
        given = [stated(rows.given.get((item.item_id, name))) for name in rows.annotators]
        most = most_given(item.question, [one.answer for one in given if one is not None])
        found.append(None if most is None else Stated(most[0]))
    return tuple(found)


def is_right(item: AuditItem, said: Stated, people: Stated) -> bool:
    """Whether both are one answer, or none."""
    if said.answer is None or people.answer is None:
        return said.answer is people.answer
    return is_same_answer(item.question, people.answer, said.answer)


def _reader(
    name: str, items: Sequence[AuditItem], by_item: dict[str, AuditVerdict], *, is_source: bool
) -> Reader:
    verdicts = tuple(by_item.get(item.item_id) for item in items)
    said = tuple(
        None if verdict is None else said_by(item, verdict)
        for item, verdict in zip(items, verdicts, strict=True)
    )
    shown = f"{name} ({IN_THE_DATA})" if is_source else name
    return Reader(shown, is_source, verdicts, said)


def said_by(item: AuditItem, verdict: AuditVerdict) -> Stated | None:
    """What a verdict says; an extractor's own reply is read as the evaluation reads it."""
    if verdict.verdict == "unscored":
        return None
    if verdict.verdict == "no":
        return Stated(None)
    if verdict.variant == IN_THE_DATA:
        return Stated(verdict.reply)
    return Stated(parse_extracted(verdict.reply, item.question).answer)


def stated(label: AuditLabel | None) -> Stated | None:
    """What a label says; None where it decides nothing."""
    if label is None or label.label not in (KIND.yes, KIND.no):
        return None
    return Stated(label.reason if label.label == KIND.yes else None)
