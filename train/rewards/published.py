"""The rewards of APPO's released code (arXiv:2602.23823), by name, and `time-iou` beside them.

Video-R1's reward is 0.9 accuracy + 0.1 format; NExT-GQA's accuracy + 0.1 format + time IoU.
"""

import math
import re
from typing import Any

from judges.scoring.time_intervals import interval_iou, published_iou, read_intervals
from schemas.questions import VideoQuestion
from train.rewards.registry import reward

_ANSWER_LETTER = re.compile(r"<answer>\s*([A-Z])\s*</answer>")
_QA_FORMAT = re.compile(r"<think>.*?</think>\s*<answer>\s*[A-Z]\s*</answer>(?=\n|\Z)", re.DOTALL)
_GROUNDING_FORMAT = re.compile(
    r"<think>.*</think>\s*<answer>.*</answer>\s*<time>.*</time>", re.DOTALL
)
_TIME = re.compile(r"<time>(.*?)</time>", re.DOTALL)
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)


@reward("next-gqa-accuracy", term="accuracy")
@reward("video-r1-accuracy", term="accuracy")
def published_accuracy(question: VideoQuestion, completion: str, **_: Any) -> float:
    """1 if the text holds exactly one capital letter in answer tags, and it is the gold one."""
    letters = _ANSWER_LETTER.findall(completion)
    return float(letters == [question.solution])


@reward("video-r1-format", term="format")
def published_format(completion: str, **_: Any) -> float:
    """1 if the text begins with a think block that an answer letter follows; not stripped."""
    return float(_QA_FORMAT.match(completion) is not None)


@reward("next-gqa-format", term="format")
def published_grounding_format(completion: str, **_: Any) -> float:
    """1 if the stripped text is a think, an answer and a time block."""
    return float(_GROUNDING_FORMAT.fullmatch(completion.strip()) is not None)


@reward("next-gqa-tiou", needs={"time_clues", "duration"})
def published_time_iou(
    question: VideoQuestion, completion: str, duration_seconds: float, **_: Any
) -> float:
    """IoU, in whole seconds, of the last time block's `a to b` and the question's time clues.

    Seconds from floor(duration) + 10 on do not exist. Deviations: a clue that reaches further is
    cut there, where the published code loses the rollout's reward; a huge end cannot hang.
    """
    blocks = _TIME.findall(completion)
    if not blocks:
        return 0.0
    clues = ", ".join(f"{start:f} to {end:f}" for start, end in question.time_clues)
    horizon = math.floor(duration_seconds) + 10
    return published_iou(clues, blocks[-1], horizon_seconds=horizon)


@reward("time-iou", needs={"time_clues"})
def time_iou(question: VideoQuestion, completion: str, **_: Any) -> float:
    """As `published_time_iou`, in real seconds, of times in any form that an answer may have.

    Not part of the released code; evaluation measures this (mIoU).
    """
    blocks = _TIME.findall(completion)
    spoken = read_intervals(blocks[-1]) if blocks else None
    return 0.0 if spoken is None else interval_iou(spoken, question.time_clues)


@reward("think-length", term="length")
def published_think_length(question: VideoQuestion, completion: str, **_: Any) -> float:
    """0.001 for each piece between single spaces of the last think block, at most 256 of them.

    0 unless the answer is right, and for an empty block.
    """
    thoughts = [thought.strip() for thought in _THINK.findall(completion)]
    if not thoughts or not thoughts[-1]:
        return 0.0
    length = 0.001 * min(len(thoughts[-1].split(" ")), 256)
    return length * published_accuracy(question, completion)


def grounding_weights(*, integer_seconds: bool) -> dict[str, float]:
    """The rewards of the grounding task: accuracy + 0.1 format + time IoU.

    `integer_seconds` counts times as the released code does, in whole seconds.
    """
    times = "next-gqa-tiou" if integer_seconds else "time-iou"
    return {"next-gqa-accuracy": 1.0, "next-gqa-format": 0.1, times: 1.0}
