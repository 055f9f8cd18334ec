"""Every row on which judges or people disagree, with all its verdicts and labels."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from judges.audits.arrays import AS_PUBLISHED, FIRST, AuditRows, JudgeView, view_name
from judges.audits.audit_kinds import AuditKind
from judges.audits.records import REAL, AuditItem, AuditLabel, AuditVerdict
from judges.statistics.cluster_bootstrap import Floats

Kind = Literal[
    "false-yes",
    "false-no",
    "other-answer",
    "missed-answer",
    "invented-answer",
    "unscored",
    "judges",
    "again",
    "otherwise",
    "people",
    "unsure",
]

# In this order of gravity; {yes} and {no} are the words of the audit's kind.
KINDS: dict[Kind, str] = {
    "false-yes": "accepted, but people say {no}",
    "false-no": "rejected, but people say {yes}",
    "other-answer": "another answer than people's",
    "missed-answer": "no answer, but people see one",
    "invented-answer": "an answer, but people see none",
    "unscored": "no verdict could be read",
    "judges": "judges differ",
    "again": "another word when asked again",
    "otherwise": "another word when asked in another way",
    "people": "people differ",
    "unsure": "people are unsure",
}


def kind_words(kind: AuditKind) -> dict[Kind, str]:
    """What each disagreement is called in an audit of this kind, the gravest first."""
    return {name: words.format(yes=kind.yes, no=kind.no) for name, words in KINDS.items()}


@dataclass(frozen=True)
class Mark:
    """One disagreement on a row; `judge` is "" where it is between people."""

    judge: str
    kind: Kind


@dataclass(frozen=True)
class Said:
    """A verdict as the page shows it: the judge, the kind of request, the verdict."""

    judge: str
    how: str
    verdict: AuditVerdict


@dataclass(frozen=True)
class Card:
    """One row to look at. `others` are the notable verdicts of other kinds of request, probes that
    were let through among them; these alone make no disagreement, for they have a section."""

    item: AuditItem
    marks: tuple[Mark, ...]
    labels: tuple[AuditLabel, ...]
    said: tuple[Said, ...]
    others: tuple[Said, ...]


def cards_of(
    rows: AuditRows, views: Sequence[JudgeView], verdicts: Sequence[AuditVerdict]
) -> tuple[Card, ...]:
    """The rows with a disagreement, the gravest kind first.

    Within a kind the errors of the judge that made the data come before those of others, then what
    stands for most rows.
    """
    further: dict[str, list[AuditVerdict]] = defaultdict(list)
    for verdict in verdicts:
        if (verdict.probe, verdict.permutation, verdict.repeat) != (REAL, AS_PUBLISHED, FIRST):
            further[verdict.item_id].append(verdict)
    cards = [_card(row, rows, views, further[item.item_id]) for row, item in enumerate(rows.items)]
    gravity = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(
        sorted(
            (card for card in cards if card.marks),
            key=lambda card: (
                min((gravity[mark.kind], mark.judge != views[0].name) for mark in card.marks),
                -card.item.weight,
                card.item.position,
            ),
        )
    )


def _card(
    row: int, rows: AuditRows, views: Sequence[JudgeView], further: Sequence[AuditVerdict]
) -> Card:
    item = rows.items[row]
    labels = [rows.given.get((item.item_id, name)) for name in rows.annotators]
    marks = _marks_of_people(rows.labels[:, row], [label for label in labels if label])
    usual: dict[str, AuditVerdict] = {}
    shown_as = {view_name(view.judge, view.variant): view.name for view in views}
    said = []
    for view in views:
        verdict = view.verdicts[row]
        if verdict is None:
            continue
        usual[view.name] = verdict
        said.append(Said(view.name, "", verdict))
        marks += _marks_against_people(view.name, verdict, float(rows.reference[row]))
    words = {verdict.verdict for verdict in usual.values()} & {"yes", "no"}
    if len(words) > 1:
        marks += [Mark(name, "judges") for name, one in usual.items() if one.verdict != "unscored"]
    others = []
    for verdict in further:
        name = view_name(verdict.judge, verdict.variant)
        name = shown_as.get(name, name)
        if verdict.probe != REAL:
            if verdict.verdict == "yes":
                others.append(Said(name, _how(verdict), verdict))
            continue
        kind = _further_kind(verdict, usual.get(name))
        if kind is not None:
            marks.append(Mark(name, kind))
            others.append(Said(name, _how(verdict), verdict))
    return Card(
        item=item,
        marks=tuple(dict.fromkeys(marks)),
        labels=tuple(label for label in labels if label is not None),
        said=tuple(said),
        others=tuple(others),
    )


def _marks_of_people(said: Floats, labels: Sequence[AuditLabel]) -> list[Mark]:
    decided = {float(word) for word in said[~np.isnan(said)]}
    if len(decided) > 1:
        return [Mark("", "people")]
    return [Mark("", "unsure")] if any(label.label == "unsure" for label in labels) else []


def _marks_against_people(name: str, verdict: AuditVerdict, reference: float) -> list[Mark]:
    if verdict.verdict == "unscored":
        return [Mark(name, "unscored")]
    if verdict.verdict == "yes" and reference == 0:
        return [Mark(name, "false-yes")]
    if verdict.verdict == "no" and reference == 1:
        return [Mark(name, "false-no")]
    return []


def _further_kind(verdict: AuditVerdict, usual: AuditVerdict | None) -> Kind | None:
    if usual is None or verdict.verdict == usual.verdict:
        return None
    return "again" if verdict.permutation == AS_PUBLISHED else "otherwise"


def _how(verdict: AuditVerdict) -> str:
    if verdict.probe != REAL:
        return f"probe {verdict.probe}"
    if verdict.permutation != AS_PUBLISHED:
        moved = "in another order" if verdict.permutation % 2 else "under other letters"
        return f"options {moved}"
    return f"asked again ({verdict.repeat + 1})"
