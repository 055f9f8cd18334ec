"""Micro-batches: each holds whole prompt groups, so group statistics never cross one.

A micro-batch is forwarded at once, or in passes of fewer completions, down to parts of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from train.modeling.vision_cache import MediaFeatures
from train.rollouts.types import RolloutGroup, ScoredGroup


@dataclass(frozen=True)
class Pass:
    """Completions of a micro-batch that are forwarded together: neighbouring rows."""

    rows: slice
    """Of the micro-batch's B rows."""
    parts: tuple[tuple[int, slice], ...]
    """Of each group, by its number in the micro-batch, which rollouts."""


@dataclass
class MicroBatch:
    """Whole groups, which are learned from with one loss."""

    groups: Sequence[RolloutGroup]
    features: Sequence[MediaFeatures | None]
    numbers: slice
    """Which of the generation's groups these are."""
    tensors: dict[str, Tensor]
    """What TRL's loss reads."""
    passes: tuple[Pass, ...]
    """What is forwarded together; each row is in one of them, in order."""
    scored: list[ScoredGroup] | None = None
    """None until the first policy pass; a second one (`num_iterations`) keeps these numbers."""


def micro_batches(
    groups: Sequence[RolloutGroup],
    features: Sequence[MediaFeatures | None],
    *,
    count: int,
    per_pass: int | None,
    mask_truncated: bool,
    device: torch.device,
) -> list[MicroBatch]:
    """A generation in `count` parts of equally many groups, in order; see `passes_of`."""
    size = len(groups) // count
    slices = [slice(first, first + size) for first in range(0, len(groups), size)]
    return [
        MicroBatch(
            groups[part],
            features[part],
            part,
            _loss_tensors(groups[part], mask_truncated=mask_truncated, device=device),
            passes_of([group.size for group in groups[part]], per_pass),
        )
        for part in slices
    ]


def passes_of(sizes: Sequence[int], per_pass: int | None) -> tuple[Pass, ...]:
    """Passes of at most `per_pass` completions over groups of these sizes; None is one pass.

    A pass holds whole groups where one fits, else a part of one group; the parts of a group differ
    by at most one completion.
    """
    at_most = sum(sizes) if per_pass is None else per_pass
    passes: list[list[tuple[int, slice]]] = []
    for number, size in enumerate(sizes):
        parts = [(number, part) for part in _parts(size, at_most)]
        if passes and len(parts) == 1 and _num_rows(passes[-1]) + size <= at_most:
            passes[-1] += parts
        else:
            passes += [[part] for part in parts]
    ends = list(accumulate(map(_num_rows, passes), initial=0))
    return tuple(
        Pass(slice(first, last), tuple(parts))
        for first, last, parts in zip(ends[:-1], ends[1:], passes, strict=True)
    )


def _parts(size: int, at_most: int) -> list[slice]:
    count = ceil(size / at_most)
    bounds = [size * place // count for place in range(count + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


def _num_rows(parts: Sequence[tuple[int, slice]]) -> int:
    return sum(part.stop - part.start for _, part in parts)


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


def groups_of(batch: MicroBatch, policy: Tensor) -> list[Tensor]:
    """Log-probs [G, N] of each group by the weights that its generation began with.

    `policy` [B, T] are those of the first policy pass; where updates lie before it, the old ones
    count.
    """
    old = batch.tensors.get("old_per_token_logps")
    rows = torch.split(policy if old is None else old, [group.size for group in batch.groups])
    return [
        own[:, : max(len(rollout.token_ids) for rollout in group.rollouts)]
        for own, group in zip(rows, batch.groups, strict=True)
    ]


def padded_groups(rows: Sequence[Tensor], width: int) -> Tensor:
    """[G, N] of each group, of different N -> [B, width] with zeros behind."""
    return torch.cat([torch.nn.functional.pad(each, (0, width - each.shape[1])) for each in rows])
