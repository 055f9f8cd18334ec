"""How the next token follows from its scores: the rules and their order are transformers' own.

Repetition penalty, temperature, top-k, top-p, min-p, then one draw. A row's draw is a number in
[0, 1) that depends on its group's seed, its place in the group and the token's index only
(`row_draws`), and picks the token whose share of the distribution, in the order of the vocabulary,
holds it. So neither neighbours in the batch nor rows that ended earlier change what a row draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.divergence import at_least_float32


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn; the defaults are the model's own distribution.

    Raises ValueError for values without a meaning.
    """

    max_new_tokens: int
    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all tokens."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """Above 1, tokens of the prompt and of the completion so far become less likely."""

    def __post_init__(self) -> None:
        """Refuse what no distribution follows from."""
        for name, is_right, expected in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "0 or above"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (all tokens) or above"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
        ):
            if not is_right:
                raise ValueError(f"{name} must be {expected}, got {getattr(self, name)}")


def row_draws(seeds: Sequence[int], group_size: int, num_tokens: int) -> Tensor:
    """Numbers in [0, 1), float64 [groups * group_size, num_tokens], rows of a group together."""
    draws = [
        np.random.default_rng((seed, row)).random(num_tokens)
        for seed in seeds
        for row in range(group_size)
    ]
    return torch.from_numpy(np.stack(draws))


def next_tokens(
    logits: Tensor, sampling: Sampling, *, draws: Tensor | None, seen: Tensor | None
) -> Tensor:
    """One token for each row: [R, V] -> long [R].

    `draws` float64 [R], needed unless the temperature is 0; `seen` bool [R, V], the tokens that the
    repetition penalty meets, needed where there is one.
    """
    scores = at_least_float32(logits)
    if seen is not None:
        penalised = torch.where(
            scores < 0, scores * sampling.repetition_penalty, scores / sampling.repetition_penalty
        )
        scores = torch.where(seen, penalised, scores)
    if draws is None:
        return scores.argmax(dim=-1)
    shares = restricted(scores / sampling.temperature, sampling).softmax(dim=-1)
    # In float64: over a large vocabulary a float32 sum would shift the borders between tokens.
    borders = shares.double().cumsum(dim=-1)
    total = borders[:, -1:]
    below_total = torch.nextafter(total, torch.zeros_like(total))
    places = torch.minimum(draws[:, None] * total, below_total)
    return torch.searchsorted(borders, places, right=True)[:, 0]


def restricted(scores: Tensor, sampling: Sampling) -> Tensor:
    """Scores [R, V] after the temperature, with minus infinity where a token must not be drawn."""
    if 0 < sampling.top_k < scores.shape[-1]:
        last = scores.topk(sampling.top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < last, -torch.inf)
    if sampling.top_p < 1:
        ascending, order = scores.sort(dim=-1)
        is_out = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - sampling.top_p
        is_out[:, -1] = False
        scores = scores.masked_fill(is_out.scatter(-1, order, is_out), -torch.inf)
    if sampling.min_p > 0:
        shares = scores.softmax(dim=-1)
        scores = scores.masked_fill(
            shares < sampling.min_p * shares.amax(dim=-1, keepdim=True), -torch.inf
        )
    return scores
