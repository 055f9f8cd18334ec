"""Rewards of a rollout: accuracy, format and length, for perception and for reasoning apart.

VideoP2R's PA-GRPO (arXiv:2511.11113), equations 3 to 5: per segment k,

    R_k = accuracy_k + format_k + length_k

accuracy_P is the judge's verdict on the observation, accuracy_R the answer metric; format_k says
whether the segment's tags are well formed; length_k is a bonus where both are above 0 and the
segment's length lies in its range. A missing verdict makes the perception reward missing (NaN), not
0: `train.advantages` leaves it out of its group's statistics.

The rewards of APPO's released code are in `PUBLISHED`, by name.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from judges.answers import extract_strict, score_answer
from judges.intervals import interval_iou, published_iou, read_intervals
from schemas.questions import VideoQuestion
from schemas.traces import TraceTemplate, segment_spans
from schemas.verdicts import Sufficiency

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


@dataclass(frozen=True)
class SegmentReward:
    """The terms of one segment, unweighted, and their weighted sum; NaN = missing."""

    accuracy: float
    format: float
    length: float
    total: float


def perception_reward(
    text: str,
    token_counts: Mapping[str, int],
    verdict: Sufficiency | None,
    template: TraceTemplate,
    config: RewardConfig,
) -> SegmentReward:
    """R_P of a completion; a malformed observation earns exactly 0 and needs no verdict.

    `token_counts` is `train.segments.inner_token_counts` of the same completion. An unscored
    verdict makes accuracy, length and total missing. Raises ValueError where a well-formed
    observation comes without a verdict, and for a template without perception.
    """
    if not any(segment.role == "perception" for segment in template.segments):
        raise ValueError(f"template {template.name!r} has no perception segment to reward")
    if not _is_well_formed(text, template, "perception"):
        return SegmentReward(0.0, 0.0, 0.0, 0.0)
    if verdict is None:
        raise ValueError("a well-formed observation needs a verdict; an unscored one is a verdict")
    accuracy = {"yes": 1.0, "no": 0.0, "unscored": math.nan}[verdict.verdict]
    return _reward(
        accuracy, 1.0, _tokens(token_counts, template, "perception"), "perception", config
    )


def reasoning_reward(
    question: VideoQuestion,
    text: str,
    token_counts: Mapping[str, int],
    template: TraceTemplate,
    config: RewardConfig,
) -> SegmentReward:
    """R_R of a completion: the metric of its one answer block, whatever befell the other tags.

    Raises `judges.answers.GoldError` where the question's gold answer cannot be scored.
    """
    answer = extract_strict(text)
    accuracy = 0.0
    if answer is not None:
        accuracy = score_answer(question, answer, integer_seconds=config.integer_seconds)
    formatted = float(_is_well_formed(text, template, "reasoning"))
    return _reward(
        accuracy, formatted, _tokens(token_counts, template, "reasoning"), "reasoning", config
    )


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


def _is_well_formed(text: str, template: TraceTemplate, role: Role) -> bool:
    found = {span.tag for span in segment_spans(text, template)}
    return all(segment.tag in found for segment in template.segments if segment.role == role)


def _tokens(token_counts: Mapping[str, int], template: TraceTemplate, role: Role) -> int:
    tags = (segment.tag for segment in template.segments if segment.role == role)
    return sum(token_counts.get(tag, 0) for tag in tags)


_ANSWER_LETTER = re.compile(r"<answer>\s*([A-Z])\s*</answer>")
_QA_FORMAT = re.compile(r"<think>.*?</think>\s*<answer>\s*[A-Z]\s*</answer>(?=\n|\Z)", re.DOTALL)
_GROUNDING_FORMAT = re.compile(
    r"<think>.*</think>\s*<answer>.*</answer>\s*<time>.*</time>", re.DOTALL
)
_TIME = re.compile(r"<time>(.*?)</time>", re.DOTALL)
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)

PublishedReward = Callable[[str, VideoQuestion, float], float]


def published_accuracy(text: str, question: VideoQuestion, duration_seconds: float) -> float:
    """1 if the text holds exactly one capital letter in answer tags, and it is the gold one."""
    letters = _ANSWER_LETTER.findall(text)
    return float(letters == [question.solution])


def published_format(text: str, question: VideoQuestion, duration_seconds: float) -> float:
    """1 if the text begins with a think block that an answer letter follows; not stripped."""
    return float(_QA_FORMAT.match(text) is not None)


def published_grounding_format(
    text: str, question: VideoQuestion, duration_seconds: float
) -> float:
    """1 if the stripped text is a think, an answer and a time block."""
    return float(_GROUNDING_FORMAT.fullmatch(text.strip()) is not None)


def published_time_iou(text: str, question: VideoQuestion, duration_seconds: float) -> float:
    """IoU, in whole seconds, of the last time block's `a to b` and the question's time clues.

    Seconds from floor(duration) + 10 on do not exist. Deviations: a clue that reaches further is
    cut there, where the published code loses the rollout's reward; a huge end cannot hang.
    """
    blocks = _TIME.findall(text)
    if not blocks:
        return 0.0
    clues = ", ".join(f"{start:f} to {end:f}" for start, end in question.time_clues)
    horizon = math.floor(duration_seconds) + 10
    return published_iou(clues, blocks[-1], horizon_seconds=horizon)


def time_iou(text: str, question: VideoQuestion, duration_seconds: float) -> float:
    """As `published_time_iou`, in real seconds, of times in any form that an answer may have.

    Not of the released code; evaluation measures this (mIoU).
    """
    blocks = _TIME.findall(text)
    spoken = read_intervals(blocks[-1]) if blocks else None
    return 0.0 if spoken is None else interval_iou(spoken, question.time_clues)


def published_think_length(text: str, question: VideoQuestion, duration_seconds: float) -> float:
    """0.001 for each piece between single spaces of the last think block, at most 256 of them.

    0 unless the answer is right, and for an empty block.
    """
    thoughts = [thought.strip() for thought in _THINK.findall(text)]
    if not thoughts or not thoughts[-1]:
        return 0.0
    length = 0.001 * min(len(thoughts[-1].split(" ")), 256)
    return length * published_accuracy(text, question, duration_seconds)


PUBLISHED: dict[str, PublishedReward] = {
    "video-r1-accuracy": published_accuracy,
    "video-r1-format": published_format,
    "next-gqa-accuracy": published_accuracy,
    "next-gqa-format": published_grounding_format,
    "next-gqa-tiou": published_time_iou,
    "think-length": published_think_length,
    "time-iou": time_iou,
}
"""Rewards of APPO's released code, and `time-iou`: text, question, duration of the video in seconds
-> reward."""


def published_reward(
    weights: Mapping[str, float], text: str, question: VideoQuestion, duration_seconds: float
) -> float:
    """The weighted sum of rewards of `PUBLISHED`, such as 0.9 accuracy + 0.1 format."""
    unknown = sorted(set(weights) - set(PUBLISHED))
    if unknown:
        raise ValueError(f"rewards are {', '.join(PUBLISHED)}; got {', '.join(unknown)}")
    return sum(
        weight * PUBLISHED[name](text, question, duration_seconds)
        for name, weight in weights.items()
    )
