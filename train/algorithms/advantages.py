"""Advantages: how much better a rollout did than the others of its group.

Shapes: R rollouts in groups of `group_size` consecutive ones, T completion tokens.
Computed in float64 if the rewards are float64, otherwise in float32.
"""

import torch
from torch import Tensor

from train.rollouts.segments import NOT_TRAINED, PERCEPTION, REASONING


def group_advantages(
    rewards: Tensor, group_size: int, *, scale: bool = True, eps: float = 1e-4
) -> Tensor:
    """Centre and scale rewards inside each group: A_i = (r_i - mean) / (std + eps).  [R] -> [R].

    DeepSeekMath (arXiv:2402.03300) section 4.1.2 and VideoP2R (arXiv:2511.11113) equation 1; `std`
    is the sample standard deviation (n - 1) and eps stands beside it as in TRL. `scale=False`
    divides by nothing: Dr. GRPO (arXiv:2503.20783) section 3.2.

    Deviations: NaN is a missing reward, left out of mean and std, with advantage 0. A group whose
    present rewards are all equal, a single one included, is flat: its advantages are exactly 0,
    where rounding of the mean divided by eps would leave noise of about 1e-3.
    """
    grouped = _groups(rewards, group_size)
    is_missing = grouped.isnan()
    num_present = (~is_missing).sum(dim=1, keepdim=True)
    mean = grouped.masked_fill(is_missing, 0.0).sum(dim=1, keepdim=True) / num_present
    centred = (grouped - mean).masked_fill(is_missing, 0.0)
    if scale:
        variance = centred.square().sum(dim=1, keepdim=True) / (num_present - 1)
        centred = centred / (variance.sqrt() + eps)
    return centred.masked_fill(is_missing | _is_flat(grouped)[:, None], 0.0).flatten()


def segment_advantages(
    perception_rewards: Tensor,
    reasoning_rewards: Tensor,
    segment_ids: Tensor,
    group_size: int,
    *,
    scale: bool = True,
    eps: float = 1e-4,
) -> Tensor:
    """Each segment's own group advantage on its own tokens.  [R], [R], [R, T] -> [R, T].

    VideoP2R (arXiv:2511.11113) equations 6 and 7: rewards of perception and of reasoning are
    normalised over the group apart from each other, because their scales differ. `segment_ids` is
    0 (not trained: advantage 0), 1 (perception) or 2 (reasoning). A rollout without tokens of a
    segment still counts in that segment's mean and std.
    """
    if perception_rewards.shape != reasoning_rewards.shape:
        raise ValueError(
            f"perception rewards {tuple(perception_rewards.shape)} and reasoning rewards"
            f" {tuple(reasoning_rewards.shape)} must have one value per rollout each; a missing"
            " one is NaN"
        )
    if segment_ids.ndim != 2 or segment_ids.shape[:1] != perception_rewards.shape:
        raise ValueError(
            f"segment ids {tuple(segment_ids.shape)} must be [rollouts, tokens] with one row for"
            f" each of the {len(perception_rewards)} rewards"
        )
    is_perception, is_reasoning = segment_ids == PERCEPTION, segment_ids == REASONING
    if not (is_perception | is_reasoning | (segment_ids == NOT_TRAINED)).all():
        raise ValueError(
            f"segment ids must be 0 (not trained), {PERCEPTION} (perception) or {REASONING}"
            f" (reasoning), got {sorted(set(segment_ids.flatten().tolist()))}"
        )
    perception = group_advantages(perception_rewards, group_size, scale=scale, eps=eps)[:, None]
    reasoning = group_advantages(reasoning_rewards, group_size, scale=scale, eps=eps)[:, None]
    nothing = torch.zeros((), dtype=reasoning.dtype, device=reasoning.device)
    return torch.where(is_perception, perception, torch.where(is_reasoning, reasoning, nothing))


def per_rollout(
    perception: Tensor | None, reasoning: Tensor, segment_ids: Tensor, *, scale: bool
) -> Tensor:
    """One advantage for all tokens of a rollout.  [G], [G], [G, N] -> [G, N]."""
    advantages = group_advantages(reasoning, len(reasoning), scale=scale)
    return advantages[:, None].expand(segment_ids.shape)


def per_segment(
    perception: Tensor, reasoning: Tensor, segment_ids: Tensor, *, scale: bool
) -> Tensor:
    """`segment_advantages` of one group.  [G], [G], [G, N] -> [G, N]."""
    return segment_advantages(perception, reasoning, segment_ids, len(reasoning), scale=scale)


def flat_groups(rewards: Tensor, group_size: int) -> Tensor:
    """Which groups teach nothing: all present rewards are equal.  [R] -> bool [R / group_size].

    VideoP2R (arXiv:2511.11113) section 5.4, "equal-reward groups"; here without a tolerance, as in
    `group_advantages`. A group with one reward or none present is flat.
    """
    return _is_flat(_groups(rewards, group_size))


def _is_flat(grouped: Tensor) -> Tensor:
    is_missing = grouped.isnan()
    highest = grouped.masked_fill(is_missing, -torch.inf).amax(dim=1)
    lowest = grouped.masked_fill(is_missing, torch.inf).amin(dim=1)
    return highest <= lowest


def _groups(rewards: Tensor, group_size: int) -> Tensor:
    if rewards.ndim != 1:
        raise ValueError(f"rewards must be one value per rollout, [R], got {tuple(rewards.shape)}")
    if group_size < 1 or len(rewards) % group_size:
        raise ValueError(
            f"{len(rewards)} rewards cannot be cut into groups of {group_size}: a split group has"
            " no group mean; give a whole number of groups"
        )
    if rewards.isinf().any():
        rollout = int(rewards.isinf().nonzero()[0])
        raise ValueError(
            f"the reward of rollout {rollout} is {rewards[rollout].item()}: its group has no mean;"
            " give a finite number, or NaN when the reward is missing"
        )
    dtype = torch.float64 if rewards.dtype == torch.float64 else torch.float32
    return rewards.to(dtype).view(-1, group_size)
