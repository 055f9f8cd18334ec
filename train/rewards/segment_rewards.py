"""Rewards of a rollout: accuracy, format and length, for perception and for reasoning apart.

VideoP2R's PA-GRPO (arXiv:2511.11113), equations 3 to 5: per segment k,

    R_k = accuracy_k + format_k + length_k

accuracy_P is the judge's verdict on the observation, accuracy_R the answer metric; format_k says
whether the segment's tags are well formed and nothing but white space stands outside them (before
the observation for perception, between and behind the others for reasoning; the predecessors'
format reward matches whole texts, too); length_k is a bonus where both are above 0 and the
segment's length lies in its range. A missing verdict makes the perception reward missing (NaN), not
0: `train.algorithms.advantages` leaves it out of its group's statistics.

The same terms are rewards of `--reward` by name: `accuracy`, `sufficient`, `format`, `length`. The
published ones are in `train.rewards.published`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from judges.scoring.answer_score import score_answer
from judges.scoring.text import extract_strict
from schemas.questions import VideoQuestion
from schemas.samples import Sufficiency
from schemas.traces import TraceTemplate, segment_spans
from train.rewards.registry import reward
from train.rollouts.types import SegmentReward

Role = Literal["perception", "reasoning"]


@dataclass(frozen=True)
class RewardConfig:
    """The numbers of the rewards; defaults are VideoP2R's."""

    accuracy_weight: float = 1.0
    format_weight: float = 1.0
    length_weight: float = 1.0
    length_bonus: float = 0.2
    """length_k where a segment earns it."""
    perception_tokens: tuple[int, int] = (128, 320)
    """Tokens between the perception tags that earn the bonus, both ends included."""
    reasoning_tokens: tuple[int, int] = (320, 512)
    """Tokens between the tags of all reasoning segments together, both ends included."""
    integer_seconds: bool = False
    """Score grounding answers in whole seconds, as the published reward does."""

    def __post_init__(self) -> None:
        for name in ("perception_tokens", "reasoning_tokens"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} must be a range (low, high), got ({low}, {high})")
        for name in ("accuracy_weight", "format_weight", "length_weight", "length_bonus"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be a finite number, got {getattr(self, name)}")


def perception_reward(
    text: str,
    token_counts: Mapping[str, int],
    verdict: Sufficiency | None,
    template: TraceTemplate,
    config: RewardConfig,
) -> SegmentReward:
    """R_P of a completion; a malformed observation earns exactly 0 and needs no verdict.

    Text in front of an observation costs its format and length, not its verdict.
    `token_counts` is `train.rollouts.segments.inner_token_counts` of the same completion. An
    unscored verdict makes accuracy, length and total missing. Raises ValueError where a well-formed
    observation comes without a verdict, and for a template without perception.
    """
    if not any(segment.role == "perception" for segment in template.segments):
        raise ValueError(f"template {template.name!r} has no perception segment to reward")
    if not _has_segments(text, template, "perception"):
        return SegmentReward(0.0, 0.0, 0.0, 0.0)
    if verdict is None:
        raise ValueError("a well-formed observation needs a verdict; an unscored one is a verdict")
    accuracy = {"yes": 1.0, "no": 0.0, "unscored": math.nan}[verdict.verdict]
    formatted = float(_is_well_formed(text, template, "perception"))
    return _reward(
        accuracy, formatted, _tokens(token_counts, template, "perception"), "perception", config
    )


def reasoning_reward(
    question: VideoQuestion,
    text: str,
    token_counts: Mapping[str, int],
    template: TraceTemplate,
    config: RewardConfig,
) -> SegmentReward:
    """R_R of a completion: the metric of its one answer block, whatever the other tags look like.

    Raises `judges.scoring.answer_score.GoldError` where the question's gold answer cannot be
    scored.
    """
    accuracy = answer_accuracy(question, text, config)
    formatted = float(_is_well_formed(text, template, "reasoning"))
    return _reward(
        accuracy, formatted, _tokens(token_counts, template, "reasoning"), "reasoning", config
    )


def answer_accuracy(question: VideoQuestion, text: str, config: RewardConfig) -> float:
    """The metric of the completion's one answer block; 0 without exactly one. Raises GoldError."""
    answer = extract_strict(text)
    if answer is None:
        return 0.0
    return score_answer(question, answer, integer_seconds=config.integer_seconds)


def _reward(
    accuracy: float, formatted: float, num_tokens: int, role: Role, config: RewardConfig
) -> SegmentReward:
    low, high = config.perception_tokens if role == "perception" else config.reasoning_tokens
    if math.isnan(accuracy):
        return SegmentReward(math.nan, formatted, math.nan, math.nan)
    earns = accuracy > 0 and formatted > 0 and low <= num_tokens <= high
    length = config.length_bonus if earns else 0.0
    total = (
        config.accuracy_weight * accuracy
        + config.format_weight * formatted
        + config.length_weight * length
    )
    return SegmentReward(accuracy, formatted, length, total)


def _has_segments(text: str, template: TraceTemplate, role: Role) -> bool:
    """Whether the segments of a role are well formed, whatever stands around them."""
    found = {span.tag for span in segment_spans(text, template)}
    return all(segment.tag in found for segment in template.segments if segment.role == role)


def _is_well_formed(text: str, template: TraceTemplate, role: Role) -> bool:
    """Whether they are, and their part of the text holds nothing else.

    Perception's part is the text up to the end of its last segment, reasoning's the rest. Behind a
    malformed observation reasoning's part begins with its first segment: what stands before is the
    observation's fault.
    """
    if not _has_segments(text, template, role):
        return False
    spans = segment_spans(text, template)
    own = [span for span in spans if span.role == role]
    if role == "perception":
        start, end = 0, max((span.end for span in own), default=0)
    else:
        seen = [span.end for span in spans if span.role == "perception"]
        is_seen = _has_segments(text, template, "perception")
        start, end = max(seen, default=0) if is_seen else own[0].start, len(text)
    for span in own:
        if text[start : span.start].strip():
            return False
        start = span.end
    return not text[start:end].strip()


def _tokens(token_counts: Mapping[str, int], template: TraceTemplate, role: Role) -> int:
    tags = (segment.tag for segment in template.segments if segment.role == role)
    return sum(token_counts.get(tag, 0) for tag in tags)


@reward("accuracy", term="accuracy")
def accuracy(question: VideoQuestion, completion: str, settings: RewardConfig, **_: Any) -> float:
    """The metric of the answer, in [0, 1]."""
    return answer_accuracy(question, completion, settings)


@reward("sufficient", needs={"verdict"}, term="accuracy")
def sufficient(verdict: Sufficiency | None, **_: Any) -> float | None:
    """1 where the judge calls the observation sufficient; missing where the verdict is unscored.

    0 where the judge was not asked: the observation is malformed or claims the answer.
    """
    if verdict is None:
        return 0.0
    return {"yes": 1.0, "no": 0.0, "unscored": None}[verdict.verdict]


@reward("format", term="format")
def well_formed(completion: str, template: TraceTemplate, segment: Role, **_: Any) -> float:
    """1 where the tags of the segment are well formed and only white space stands outside them."""
    return float(_is_well_formed(completion, template, segment))


@reward("length", needs={"perception:verdict", "token_range"}, term="length")
def length(
    question: VideoQuestion,
    completion: str,
    verdict: Sufficiency | None,
    token_counts: Mapping[str, int],
    segment: Role,
    template: TraceTemplate,
    settings: RewardConfig,
    **_: Any,
) -> float | None:
    """The length bonus of a segment that is accurate, well formed and of the right length."""
    accurate = (
        answer_accuracy(question, completion, settings)
        if segment == "reasoning"
        else sufficient(verdict)
    )
    if accurate is None:
        return None
    formatted = float(_is_well_formed(completion, template, segment))
    num_tokens = _tokens(token_counts, template, segment)
    return _reward(accurate, formatted, num_tokens, segment, settings).length
