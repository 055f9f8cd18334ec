"""How far the rollouts of a group differ at aligned tokens, without a `[G, N, V]` intermediate.

Shapes: G rollouts, N completion tokens, V vocabulary entries, H hidden size, S selected frames,
K slots. Slot j of a frame is one token of each rollout, the j-th of those chosen for this frame in
reading order. A token behind its rollout's end counts as the uniform distribution.

Every divergence here is a sum over vocabulary entries whose terms need only that entry, so the
vocabulary is walked in chunks and nothing grows with it. Computed in float64 if the input is
float64, otherwise in float32.
"""

import math
from collections.abc import Callable, Iterable
from typing import Literal, assert_never

import torch
from torch import Tensor

from train.modeling.numerics import at_least_float32

Divergence = Literal["released", "kl"]

DEFAULT_VOCABULARY_CHUNK = 4096
_RELEASED_CLAMP = 11.0
# Stands for a log-probability of minus infinity. Any number far below the clamp gives the limit.
_LOG_OF_ZERO = -1e4
# On a CPU, numbers at a time that stay in its cache, in memory that was used just before.
_NUMBERS_AT_ONCE_ON_CPU = 2**18


def slot_divergence(logprobs: Tensor, divergence: Divergence) -> Tensor:
    """The share of some vocabulary entries in the divergence of each slot.  [G, K, V'] -> [K].

    "released": the published code of APPO (arXiv:2602.23823),

        mu_v = mean_i l_iv,   d_iv = clamp(mu_v - l_iv, -11, 11)
        D = 1/G sum_i sum_v (exp(d_iv) - d_iv - 1)

    It takes the geometric mean and does not weight with p, so it is no KL divergence.
    "kl": the paper's, supplement A.2, with the arithmetic mean m = E[p],

        D = sum_i sum_v p_iv (l_iv - ln m_v) = sum_i sum_v p_iv (exp(t_iv) - t_iv - 1),
        t_iv = ln m_v - l_iv

    The second form is the same number, because sum_i (m_v - p_iv) = 0, but all its terms are
    positive: in float32 nothing cancels between near-equal distributions. A log-probability of
    minus infinity is probability 0, the limit of ever smaller ones.
    """
    logprobs = logprobs.clamp(min=_LOG_OF_ZERO)
    # Differences are taken from the largest of the group: exact between close log-probs, so equal
    # distributions have a divergence of exactly 0 whatever G is.
    centre = logprobs.amax(dim=0, keepdim=True).detach()
    centred = logprobs - centre
    match divergence:
        case "released":
            distance = (centred.mean(dim=0, keepdim=True) - centred).clamp(
                -_RELEASED_CLAMP, _RELEASED_CLAMP
            )
            return (torch.expm1(distance) - distance).sum(dim=-1).mean(dim=0)
        case "kl":
            log_mean = centred.logsumexp(dim=0, keepdim=True) - math.log(len(centred))
            distance, probability = log_mean - centred, logprobs.exp()
            near = distance.clamp(max=1.0)
            terms = torch.where(
                distance <= 1.0,
                probability * (torch.expm1(near) - near),
                (log_mean + centre).exp() - probability - probability * distance,
            )
            return terms.sum(dim=(0, -1))
        case _:
            assert_never(divergence)


def divergences_from_logprobs(
    logprobs: Tensor,
    completion_mask: Tensor,
    columns: Tensor,
    divergence: Divergence,
    *,
    vocabulary_chunk: int = DEFAULT_VOCABULARY_CHUNK,
) -> Tensor:
    """Divergence of each slot of each frame from log-probs.

    `logprobs` [G, N, V], `completion_mask` bool [G, N], `columns` [S, G, K] (which token of rollout
    i stands in slot j of frame s) -> [S, K]. Differentiable with respect to `logprobs`.

    Or `logprobs` [T, V] of the T tokens of the mask alone, one rollout after another.
    """
    num_entries = logprobs.shape[-1]
    cells = _cells(columns, completion_mask.shape[1])
    is_alive = completion_mask.flatten()[cells]
    table = logprobs.reshape(-1, num_entries)
    rows = cells
    if logprobs.ndim == 2:
        rows = completion_mask.flatten().cumsum(0)[cells] - 1
        rows = rows.masked_fill(~is_alive, len(table))  # no token's row
    chunks = (
        table[:, start : start + vocabulary_chunk]
        for start in range(0, num_entries, vocabulary_chunk)
    )
    return _sum_over_chunks(chunks, rows, is_alive, num_entries, divergence)


def divergences_from_hidden(
    hidden_states: Tensor,
    lm_head_weight: Tensor,
    completion_mask: Tensor,
    columns: Tensor,
    divergence: Divergence,
    *,
    lm_head_bias: Tensor | None = None,
    temperature: float = 1.0,
    vocabulary_chunk: int = DEFAULT_VOCABULARY_CHUNK,
    log_normalisers: Tensor | None = None,
) -> Tensor:
    """As `divergences_from_logprobs`, of log_softmax((h W^T + b) / temperature), V streamed.

    `hidden_states` [G, N, H] (row n is the position that predicts token n), `lm_head_weight`
    [V, H], `lm_head_bias` [V] or None -> [S, K]. Only tokens that some frame chose meet the head,
    twice: once for their log-normaliser, where `log_normalisers` [G, N] does not give it, once for
    the divergence. The product is taken in the head's dtype, as the model does it, the rest in
    float32. Not differentiable.
    """
    num_rollouts, num_tokens, width = hidden_states.shape
    # Row of each slot's token among the distinct tokens that some frame chose.
    tokens, rows = torch.unique(_cells(columns, num_tokens), return_inverse=True)
    with torch.no_grad():
        chosen = hidden_states.reshape(num_rollouts * num_tokens, width)[tokens]
        chosen = chosen.to(lm_head_weight.dtype)
        num_entries = len(lm_head_weight)

        def logits(start: int) -> Tensor:
            stop = start + vocabulary_chunk
            bias = None if lm_head_bias is None else lm_head_bias[start:stop]
            scores = torch.nn.functional.linear(chosen, lm_head_weight[start:stop], bias)
            return at_least_float32(scores) / temperature

        starts = range(0, num_entries, vocabulary_chunk)
        if log_normalisers is None:
            normaliser = _log_normaliser(logits, starts)
        else:
            normaliser = log_normalisers.reshape(-1, 1)[tokens]
        chunks = (logits(start) - normaliser for start in starts)
        is_alive = completion_mask.flatten()[tokens][rows]
        return _sum_over_chunks(chunks, rows, is_alive, num_entries, divergence)


def _cells(columns: Tensor, num_tokens: int) -> Tensor:
    """[S, G, K] columns of tokens -> their places in a flattened [G, N] table."""
    first = num_tokens * torch.arange(columns.shape[1], device=columns.device)
    return columns + first[None, :, None]


def _log_normaliser(logits: Callable[[int], Tensor], starts: Iterable[int]) -> Tensor:
    total: Tensor | None = None
    for start in starts:
        part = logits(start).logsumexp(dim=-1, keepdim=True)
        total = part if total is None else torch.logaddexp(total, part)
    assert total is not None, "the vocabulary is empty"
    return total


def _sum_over_chunks(
    chunks: Iterable[Tensor],
    rows: Tensor,
    is_alive: Tensor,
    num_entries: int,
    divergence: Divergence,
) -> Tensor:
    """Chunks [tokens, V'] of a table of log-probs, `rows` and `is_alive` [S, G, K] -> [S, K].

    Tokens that are not alive may have a row behind the table's end.

    A slot that holds the same tokens in several frames is computed once: all of them do where no
    completion has more than K tokens.
    """
    num_frames, num_rollouts, num_slots = rows.shape
    uniform = -math.log(num_entries)
    slots, slot_of = torch.unique(
        rows.transpose(1, 2).reshape(-1, num_rollouts), dim=0, return_inverse=True
    )
    is_dead = torch.empty_like(slots, dtype=torch.bool)
    is_dead[slot_of] = ~is_alive.transpose(1, 2).reshape(-1, num_rollouts)
    has_dead = bool(is_dead.any())
    total: Tensor | None = None
    for chunk in chunks:
        parts = []
        at_once = num_slots
        if not chunk.is_cuda:
            numbers_of_slot = num_rollouts * chunk.shape[1]
            at_once = min(at_once, max(1, _NUMBERS_AT_ONCE_ON_CPU // numbers_of_slot))
        for some, some_are_dead in zip(
            torch.split(slots, at_once), torch.split(is_dead, at_once), strict=True
        ):
            selected = at_least_float32(chunk[some.T.clamp(max=len(chunk) - 1)])
            if has_dead:
                selected = selected.masked_fill(some_are_dead.T[..., None], uniform)
            parts.append(slot_divergence(selected, divergence))
        share = torch.cat(parts)
        total = share if total is None else total + share
    assert total is not None, "the vocabulary is empty"
    return total[slot_of].view(num_frames, num_slots)
