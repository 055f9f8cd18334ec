"""Pieces of a generation: whole groups that are forwarded together, and who makes their parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from schemas.questions import VideoQuestion
from train.media_features import MediaFeatures, encode_media
from train.reward_groups import JudgeUse, PendingRewards
from train.rollout_groups import RolloutGroup, ScoredGroup
from train.rollout_progress import Progress
from train.rollouts import Sampling


@dataclass(frozen=True)
class StepReport:
    """What an optimizer step learned from, in this process."""

    step: int
    """Counted from 1."""
    groups: Sequence[ScoredGroup]
    judge: JudgeUse | None
    """None where no new completions were rewarded."""
    seconds: Mapping[str, float]
    """Time spent on `sampling` and on `scoring` old and reference log-probs; 0 where there were
    none."""
    gather: Callable[[list[float]], list[list[float]]]
    """The rows of all processes for this process's row."""


Observer = Callable[[StepReport], Mapping[str, float]]
"""Called in every process once per optimizer step; says what is to be logged of it."""


class RewardSource(Protocol):
    """Who rewards groups in the background: `train.reward_groups.GroupRewarder`."""

    def ask_ahead(self, question: VideoQuestion, text: str) -> bool:
        """Begin what a completion that starts with `text` will need; whether that is all of it."""

    def start(self, groups: Sequence[RolloutGroup]) -> PendingRewards:
        """Begin, and return at once."""


class RolloutSource(Protocol):
    """Who draws completions: `train.rollouts.sample_completions`, or somebody who replays them."""

    def __call__(
        self,
        model: Any,
        prompts: Sequence[Mapping[str, Tensor]],
        *,
        group_size: int,
        sampling: Sampling,
        end_ids: Sequence[int],
        seeds: Sequence[int] | None,
        features: Sequence[MediaFeatures] | None = None,
        share_prompts: bool = True,
        progress: Progress | None = None,
    ) -> list[list[Tensor]]:
        """Of each prompt `group_size` completions, long [C]; who can tells of their progress."""


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
    """A generation in so many parts of equally many groups, in order."""
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


def features_if_frozen(
    model: Any, prompts: Sequence[Mapping[str, Tensor]]
) -> list[MediaFeatures | None]:
    """What the tower of `model` (unwrapped) says of each prompt, for all passes of a step; None
    where it trains."""
    if any(parameter.requires_grad for parameter in model.model.visual.parameters()):
        return [None] * len(prompts)
    return [encode_media(model, prompt) for prompt in prompts]


def draw_seed(seed: int, step: int, question: VideoQuestion) -> int:
    """Of a group's draws: neither the process nor the batch it is drawn in changes them."""
    name = f"{seed}/{step}/{question.question_id}/{question.row}"
    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big")


def padded_groups(rows: Sequence[Tensor], width: int) -> Tensor:
    """[G, N] of each group, of different N -> [B, width] with zeros behind."""
    return torch.cat([torch.nn.functional.pad(each, (0, width - each.shape[1])) for each in rows])


def on_cpu(scored: ScoredGroup) -> ScoredGroup:
    """All that is told of a group; the prompt's pixels stay behind."""
    tensors = {
        name: value.detach().cpu()
        for name in ("advantages", "weights", "frame_attention", "crucial_frames")
        if (value := getattr(scored, name)) is not None
    }
    return replace(scored, group=replace(scored.group, prompt={}), **tensors)


def no_reward_function(**_: Any) -> list[float]:
    """TRL wants one; a `RewardSource` rewards instead, so TRL never gets to call this."""
    raise RuntimeError("rewards of a VideoGRPOTrainer come from its reward source")


def refuse_other_inputs(trainer: Any) -> None:
    """Raise ValueError for settings under which TRL would read what this trainer does not give."""
    size = trainer.args.per_device_train_batch_size
    if size % trainer.num_generations:
        raise ValueError(
            f"per_device_train_batch_size ({size}) must be a multiple of num_generations"
            f" ({trainer.num_generations}): a micro-batch holds whole groups"
        )
    if trainer.aux_loss_enabled:
        raise ValueError("router_aux_loss_coef must be 0: mixture-of-experts losses are not kept")
    if trainer.use_vllm:
        raise ValueError("use_vllm must be off: completions come from a rollout source")
