"""What is decided about a trace, and where its question ends.

An answer check and a sufficiency verdict decide; a question ends in a sample of the dataset or in a
rejection with step and reason.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from schemas.questions import VideoQuestion


class Step(StrEnum):
    """The stations of a build, in order."""

    READ = "read"
    MEDIA = "media"
    BLIND = "blind"
    GENERATE = "generate"
    VERIFY = "verify"
    FILTER = "filter"


class Reason(StrEnum):
    """The closed list of reasons for which a question is rejected."""

    # read: the question file
    UNREADABLE_ROW = "unreadable_row"  # not JSON, or not an object
    INVALID_QUESTION = "invalid_question"  # a field is missing, of a wrong type, or makes no sense
    DUPLICATE = "duplicate"  # the same question is earlier in the file
    # media: paths and decoders
    UNSAFE_PATH = "unsafe_path"  # absolute, or climbs out of the media root
    SYMLINK_OUTSIDE_ROOT = "symlink_outside_root"
    MISSING_FILE = "missing_file"
    NOT_A_FILE = "not_a_file"  # a directory, FIFO, device or socket
    EMPTY_FILE = "empty_file"
    UNDECODABLE = "undecodable"  # no decoder reads it, or it breaks on the way
    NO_FRAMES = "no_frames"
    BAD_TIMES = "bad_times"  # presentation times are missing or do not increase
    TOO_LARGE = "too_large"
    DECODE_TIMEOUT = "decode_timeout"
    DECODER_DIED = "decoder_died"
    # blind: the text reader
    ANSWERABLE_BLIND = "answerable_blind"  # answered without the video
    # blind, generate and filter: calls
    CALL_FAILED = "call_failed"  # retries used up
    BAD_REQUEST = "bad_request"  # the server refused the request for good, in its own words
    REFUSED = "refused"
    TRUNCATED = "truncated"
    EMPTY_REPLY = "empty_reply"
    # verify
    MALFORMED_TRACE = "malformed_trace"
    LOW_SCORE = "low_score"
    # filter; unscored also at blind
    INSUFFICIENT = "insufficient"
    ANSWER_LEAK = "answer_leak"
    UNSCORED = "unscored"


MEDIA_ERRORS = frozenset(
    {
        Reason.UNSAFE_PATH,
        Reason.SYMLINK_OUTSIDE_ROOT,
        Reason.MISSING_FILE,
        Reason.NOT_A_FILE,
        Reason.EMPTY_FILE,
        Reason.UNDECODABLE,
        Reason.NO_FRAMES,
        Reason.BAD_TIMES,
        Reason.TOO_LARGE,
        Reason.DECODE_TIMEOUT,
        Reason.DECODER_DIED,
    }
)
CALL_ERRORS = frozenset(
    {Reason.CALL_FAILED, Reason.BAD_REQUEST, Reason.REFUSED, Reason.TRUNCATED, Reason.EMPTY_REPLY}
)


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
    OFF_MENU = "off_menu"  # the last block is neither Yes nor No
    EMPTY_REPLY = "empty_reply"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    NO_CONCLUSION = "no_conclusion"  # the reasoning concludes no option: a finding, not a failure
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
class Rejection:
    """Why a question is not in the dataset. `detail` is for people: one line, no secrets."""

    step: Step
    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class CoTSample:
    """An accepted trace with everything that the dataset holds of it (one Parquet row).

    `observation`, `think` and `answer` are the teacher's; gold stays with the question.
    """

    question_id: str
    draw: int
    output: str
    observation: str
    think: str
    answer: str
    reward: float
    judge_reply: str


@dataclass(frozen=True)
class AcceptedSample:
    """One accepted trace, joined with its question, its answer check and its last verdict.

    `answerable_blind` and `blind_rate` are the text reader's, None where none was asked; the mark
    alone is None where its replies decided nothing.
    """

    question: VideoQuestion
    draw: int
    call_key: str
    output: str
    observation: str
    think: str
    answer: str
    reward: float
    metric: str
    extracted: str
    generator: str
    prompt_id: str
    media_id: str
    frame_spec: str
    frame_indices: tuple[int, ...]
    frame_times: tuple[float, ...]
    judge: str
    judge_prompt_id: str
    judge_call_key: str
    judge_reply: str
    answer_leak: bool
    answerable_blind: bool | None = None
    blind_rate: float | None = None

    @property
    def question_id(self) -> str:
        """The question's content id."""
        return self.question.question_id
