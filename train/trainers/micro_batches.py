"""Micro-batches: each holds whole prompt groups, so group statistics never cross a forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from train.modeling.vision_cache import MediaFeatures
from train.rollouts.types import RolloutGroup, ScoredGroup


@dataclass
class MicroBatch:
    """Whole groups that are forwarded together."""

    groups: Sequence[RolloutGroup]
    features: Sequence[MediaFeatures | None]
    numbers: slice
    """Which of the generation's groups these are."""
    tensors: dict[str, Tensor]
    """What TRL's loss reads."""
    scored: list[ScoredGroup] | None = None
    """None until the first policy pass; a second one (`num_iterations`) keeps these numbers."""


def micro_batches(
    groups: Sequence[RolloutGroup],
    features: Sequence[MediaFeatures | None],
    *,
    count: int,
    mask_truncated: bool,
    device: torch.device,
) -> list[MicroBatch]:
    """A generation in `count` parts of equally many groups, in order."""
    size = len(groups) // count
    slices = [slice(first, first + size) for first in range(0, len(groups), size)]
    return [
        MicroBatch(
            groups[part],
            features[part],
            part,
            _loss_tensors(groups[part], mask_truncated=mask_truncated, device=device),
        )
        for part in slices
    ]


def _loss_tensors(
    groups: Sequence[RolloutGroup], *, mask_truncated: bool, device: torch.device
) -> dict[str, Tensor]:
    """What TRL's loss reads of completions: ids and mask [B, T], and prompts of no width.

    The prompts travel in the groups. `mask_truncated` leaves completions without an end out of the
    loss.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    ids = pad_sequence([rollout.token_ids for rollout in rollouts], batch_first=True)
    mask = pad_sequence([torch.ones_like(r.token_ids) for r in rollouts], batch_first=True)
    if mask_truncated:
        mask = mask * torch.tensor([not rollout.is_truncated for rollout in rollouts])[:, None]
    ids, mask = ids.to(device), mask.to(device)
    return {
        "prompt_ids": ids[:, :0],
        "prompt_mask": mask[:, :0],
        "completion_ids": ids,
        "completion_mask": mask,
    }


def groups_of(batch: MicroBatch, policy: Sequence[Tensor]) -> list[Tensor]:
    """Log-probs [G, N] of each group by the weights that its generation began with.

    `policy` are those of the first policy pass; where updates lie before it, the old ones count.
    """
    old = batch.tensors.get("old_per_token_logps")
    if old is None:
        return list(policy)
    rows = torch.split(old, [group.size for group in batch.groups])
    return [own[:, : each.shape[1]] for own, each in zip(rows, policy, strict=True)]


def padded_groups(rows: Sequence[Tensor], width: int) -> Tensor:
    """[G, N] of each group, of different N -> [B, width] with zeros behind."""
    return torch.cat([torch.nn.functional.pad(each, (0, width - each.shape[1])) for each in rows])
