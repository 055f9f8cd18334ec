"""Random groups of rollouts, as APPO's weights take them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """G rollouts of N tokens over F frames and V vocabulary entries; float64."""

    attention: Tensor
    logprobs: Tensor
    mask: Tensor
    rewards: Tensor

    @property
    def args(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.attention, self.logprobs, self.mask, self.rewards


def random_group(
    seed: int,
    *,
    rollouts: int = 4,
    tokens: int = 12,
    frames: int = 5,
    entries: int = 17,
    num_levels: int | None = None,
) -> Group:
    """Ragged completions, attention 0 behind their ends, some rewards missing.

    With `num_levels` attention takes few distinct values, so that ties are common.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    lengths = torch.randint(1, tokens + 1, (rollouts,), generator=generator)
    mask = torch.arange(tokens)[None, :] < lengths[:, None]
    attention = uniform(rollouts, tokens, frames) + 0.01
    if num_levels is not None:
        attention = (attention * num_levels).ceil() / num_levels
    attention = attention * mask[..., None]
    logits = 3.0 * torch.randn(rollouts, tokens, entries, generator=generator, dtype=torch.float64)
    choices = torch.tensor([0.0, 0.3, 0.5, 1.0, math.nan], dtype=torch.float64)
    rewards = choices[torch.randint(0, 5, (rollouts,), generator=generator)]
    return Group(attention, logits.log_softmax(dim=-1), mask, rewards)
