"""Audits of a few rows, put together by hand: what was drawn, what people and judges said."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from judges.audits.store import AuditItem, AuditLabel, AuditStore, AuditVerdict, Stratum
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.runs import start_run

SHORT = {"s": "sufficient", "i": "insufficient", "u": "unsure"}


@dataclass(frozen=True)
class Row:
    """One drawn verdict. `people` maps an annotator to s, i or u (see SHORT)."""

    source: str
    people: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0
    video: str = ""
    data_source: str = "kitchen"
    problem: str = "How many cups?"
    observation: str = "Two cups stand there."
    media: tuple[MediaRef, ...] = ()


def rows_of(count: int, source: str, label: str, **changes: Any) -> list[Row]:
    """`count` alike rows, labelled by one annotator; `label` "" leaves them unlabelled."""
    return [Row(source, {"ada": label} if label else {}, **changes) for _ in range(count)]


def small_audit(
    folder: Path,
    rows: Sequence[Row],
    *,
    media_root: Path | None = None,
    verdicts: Sequence[AuditVerdict] = (),
) -> list[AuditItem]:
    """An audit with these rows; the population is what their weights add up to."""
    items = [_item(number, row) for number, row in enumerate(rows)]
    population: Counter[str] = Counter()
    for row in rows:
        population[row.source] += int(row.weight)
    strata = [
        Stratum(word, word, "multiple choice", "kitchen", count, 0)  # type: ignore[arg-type]
        for word, count in population.items()
    ]
    with AuditStore.create(folder, start_run("test", {})) as store:
        source = {
            "kind": "sufficiency",
            "media_root": None if media_root is None else str(media_root),
        }
        store.add_sample(items, strata, source)
        labels = [
            AuditLabel(item.item_id, who, SHORT[word], f"{who} says why", "2026-01-01", "page")  # type: ignore[arg-type]
            for item, row in zip(items, rows, strict=True)
            for who, word in row.people.items()
        ]
        if labels:
            store.add_labels(labels)
        for verdict in verdicts:
            store.add_verdict(verdict)
    return items


def add_verdicts(folder: Path, verdicts: Sequence[AuditVerdict]) -> None:
    """What judges said, later."""
    with AuditStore.open(folder, start_run("test", {})) as store:
        for verdict in verdicts:
            store.add_verdict(verdict)


def verdict(number: int, word: str, **changes: Any) -> AuditVerdict:
    """A judge's word on row `number`: yes, no or unscored."""
    values: dict[str, Any] = {
        "item_id": f"item-{number}",
        "judge": "claude:one",
        "variant": "sufficiency",
        "permutation": 0,
        "probe": "",
        "repeat": 0,
        "verdict": word,
        "unscored_reason": "off_menu" if word == "unscored" else "",
        "prompt_id": "prompt-1",
        "call_key": f"call-{number}",
        "seconds": None,
        "cost_usd": None,
        "reply": f"<judgement>{word}</judgement>",
    }
    return AuditVerdict(**(values | changes))


def verdicts_of(words: str, **changes: Any) -> list[AuditVerdict]:
    """One letter per row, in order: y, n, u (unscored), or a point where it was not asked."""
    told = {"y": "yes", "n": "no", "u": "unscored"}
    return [
        verdict(number, told[letter], **changes)
        for number, letter in enumerate(words)
        if letter != "."
    ]


def _item(number: int, row: Row) -> AuditItem:
    video = row.video or f"clips/{number}.mp4"
    question = VideoQuestion(
        problem=f"{row.problem} ({number})",
        options=("A. one", "B. two"),
        solution="B",
        media=row.media or (MediaRef(kind="video", path=video),),
        problem_type=ProblemType.MULTIPLE_CHOICE,
        data_source=row.data_source,
        row=number,
    )
    return AuditItem(
        item_id=f"item-{number}",
        question=question,
        observation=row.observation,
        source_verdict=row.source,  # type: ignore[arg-type]
        source_judge="oracle:1",
        source_prompt_id="prompt-0",
        video=video,
        stratum=row.source,
        weight=row.weight,
        position=number,
        inclusion_probability=1 / row.weight,
        source_unscored_reason="off_menu" if row.source == "unscored" else "",
    )
