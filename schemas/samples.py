"""Where a question ends: in a sample of the dataset or in a rejection with step and reason."""

from dataclasses import dataclass
from enum import StrEnum


class Step(StrEnum):
    """The stations of a build, in order."""

    READ = "read"
    MEDIA = "media"
    GENERATE = "generate"
    VERIFY = "verify"
    FILTER = "filter"


class Reason(StrEnum):
    """The closed list of reasons for which a question is rejected."""

    # read: the question file
    UNREADABLE_ROW = "unreadable_row"  # not JSON, or not an object
    INVALID_QUESTION = "invalid_question"  # a field is missing, of a wrong type, or makes no sense
    DUPLICATE = "duplicate"  # the same question stands earlier in the file
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
    # generate and filter: calls
    CALL_FAILED = "call_failed"  # retries used up
    BAD_REQUEST = "bad_request"  # the server refused the request for good, in its own words
    REFUSED = "refused"
    TRUNCATED = "truncated"
    EMPTY_REPLY = "empty_reply"
    # verify
    MALFORMED_TRACE = "malformed_trace"
    LOW_SCORE = "low_score"
    # filter
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
class Rejection:
    """Why a question is not in the dataset. `detail` is for people: one line, no secrets."""

    step: Step
    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class CoTSample:
    """An accepted trace with everything that the dataset says about it (one Parquet row).

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
