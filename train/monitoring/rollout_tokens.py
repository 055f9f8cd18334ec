"""Tokens of a rollout on its page: their text, classes for segment and weight, and tooltips."""

import codecs
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from train.algorithms.appo import AppoConfig
from train.monitoring.rollout_records import ROLE_OF_SEGMENT
from train.rollouts.segments import TokenBytes
from train.rollouts.types import ScoredGroup

LEVELS = 10  # of a colour scale; 0 is no colour
_NO_TEXT = "▪"


@dataclass(frozen=True)
class ShownToken:
    """A token as the template prints it; `tooltip` shows while the pointer rests on it."""

    text: str
    classes: str
    tooltip: str


def shown_tokens(
    scored: ScoredGroup,
    place: int,
    token_bytes: TokenBytes,
    advantages: Mapping[str, float],
    times: Sequence[float],
    config: AppoConfig,
) -> tuple[ShownToken, ...]:
    """The tokens of rollout `place`; `times` are those of the frames, empty without any."""
    weights: list[float] = [] if scored.weights is None else scored.weights[place].tolist()
    nearest: list[int] = []
    if scored.frame_attention is not None and times:
        nearest = scored.frame_attention[place].argmax(dim=-1).tolist()
    rollout = scored.group.rollouts[place]
    texts = _token_texts(rollout.token_ids.tolist(), token_bytes)
    shown = []
    for number, (text, segment) in enumerate(zip(texts, rollout.segment_ids.tolist(), strict=True)):
        role = ROLE_OF_SEGMENT.get(segment, "")
        notes, classes = [role] if role else [], ["t", role[:1]]
        if weights:
            weight = weights[number]
            classes.append(f"w{weight_level(weight, config.max_weight)}")
            notes.append(f"weight {weight:.3f}")
        if role in advantages:
            notes.append(f"advantage {advantages[role]:+.2f}")
        if nearest:
            notes.append(f"attends most to {times[nearest[number]]:.1f} s")
        if not text:
            classes.append("none")
            notes.append("no text (end token)")
        shown.append(
            ShownToken(text or _NO_TEXT, " ".join(filter(None, classes)), " · ".join(notes))
        )
    return tuple(shown)


def weight_level(weight: float, max_weight: float) -> int:
    """The step of the colour scale for a weight: 0 for exactly 1, at least 1 above it."""
    if weight <= 1 or max_weight <= 1:
        return 0
    return min(LEVELS, max(1, math.ceil((weight - 1) / (max_weight - 1) * LEVELS - 1e-6)))


def _token_texts(token_ids: Sequence[int], token_bytes: TokenBytes) -> list[str]:
    """Text of each token; a character of several tokens is the text of its last one."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [
        decoder.decode(token_bytes[token_id], final=number == len(token_ids) - 1)
        for number, token_id in enumerate(token_ids)
    ]
