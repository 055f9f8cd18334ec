"""What calls will cost before any is paid: tokens of a request, and dollars of many like it.

Tokens are counted by the server's free count where there is one, else by rule of thumb. Builds
(`pipeline.estimate`) and training runs (`train.rewards.quote`) make their quotes of these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from judges.backends.base import Backend, CallError, ChatRequest, Usage
from judges.backends.prices import ModelPrice, Prices

_PIXELS_PER_TOKEN = 750  # Anthropic's published rule for images
_CHARACTERS_PER_TOKEN = 4


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


def estimated_step(
    name: str,
    backend: str,
    calls: float,
    input_tokens: Sequence[float],
    output_per_call: float,
    price: ModelPrice | None,
) -> StepEstimate:
    """The estimate of a step whose calls are like those with these input tokens."""
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


def arithmetic_tokens(request: ChatRequest) -> int:
    """Input tokens by rule of thumb: four characters a token, width x height / 750 a frame."""
    texts = math.ceil((len(request.text) + len(request.system)) / _CHARACTERS_PER_TOKEN)
    return texts + sum(
        math.ceil(image.width * image.height / _PIXELS_PER_TOKEN) for image in request.images
    )


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


def price_of(prices: Prices, spec: str) -> ModelPrice | None:
    """The price of the model that `spec` names; None where it is not known."""
    provider, _, rest = spec.partition(":")
    return prices.price(provider, rest.partition("@")[0])


def dollars(value: float | None) -> str:
    """A price as text: cents where it is large, a hundredth of them where it is small."""
    if value is None:
        return "price not known"
    return f"${value:,.2f}" if value >= 10 else f"${value:.4f}"
