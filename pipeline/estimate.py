"""Cost estimate of a build before anything is paid: `--dry-run`.

An evenly spaced sample of the open questions gets its real frames and its real prompt; their input
tokens are counted by the server's free count if it has one, else by `arithmetic_tokens`. What only
replies can tell (their lengths, the share that passes) is assumed, and the assumption is printed
beside the result; if the ledger already holds calls, measured values replace it.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from judges.backends.base import Backend, CallError, ChatRequest, Usage
from judges.backends.prices import ModelPrice
from judges.sufficiency import sufficiency_request
from media.frames import MediaError
from media.store import FrameStore
from pipeline.steps import StepSettings, generation_request
from schemas.questions import VideoQuestion

SAMPLE_SIZE = 48
_PIXELS_PER_TOKEN = 750  # Anthropic's published rule for images
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Assumptions:
    """Assumed reply lengths (in tokens) and pass rates.

    Defaults: traces printed in VideoP2R have 60 to 75 words per segment, and 162,062 of 263,055
    questions survived all three steps (its sections 3.1.2 and 7.3).
    """

    trace_tokens: float = 220
    observation_tokens: float = 100
    judge_reply_tokens: float = 90
    share_verified: float = 0.8
    calls_per_question: float = 1.0
    source: str = "assumed, from the lengths and the survival published for VideoP2R"


@dataclass(frozen=True)
class StepEstimate:
    """Calls, tokens and dollars of one step; dollars are None if the price is unknown."""

    step: str
    backend: str
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    usd_batch: float | None


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


def arithmetic_tokens(request: ChatRequest) -> int:
    """Input tokens by rule of thumb: four characters a token, width x height / 750 a frame."""
    texts = math.ceil((len(request.text) + len(request.system)) / _CHARACTERS_PER_TOKEN)
    return texts + sum(
        math.ceil(image.width * image.height / _PIXELS_PER_TOKEN) for image in request.images
    )


class SpreadSample:
    """Evenly spaced questions from a stream of unknown length.

    Keeps every `stride`-th question; the stride doubles when more than twice `size` are kept.
    """

    def __init__(self, size: int = SAMPLE_SIZE) -> None:
        self._size = size
        self._stride = 1
        self.num_seen = 0
        self.questions: list[VideoQuestion] = []

    def add(self, question: VideoQuestion) -> None:
        """Pass on the next question of the stream."""
        if self.num_seen % self._stride == 0:
            self.questions.append(question)
            if len(self.questions) > 2 * self._size:
                self.questions = self.questions[::2]
                self._stride *= 2
        self.num_seen += 1


async def count_tokens(backend: Backend | None, request: ChatRequest) -> tuple[int, str]:
    """Input tokens, and what counted them."""
    if backend is not None:
        try:
            counted = await backend.count_tokens(request)
        except CallError as error:
            return arithmetic_tokens(request), f"arithmetic (the server's count failed: {error})"
        if counted is not None:
            return counted, "the server"
    return arithmetic_tokens(request), "arithmetic"


async def estimate(
    sample: SpreadSample,
    *,
    frames: FrameStore,
    settings: StepSettings,
    generator: Backend | None,
    judge: Backend | None,
    prices: tuple[ModelPrice | None, ModelPrice | None],
    assumptions: Assumptions,
) -> Estimate:
    """Estimate the stream that `sample` has seen. Undecodable questions cost nothing."""
    generate_tokens: list[int] = []
    judge_tokens: list[int] = []
    counters: set[str] = set()
    observation = "word " * math.ceil(assumptions.observation_tokens)
    for question in sample.questions:
        try:
            clips = [await frames.load(ref) for ref in question.media]
        except MediaError:
            continue
        request, _ = generation_request(question, clips, settings, attempt=0)
        tokens, counter = await count_tokens(generator, request)
        generate_tokens.append(tokens)
        counters.add(counter)
        request, _ = sufficiency_request(
            question, observation, max_tokens=settings.judge_max_tokens
        )
        tokens, counter = await count_tokens(judge, request)
        judge_tokens.append(tokens)
        counters.add(counter)
    decoded = len(generate_tokens) / max(1, len(sample.questions))
    generate_calls = sample.num_seen * decoded * assumptions.calls_per_question
    judge_calls = generate_calls * assumptions.share_verified
    steps = (
        _step(
            "generate",
            settings.generator,
            generate_calls,
            generate_tokens,
            assumptions.trace_tokens,
            prices[0],
        ),
        _step(
            "filter",
            settings.judge,
            judge_calls,
            judge_tokens,
            assumptions.judge_reply_tokens,
            prices[1],
        ),
    )
    return Estimate(
        questions=sample.num_seen,
        sampled=len(sample.questions),
        unreadable_in_sample=len(sample.questions) - len(generate_tokens),
        counted_by=", ".join(sorted(counters)) or "nobody: nothing to ask",
        assumptions=assumptions,
        steps=steps,
    )


def _step(
    name: str,
    backend: str,
    calls: float,
    input_tokens: list[int],
    output_per_call: float,
    price: ModelPrice | None,
) -> StepEstimate:
    mean_input = sum(input_tokens) / len(input_tokens) if input_tokens else 0.0
    usage = Usage(input_tokens=round(mean_input), output_tokens=round(output_per_call))
    return StepEstimate(
        step=name,
        backend=backend,
        calls=round(calls),
        input_tokens=round(calls * mean_input),
        output_tokens=round(calls * output_per_call),
        usd=None if price is None else calls * price.cost(usage, batch=False),
        usd_batch=None if price is None else calls * price.cost(usage, batch=True),
    )


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
        source=f"seen in this build's first {seen['questions']} questions",
    )
