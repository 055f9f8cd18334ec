"""Log-probs and entropies of tokens, inside of a forward and without all their logits at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from train.modeling.numerics import at_least_float32

DEFAULT_LOGITS_AT_ONCE = 2**26


@dataclass(frozen=True)
class TokenLogprobs:
    """Log-probs of T tokens and what is computed with them, in float32."""

    logprobs: Tensor
    """[T], of the tokens themselves."""
    entropies: Tensor
    """[T] in nats."""
    log_normalisers: Tensor
    """[T], logsumexp(logits / temperature), without gradient: with it, further log-probs of a
    position need no sum over the vocabulary."""
    all_logprobs: Tensor | None
    """[T, V] without gradient, where the backward pass keeps it anyway; else None."""

    def part(self, tokens: slice) -> "TokenLogprobs":
        """Of some neighbouring tokens."""
        return TokenLogprobs(
            self.logprobs[tokens],
            self.entropies[tokens],
            self.log_normalisers[tokens],
            None if self.all_logprobs is None else self.all_logprobs[tokens],
        )


@dataclass(frozen=True)
class HeadOptions:
    """How the LM head's outputs become log-probs, see `token_logprobs`."""

    temperature: float = 1.0
    entropy_gradient: bool = False
    logits_at_once: int = DEFAULT_LOGITS_AT_ONCE


def scored_in_head(
    model: Any,
    lm_head: Any,
    columns: Tensor,
    tokens: Tensor,
    options: HeadOptions,
    row_lengths: Sequence[int] | None = None,
    /,
    **inputs: Any,
) -> tuple[TokenLogprobs, Tensor]:
    """Log-probs of `tokens` [T] and the head's inputs [T, H], without gradient, of one forward.

    `columns` [R] of each row predict its tokens, the first `row_lengths` of them where rows are
    ragged. Log-probs are computed inside of the model's forward, in place of its LM head, and come
    out as its output: whoever keeps weights in parts (FSDP, ZeRO-3) gathers a head only between a
    forward's hooks, and in a backward pass only where the loss hangs on the module's output.
    A wrapper must therefore leave the output's precision as it is.
    """
    found: list[tuple[TokenLogprobs, Tensor]] = []
    head = lm_head.forward

    def score(hidden: Tensor) -> Tensor:
        rows = hidden if row_lengths is None else _first_of_rows(hidden, row_lengths)
        flat = rows.flatten(0, -2)
        own = token_logprobs(head, flat, tokens.to(flat.device), **vars(options))
        found.append((own, flat.detach()))
        return torch.stack([own.logprobs[None], own.entropies[None]], dim=-1)

    with _forward_replaced(lm_head, score):
        output = model(logits_to_keep=columns, **inputs).logits
    ((own, hidden),) = found
    logprobs, entropies = output[0].unbind(dim=-1)
    if not options.entropy_gradient:
        entropies = entropies.detach()
    return replace(own, logprobs=logprobs, entropies=entropies), hidden


def _first_of_rows(hidden: Tensor, lengths: Sequence[int]) -> Tensor:
    """The first `lengths` of rows [B, R, H], one row after another: [T, H]."""
    return torch.cat([row[:length] for row, length in zip(hidden, lengths, strict=True)])


@contextmanager
def _forward_replaced(module: Any, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """In this block calls of `module` run `forward`, between the hooks that it has."""
    before = vars(module).get("forward")  # TRL puts one there to compute in float32
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def token_logprobs(
    lm_head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    tokens: Tensor,
    *,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
    logits_at_once: int = DEFAULT_LOGITS_AT_ONCE,
) -> TokenLogprobs:
    """Log-probs of `tokens` [T] under softmax(lm_head(hidden) / temperature), `hidden` [T, H].

    Where T times the vocabulary exceeds `logits_at_once`, tokens are processed in chunks whose
    logits are recomputed in the backward pass instead of being kept.
    """
    vocabulary = lm_head(hidden[:1]).shape[-1]
    per_chunk = max(1, logits_at_once // vocabulary)

    def of_chunk(part: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scaled = at_least_float32(lm_head(part)) / temperature
        logits_of_wanted = scaled.detach().gather(-1, wanted[:, None])[:, 0]
        logprobs = scaled.log_softmax(dim=-1)
        del scaled  # two tensors of all logits would be alive otherwise
        with torch.set_grad_enabled(torch.is_grad_enabled() and entropy_gradient):
            entropies = -(logprobs.exp() * logprobs).sum(dim=-1)
        of_wanted = logprobs.gather(-1, wanted[:, None])[:, 0]
        return of_wanted, entropies, logits_of_wanted - of_wanted.detach(), logprobs

    if len(tokens) <= per_chunk:
        of_wanted, entropies, normalisers, every = of_chunk(hidden, tokens)
        kept = every.detach() if every.requires_grad else None
        return TokenLogprobs(of_wanted, entropies, normalisers, kept)
    parts = [
        checkpoint(lambda *given: of_chunk(*given)[:3], part, wanted, use_reentrant=False)
        for part, wanted in zip(
            torch.split(hidden, per_chunk), torch.split(tokens, per_chunk), strict=True
        )
    ]
    of_wanted, entropies, normalisers = (torch.cat(column) for column in zip(*parts, strict=True))
    return TokenLogprobs(of_wanted, entropies, normalisers, None)
