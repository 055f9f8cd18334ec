"""Cost estimate of a build before anything is paid: `--dry-run`.

An evenly spaced sample of the open questions gets its real frames and its real prompt; their input
tokens are counted by the server's free count if it has one, else by `arithmetic_tokens`. What only
replies can tell (their lengths, the share that passes) is assumed, and the assumption is printed
beside the result; if the ledger already holds calls, measured values replace it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from judges.backends.base import Backend, ChatRequest
from judges.backends.prices import ModelPrice
from judges.quotes import StepEstimate, count_tokens, estimated_step
from judges.sufficiency import sufficiency_request
from judges.text_reader import reader_requests
from media.frames import EncodedFrames, MediaError
from media.store import FrameStore
from pipeline.reader_steps import CALLS_STEP
from pipeline.steps import StepSettings, generation_request
from schemas.questions import VideoQuestion

SAMPLE_SIZE = 48
Role = Literal["generator", "judge", "reader"]
_ROLES: Mapping[str, Role] = {
    "blind": "reader",
    "generate": "generator",
    "filter": "judge",
    CALLS_STEP: "reader",
}


@dataclass(frozen=True)
class Assumptions:
    """Assumed reply lengths (in tokens) and pass rates.

    `share_rejected_blind` is of all questions, `share_sufficient` of judged observations. Defaults:
    nothing is rejected as answerable blind, so that a quote is not too low; traces printed in
    VideoP2R have 60 to 75 words per segment, and 162,062 of 263,055 questions survived all three
    steps (its sections 3.1.2 and 7.3).
    """

    trace_tokens: float = 220
    observation_tokens: float = 100
    judge_reply_tokens: float = 90
    share_verified: float = 0.8
    calls_per_question: float = 1.0
    blind_reply_tokens: float = 100
    read_reply_tokens: float = 100
    share_rejected_blind: float = 0.0
    share_sufficient: float = 0.77
    source: str = "assumed, from the lengths and the survival published for VideoP2R"


@dataclass(frozen=True)
class Estimate:
    """The estimate of a whole build."""

    questions: int
    sampled: int
    unreadable_in_sample: int
    counted_by: str
    assumptions: Assumptions
    steps: tuple[StepEstimate, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON-able values, as written to `estimate.json`."""
        return asdict(self)


class SpreadSample:
    """Evenly spaced questions from a stream of unknown length.

    Keeps every `stride`-th question; the stride doubles when more than twice `size` are kept.
    `num_texts` counts the questions whose text is not that of an earlier one.
    """

    def __init__(self, size: int = SAMPLE_SIZE) -> None:
        self._size = size
        self._stride = 1
        self.num_seen = 0
        self.num_texts = 0
        self.questions: list[VideoQuestion] = []
        self._texts: set[int] = set()

    def leave_out(self, question: VideoQuestion) -> None:
        """A question that is finished: what a text reader is asked about it, it was asked."""
        self._texts.add(_text_of(question))

    def add(self, question: VideoQuestion) -> None:
        """Pass on the next question of the stream."""
        text = _text_of(question)
        self.num_texts += text not in self._texts
        self._texts.add(text)
        if self.num_seen % self._stride == 0:
            self.questions.append(question)
            if len(self.questions) > 2 * self._size:
                self.questions = self.questions[::2]
                self._stride *= 2
        self.num_seen += 1


def _text_of(question: VideoQuestion) -> int:
    """What a text reader sees of a question, as a number; about all videos it is asked once."""
    return hash((question.problem, question.options, question.problem_type))


async def estimate(
    sample: SpreadSample,
    *,
    frames: FrameStore,
    settings: StepSettings,
    backends: Mapping[Role, Backend | None],
    prices: Mapping[Role, ModelPrice | None],
    assumptions: Assumptions,
) -> Estimate:
    """Estimate the stream that `sample` has seen. Undecodable questions cost nothing.

    `backends` and `prices` are by role; a role without a backend is counted by arithmetic.
    """
    tokens: dict[str, list[int]] = {name: [] for name in _ROLES}
    counters: set[str] = set()
    for question in sample.questions:
        try:
            clips = [await frames.load(ref) for ref in question.media]
        except MediaError:
            continue
        for step, request in _requests(question, clips, settings, assumptions):
            num_tokens, counter = await count_tokens(backends.get(_ROLES[step]), request)
            tokens[step].append(num_tokens)
            counters.add(counter)
    num_decoded = len(tokens["generate"])
    readable = num_decoded / max(1, len(sample.questions))
    asked = (sample.num_seen * readable, sample.num_texts * readable)
    steps = tuple(
        estimated_step(name, spec, calls, tokens[name], reply_tokens, prices.get(_ROLES[name]))
        for name, spec, calls, reply_tokens in _calls(*asked, settings, assumptions)
    )
    return Estimate(
        questions=sample.num_seen,
        sampled=len(sample.questions),
        unreadable_in_sample=len(sample.questions) - num_decoded,
        counted_by=", ".join(sorted(counters)) or "nobody: nothing to ask",
        assumptions=assumptions,
        steps=steps,
    )


def _requests(
    question: VideoQuestion,
    clips: Sequence[EncodedFrames],
    settings: StepSettings,
    assumptions: Assumptions,
) -> Iterator[tuple[str, ChatRequest]]:
    """One request of each step that the build makes about a question."""
    observation = "word " * math.ceil(assumptions.observation_tokens)
    yield "generate", generation_request(question, clips, settings, attempt=0)[0]
    if settings.sufficiency != "answer":
        limit = settings.judge_max_tokens
        yield "filter", sufficiency_request(question, observation, max_tokens=limit)[0]
    if settings.reading is None:
        return
    reader = settings.reading.settings
    yield "blind", reader_requests(question, None, reader, "blind")[0][0]
    if settings.sufficiency != "judge":
        yield CALLS_STEP, reader_requests(question, observation, reader, CALLS_STEP)[0][0]


def _calls(
    questions: float, texts: float, settings: StepSettings, assumed: Assumptions
) -> Iterator[tuple[str, str, float, float]]:
    """Step, backend, calls and tokens of a reply, in the order of the steps."""
    reading, asked = settings.reading, questions
    if reading is not None:
        samples = reading.settings.samples
        yield "blind", reading.reader, texts * samples, assumed.blind_reply_tokens
        if reading.action == "reject":
            asked *= 1 - assumed.share_rejected_blind
    traces = asked * assumed.calls_per_question
    yield "generate", settings.generator, traces, assumed.trace_tokens
    verified = traces * assumed.share_verified
    if settings.sufficiency != "answer":
        yield "filter", settings.judge, verified, assumed.judge_reply_tokens
    if reading is not None and settings.sufficiency != "judge":
        passed = assumed.share_sufficient if settings.sufficiency == "both" else 1.0
        calls = verified * passed * reading.settings.samples
        yield CALLS_STEP, reading.reader, calls, assumed.read_reply_tokens


def observed(assumptions: Assumptions, seen: dict[str, Any]) -> Assumptions:
    """`assumptions`, replaced by averages of the same build's earlier calls.

    `seen` is `Ledger.averages()`; with fewer than 10 calls of a step, the assumptions stay.
    """
    if seen["generated"] < 10 or seen["judged"] < 10:
        return assumptions
    return replace(
        assumptions,
        trace_tokens=seen["trace_tokens"],
        observation_tokens=seen["observation_words"],
        judge_reply_tokens=seen["judge_reply_tokens"],
        share_verified=seen["judged"] / seen["generated"],
        calls_per_question=seen["generated"] / seen["questions"],
        blind_reply_tokens=seen["blind_reply_tokens"] or assumptions.blind_reply_tokens,
        read_reply_tokens=seen["read_reply_tokens"] or assumptions.read_reply_tokens,
        share_rejected_blind=seen["rejected_blind"] / max(1, seen["asked_blind"]),
        share_sufficient=seen["read"] / seen["judged"]
        if seen["read"]
        else assumptions.share_sufficient,
        source=f"seen in this build's first {seen['questions']} questions",
    )
