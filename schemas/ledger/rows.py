"""Rows that callers hand to the ledger, one class per table.

Fields are the table's columns; a column with a default of its own may be left out. Values are
checked once more at the door (`schemas.ledger.tables`), because files and servers are behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from schemas.samples import Sufficiency

Verdict = Literal["yes", "no", "unscored"]
Evidence = Literal["none", "observation"]


@dataclass(frozen=True, kw_only=True)
class MediaRow:
    """What was read of a media file under one frame spec; sizes in pixels, times in seconds."""

    path: str
    kind: str
    media_id: str
    frame_spec_id: str
    reader: str | None = None
    source_width: int | None = None
    source_height: int | None = None
    width: int | None = None
    height: int | None = None
    num_source_frames: int | None = None
    duration_seconds: float | None = None
    frame_indices: Sequence[int] | None = None
    frame_times: Sequence[float] | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """What a teacher (or, in RL, the policy) wrote; observation, think and answer where it parses.

    `draw` is the attempt's number within its question.
    """

    question_id: str
    draw: int
    call_key: str
    output: str
    observation: str | None = None
    think: str | None = None
    answer: str | None = None
    generator: str = ""
    prompt_id: str = ""
    media_id: str = ""
    frame_spec: str = ""
    frame_indices: Sequence[int] | None = None
    frame_times: Sequence[float] | None = None


@dataclass(frozen=True, kw_only=True)
class AnswerCheckRow:
    """Step two's verdict on an attempt: the metric's `score`, 0 to 1, and the answer it read."""

    question_id: str
    draw: int
    metric: str
    score: float
    passed: bool
    extracted: str | None = None


@dataclass(frozen=True, kw_only=True)
class SufficiencyRow:
    """One reply of a judge about an attempt, or an answer leak that no judge was asked about.

    Among the rows of an attempt the highest `judge_draw` decides. An `answer_leak` keeps the
    attempt out unless it is `leak_allowed`. `verdict` is None where no judge was asked. Raises
    ValueError for any other word.
    """

    question_id: str
    draw: int
    judge: str = ""
    judge_draw: int = 0
    call_key: str | None = None
    verdict: Verdict | None = None
    unscored_reason: str | None = None
    answer_leak: bool = False
    leak_allowed: bool = False
    leak_text: str | None = None
    prompt_id: str | None = None
    reply: str | None = None

    def __post_init__(self) -> None:
        if self.verdict not in ("yes", "no", "unscored", None):
            raise ValueError(f"a verdict is yes, no, unscored or None, not {self.verdict!r}")

    @classmethod
    def of_reply(
        cls,
        question_id: str,
        draw: int,
        verdict: Sufficiency,
        *,
        judge: str,
        judge_draw: int,
        call_key: str,
        prompt_id: str,
        reply: str,
        leak_text: str | None = None,
    ) -> Self:
        """A judge's reply. With `leak_text` it was asked although the observation has a leak."""
        return cls(
            question_id=question_id,
            draw=draw,
            judge=judge,
            judge_draw=judge_draw,
            call_key=call_key,
            verdict=verdict.verdict,
            unscored_reason=verdict.unscored_reason,
            answer_leak=leak_text is not None,
            leak_allowed=leak_text is not None,
            leak_text=leak_text,
            prompt_id=prompt_id,
            reply=reply,
        )

    @classmethod
    def of_leak(cls, question_id: str, draw: int, leak_text: str, *, judge: str) -> Self:
        """An observation that claims the answer, so that `judge` was not asked about it."""
        return cls(
            question_id=question_id, draw=draw, judge=judge, answer_leak=True, leak_text=leak_text
        )


@dataclass(frozen=True, kw_only=True)
class ReaderAnswerRow:
    """One answer of a text reader: from the question alone (`evidence` none), or from an attempt's
    observation. `correct` is None where the reply could not be used.
    """

    question_id: str
    evidence: Evidence
    sample: int
    call_key: str
    draw: int = 0
    permutation: int = 0
    answer: str | None = None
    score: float | None = None
    correct: bool | None = None
    unscored_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReaderCheckRow:
    """What followed from a reader's answers.

    `verdict` yes is "answerable blind" for evidence none, and "sufficient" for an observation whose
    `rate` exceeds `blind_rate` by `margin`.
    """

    question_id: str
    evidence: Evidence
    reader: str
    prompt_id: str
    samples: int
    correct: int
    unscored: int
    rate: float
    verdict: Verdict
    draw: int = 0
    blind_rate: float | None = None
    margin: float | None = None


@dataclass(frozen=True, kw_only=True)
class CallRow:
    """A billed or final attempt of a call.

    `is_final` says that the call ended with it; None only for status `ok`, which always ends it.
    """

    call_key: str
    status: str
    is_final: bool | None = None
    attempt: int = 0
    provider: str = ""
    model: str = ""
    endpoint: str = ""
    step: str = ""
    question_id: str = ""
    reply: str = ""
    stop_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float | None = None
    batch: bool = False
    seconds: float | None = None
    request_id: str = ""
    error: str | None = None
    finished_at: datetime | str | None = None
    run_id: str | None = None
    """None for the run that holds the ledger."""


@dataclass(frozen=True, kw_only=True)
class BatchRow:
    """The intent to send a batch of calls, stored before it is sent."""

    intent_id: str
    provider: str
    model: str
    created_at: datetime
    status: str
    endpoint: str = ""
    batch_id: str | None = None
    worst_case_usd: float | None = None
