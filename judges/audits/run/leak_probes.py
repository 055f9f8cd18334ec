"""The leak probe: observations from which nothing can be deduced, so every Yes is a mistake.

Four kinds are texts of `leak_probes.toml`, which names the reason for each; the fifth,
`other-video`, is an honest observation of another row's video.
"""

import random
import re
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from judges.audits.records import AuditItem
from judges.sufficiency import correct_answer_text
from schemas.questions import ProblemType
from schemas.serialization import content_id

OTHER_VIDEO = "other-video"
_OTHER_VIDEO_REASON = (
    "It describes another video: nothing in it is about what was asked. It can answer by chance, so"
    " rows with the same answer are avoided."
)
_PLACEHOLDER = re.compile(r"\{answer\}")


def probe_names() -> tuple[str, ...]:
    """All kinds of probes; the right verdict on each is No."""
    return (*_file()[0], OTHER_VIDEO)


def probe_reasons() -> dict[str, str]:
    """Why a judge might let each kind through."""
    reasons = {name: str(kind["why"]) for name, kind in _file()[0].items()}
    return {**reasons, OTHER_VIDEO: _OTHER_VIDEO_REASON}


def probes_id() -> str:
    """Content id of the probe texts' file: shares of different versions are not comparable."""
    return _file()[1]


def probe_text(name: str, item: AuditItem, items: Sequence[AuditItem], seed: int) -> str | None:
    """The text that replaces the item's observation; None where no other video fits.

    The same for the same seed and rows, whatever their order.
    """
    rng = random.Random(f"{seed} {name} {item.item_id}")
    if name == OTHER_VIDEO:
        donors = _donors(item, items)
        return rng.choice(donors).observation if donors else None
    kinds = _file()[0]
    if name not in kinds:
        raise ValueError(f"no probe {name!r}: expected one of {', '.join(probe_names())}")
    text = str(rng.choice(kinds[name]["texts"]))
    return _PLACEHOLDER.sub(lambda _: correct_answer_text(item.question), text)


def _donors(item: AuditItem, items: Sequence[AuditItem]) -> list[AuditItem]:
    """Rows of other videos with another answer, by id.

    Best are those of the same type whose observation does not even name this row's answer: it could
    be right about this video by chance. Where there are none, one and then both wishes are dropped.
    """
    videos = {ref.path for ref in item.question.media}
    answer = _bare_answer(item)
    named = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)", re.IGNORECASE)
    strangers = [
        other
        for other in sorted(items, key=lambda other: other.item_id)
        if videos.isdisjoint(ref.path for ref in other.question.media)
        and other.observation.strip()
        and _bare_answer(other) != answer
    ]
    silent = [other for other in strangers if not named.search(other.observation)]
    alike = [one for one in silent if one.question.problem_type is item.question.problem_type]
    return alike or silent or strangers


def _bare_answer(item: AuditItem) -> str:
    """The correct answer without its option letter, in small letters."""
    text = correct_answer_text(item.question)
    if item.question.problem_type is ProblemType.MULTIPLE_CHOICE:
        text = text.partition(". ")[2] or text
    return text.casefold().strip()


@cache
def _file() -> tuple[dict[str, dict[str, Any]], str]:
    text = (resources.files("judges.audits.run") / "leak_probes.toml").read_text(encoding="utf-8")
    return tomllib.loads(text), content_id("probes", text)
