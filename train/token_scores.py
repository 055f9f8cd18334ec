"""Log-probs and entropies of tokens from hidden states, without all their logits at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from train.divergence import at_least_float32

DEFAULT_LOGITS_AT_ONCE = 2**26


@dataclass(frozen=True)
class TokenScores:
    """What the LM head says of T tokens, in float32."""

    logprobs: Tensor
    """[T], of the tokens themselves."""
    entropies: Tensor
    """[T] in nats."""
    log_normalisers: Tensor
    """[T], logsumexp(logits / temperature), without gradient: spares whoever needs other log-probs
    of a token the sum over all of them."""
    all_logprobs: Tensor | None
    """[T, V] without gradient, where the backward pass keeps it anyway; else None."""


def head_inputs(model: Any, lm_head: Any, columns: Tensor, **inputs: Any) -> Tensor:
    """What the LM head reads at `columns` [R] of a forward: [B, R, H].

    Calls `model` as a whole, so that wrappers (DistributedDataParallel, peft) see an ordinary
    forward; the head itself runs on the first column only, and its logits are thrown away.
    """
    seen: list[Tensor] = []

    def keep(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
        seen.append(arguments[0])
        return (arguments[0][:1, :1],)

    hook = lm_head.register_forward_pre_hook(keep)
    try:
        model(logits_to_keep=columns, **inputs)
    finally:
        hook.remove()
    (hidden,) = seen
    return hidden


def token_scores(
    lm_head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    tokens: Tensor,
    *,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
    logits_at_once: int = DEFAULT_LOGITS_AT_ONCE,
) -> TokenScores:
    """Scores of `tokens` [T] under softmax(lm_head(hidden) / temperature), `hidden` [T, H].

    Where T times the vocabulary exceeds `logits_at_once`, tokens go in chunks whose logits are
    computed again in the backward pass instead of being kept.
    """
    vocabulary = lm_head(hidden[:1]).shape[-1]
    per_chunk = max(1, logits_at_once // vocabulary)

    def scores(part: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scaled = at_least_float32(lm_head(part)) / temperature
        scores_of_wanted = scaled.detach().gather(-1, wanted[:, None])[:, 0]
        logprobs = scaled.log_softmax(dim=-1)
        del scaled  # two tensors of all logits would be alive otherwise
        with torch.set_grad_enabled(torch.is_grad_enabled() and entropy_gradient):
            entropies = -(logprobs.exp() * logprobs).sum(dim=-1)
        of_wanted = logprobs.gather(-1, wanted[:, None])[:, 0]
        return of_wanted, entropies, scores_of_wanted - of_wanted.detach(), logprobs

    if len(tokens) <= per_chunk:
        of_wanted, entropies, normalisers, every = scores(hidden, tokens)
        kept = every.detach() if every.requires_grad else None
        return TokenScores(of_wanted, entropies, normalisers, kept)
    parts = [
        checkpoint(lambda *given: scores(*given)[:3], part, wanted, use_reentrant=False)
        for part, wanted in zip(
            torch.split(hidden, per_chunk), torch.split(tokens, per_chunk), strict=True
        )
    ]
    of_wanted, entropies, normalisers = (torch.cat(column) for column in zip(*parts, strict=True))
    return TokenScores(of_wanted, entropies, normalisers, None)
