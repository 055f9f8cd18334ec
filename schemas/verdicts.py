"""What was decided about a trace: the answer check and the sufficiency verdict."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


@dataclass(frozen=True)
class AnswerCheck:
    """Step two's verdict. `score` is the task metric in [0, 1]; `extracted` the answer it read."""

    metric: str
    score: float
    passed: bool
    extracted: str


class UnscoredReason(StrEnum):
    """Why a judge's reply is no verdict. Never to be read as a No."""

    NO_JUDGEMENT = "no_judgement"  # no <judgement> block in the reply
    OFF_MENU = "off_menu"  # the last block says neither Yes nor No
    EMPTY_REPLY = "empty_reply"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    NO_CONCLUSION = "no_conclusion"  # a reasoning that decides for no option: found, not failed
    NO_REPLY = "no_reply"  # the call failed for good: retries used up, or a final error


@dataclass(frozen=True)
class Sufficiency:
    """A judge's verdict on an observation: yes, no, or unscored with its reason."""

    verdict: Literal["yes", "no", "unscored"]
    unscored_reason: UnscoredReason | None = None

    def __post_init__(self) -> None:
        if (self.verdict == "unscored") != (self.unscored_reason is not None):
            raise ValueError(f"an unscored verdict needs a reason, and only that one: {self!r}")


@dataclass(frozen=True)
class HumanLabel:
    """What a person said of an observation, when, and why."""

    question_id: str
    annotator: str
    label: Literal["sufficient", "insufficient", "unsure"]
    reason: str
    labelled_at: str
