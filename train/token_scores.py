"""Log-probs and entropies of tokens from hidden states, without all their logits at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from train.divergence import at_least_float32

DEFAULT_LOGITS_AT_ONCE = 2**26


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each token its log-prob, the entropy and the log-normaliser of its distribution.

    [T, H], long [T] -> [T], [T], [T]. The distribution is softmax(lm_head(hidden) / temperature),
    in float32; its log-normaliser, logsumexp(lm_head(hidden) / temperature), has no gradient and
    spares whoever needs other log-probs of the token the sum over all of them. Where T times the
    vocabulary exceeds `logits_at_once`, tokens go in chunks whose logits are computed again in the
    backward pass instead of being kept.
    """
    vocabulary = lm_head(hidden[:1]).shape[-1]
    per_chunk = max(1, logits_at_once // vocabulary)

    def scores(part: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled = at_least_float32(lm_head(part)) / temperature
        scores_of_wanted = scaled.detach().gather(-1, wanted[:, None])[:, 0]
        logprobs = scaled.log_softmax(dim=-1)
        del scaled  # two tensors of all logits would be alive otherwise
        with torch.set_grad_enabled(torch.is_grad_enabled() and entropy_gradient):
            entropies = -(logprobs.exp() * logprobs).sum(dim=-1)
        of_wanted = logprobs.gather(-1, wanted[:, None])[:, 0]
        return of_wanted, entropies, scores_of_wanted - of_wanted.detach()

    if len(tokens) <= per_chunk:
        return scores(hidden, tokens)
    parts = [
        checkpoint(scores, part, wanted, use_reentrant=False)
        for part, wanted in zip(
            torch.split(hidden, per_chunk), torch.split(tokens, per_chunk), strict=True
        )
    ]
    logprobs, entropies, normalisers = (torch.cat(column) for column in zip(*parts, strict=True))
    return logprobs, entropies, normalisers
