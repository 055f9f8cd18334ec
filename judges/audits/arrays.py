"""An audit as arrays: one row per drawn verdict, people's labels, and what each judge said.

1 is sufficient (or Yes), 0 insufficient (No), NaN missing: unsure, unscored, not labelled, not
asked.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict

import numpy as np

from judges.audits.audit_kinds import KINDS
from judges.audits.records import (
    REAL,
    AuditItem,
    AuditLabel,
    AuditVerdict,
    Stratum,
)
from judges.statistics.agreement import majority
from judges.statistics.cluster_bootstrap import Booleans, Floats, SampleDesign, sample_design

AS_PUBLISHED = 0  # the `permutation` of a question that was not rewritten
FIRST = 0  # the `repeat` that counts where stability is not the subject
USUAL_VARIANTS = frozenset(kind.variants[0] for kind in KINDS.values())

_NUMBER: dict[str, float] = {
    "yes": 1.0,
    "no": 0.0,
    **{kind.yes: 1.0 for kind in KINDS.values()},
    **{kind.no: 0.0 for kind in KINDS.values()},
}


class Resampling(TypedDict):
    """How intervals are made: how many times videos are resampled, and from which seed."""

    resamples: int
    seed: int


@dataclass(frozen=True, eq=False)
class AuditRows:
    """The drawn rows in the blind order, and every label that counts.

    `labels` is [annotators, rows] in the order of `annotators`; `reference` is what most of them
    said of a row, NaN where nobody decided or as many said yes as no.
    """

    items: tuple[AuditItem, ...]
    design: SampleDesign
    annotators: tuple[str, ...]
    labels: Floats
    given: dict[tuple[str, str], AuditLabel]

    @cached_property
    def reference(self) -> Floats:
        """One human label per row."""
        return majority(self.labels) if self.annotators else np.full(len(self.items), np.nan)

    def said_by(self, annotator: str) -> Floats:
        """One annotator's labels."""
        row: Floats = self.labels[self.annotators.index(annotator)]
        return row


@dataclass(frozen=True, eq=False)
class JudgeView:
    """One judge asked in one way, over all rows: `verdicts` holds None where it was not asked.

    `is_source` marks the verdicts that the data were made with, which the audit only drew.
    """

    name: str
    judge: str
    variant: str
    is_source: bool
    verdicts: tuple[AuditVerdict | None, ...]

    @cached_property
    def said(self) -> Floats:
        """Its verdicts as numbers."""
        return as_numbers(self.verdicts)

    @cached_property
    def is_asked(self) -> Booleans:
        """The rows on which it was asked."""
        return np.array([verdict is not None for verdict in self.verdicts], dtype=np.bool_)

    @property
    def prompt_ids(self) -> Counter[str]:
        """The prompts that its verdicts came from, with their numbers: one, as a rule."""
        return Counter(verdict.prompt_id for verdict in self.verdicts if verdict is not None)


def as_numbers(verdicts: Iterable[AuditVerdict | None]) -> Floats:
    """1, 0 or NaN for each verdict."""
    words = ("" if verdict is None else verdict.verdict for verdict in verdicts)
    return np.array([_NUMBER.get(word, np.nan) for word in words], dtype=np.float64)


def audit_rows(
    items: Sequence[AuditItem], strata: Sequence[Stratum], labels: Sequence[AuditLabel]
) -> AuditRows:
    """Rows with their labels and the design they were drawn by.

    Strata are the audited judge's words: its finer cells (problem type, data source) are often too
    small to be scaled to their totals one by one.
    """
    population: Counter[str] = Counter()
    for stratum in strata:
        population[stratum.source_verdict] += stratum.population
    annotators = sorted({label.annotator for label in labels})
    given = {(label.item_id, label.annotator): label for label in labels}
    numbers = [
        [_NUMBER.get(_label_of(given, item, annotator), np.nan) for item in items]
        for annotator in annotators
    ]
    return AuditRows(
        items=tuple(items),
        design=sample_design(
            [item.video for item in items],
            weights=_scaled_weights(items, population),
            strata=[item.source_verdict for item in items],
        ),
        annotators=tuple(annotators),
        labels=np.array(numbers, dtype=np.float64).reshape(len(annotators), len(items)),
        given=given,
    )


def judge_views(
    items: Sequence[AuditItem], verdicts: Sequence[AuditVerdict]
) -> tuple[JudgeView, ...]:
    """The judge that made the data first, then every judge and variant that the audit asked."""
    asked: dict[tuple[str, str], dict[str, AuditVerdict]] = defaultdict(dict)
    for verdict in verdicts:
        if (verdict.probe, verdict.permutation, verdict.repeat) == (REAL, AS_PUBLISHED, FIRST):
            asked[verdict.judge, verdict.variant][verdict.item_id] = verdict
    sources = list(dict.fromkeys(item.source_judge for item in items))
    source = JudgeView(
        name=f"{' + '.join(sources)} (as in the data)",
        judge=" + ".join(sources),
        variant="",
        is_source=True,
        verdicts=tuple(_source_verdict(item) for item in items),
    )
    return (
        source,
        *(
            JudgeView(
                name=view_name(judge, variant),
                judge=judge,
                variant=variant,
                is_source=False,
                verdicts=tuple(found.get(item.item_id) for item in items),
            )
            for (judge, variant), found in sorted(asked.items())
        ),
    )


def without_echoes(views: Sequence[JudgeView]) -> tuple[JudgeView, ...]:
    """The views, the judge that made the data once where asking it again said nothing new.

    That is where it was asked about every row with the prompt of the data, and gave each verdict of
    the data again (a cached, scripted or greedy judge). The one view keeps its replies and costs.
    """
    source, *asked = views
    for view in asked:
        if _is_echo(view, source):
            one = replace(view, name=source.name, is_source=True)
            return (one, *(other for other in asked if other is not view))
    return tuple(views)


def _is_echo(view: JudgeView, source: JudgeView) -> bool:
    return view.judge == source.judge and all(
        again is not None
        and drawn is not None
        and (again.verdict, again.prompt_id) == (drawn.verdict, drawn.prompt_id)
        for again, drawn in zip(view.verdicts, source.verdicts, strict=True)
    )


def view_name(judge: str, variant: str) -> str:
    """A judge as tables call it: its variant only where it is not the usual one."""
    return judge if variant in USUAL_VARIANTS else f"{judge} [{variant}]"


def _label_of(given: dict[tuple[str, str], AuditLabel], item: AuditItem, annotator: str) -> str:
    label = given.get((item.item_id, annotator))
    return "" if label is None or label.label is None else label.label


def _scaled_weights(items: Sequence[AuditItem], population: Counter[str]) -> Floats:
    """Weights that add up to the verdicts counted in the population, of each kind.

    With caps per video 1 / probability does so on average only; no row stands for less than itself.
    """
    weights = np.array([item.weight for item in items], dtype=np.float64)
    words = np.array([item.source_verdict for item in items])
    for word in np.unique(words):
        chosen = words == word
        if population[str(word)]:
            weights[chosen] *= population[str(word)] / weights[chosen].sum()
    return np.maximum(weights, 1.0)


def _source_verdict(item: AuditItem) -> AuditVerdict:
    return AuditVerdict(
        item_id=item.item_id,
        judge=item.source_judge,
        variant="",
        permutation=AS_PUBLISHED,
        probe=REAL,
        repeat=FIRST,
        verdict=item.source_verdict,
        unscored_reason=item.source_unscored_reason,
        prompt_id=item.source_prompt_id,
        call_key="",
        seconds=None,
        cost_usd=None,
        reply="",
    )


def correctness(words: Sequence[str], truth: Floats, is_used: Booleans) -> Floats:
    """1 where a verdict is people's, 0 where it is not or is unscored, NaN where it is not used."""
    said = np.array([_NUMBER.get(word, np.nan) for word in words])
    return np.where(is_used, (said == truth).astype(np.float64), np.nan)
