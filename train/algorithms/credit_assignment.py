"""Credit assignment: turns a group's rewards into per-token advantages and, with a token weighting,
per-token factors on them.

Shapes: G rollouts of a group, N tokens of its longest completion, F frames. This is all that an
algorithm is to the trainer: TRL's loss is given advantages times weights, [rollouts, tokens], and
never learns the algorithm's name. Weights multiply the policy term only, because the KL term takes
no advantages.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from train.algorithms.registry import ADVANTAGES, AlgoSpec, GroupReward
from train.algorithms.token_weighting import (
    AlgorithmError,
    TokenWeighting,
    TokenWeights,
    WeightingInputs,
    blaming,
)
from train.modeling.packed_forward import GroupLogprobs
from train.rollouts.types import GroupRewards, RolloutGroup, ScoredGroup, SegmentReward


@dataclass(frozen=True)
class CreditAssignment:
    """An algorithm with its options, as a function from rewards to numbers per token."""

    algo: AlgoSpec
    scale: bool
    """Whether advantages are divided by the group's standard deviation."""
    group_reward: GroupReward = "reasoning"
    """The one reward of a rollout where advantages do not read perception's: its reasoning reward,
    or the sum of both (VideoP2R's "without separation")."""
    weighting: TokenWeighting | None = None
    """None: no weights."""

    def __post_init__(self) -> None:
        name = "" if self.weighting is None else self.weighting.name
        if self.algo.weighting != name:
            raise ValueError(
                f"{self.algo.name} has the token weighting {self.algo.weighting!r}, but"
                f" {name!r} was given"
            )

    @property
    def needs_frame_attention(self) -> bool:
        """Whether the policy pass must give frame attention."""
        return self.weighting is not None and "frame_attention" in self.weighting.needs

    def score(
        self,
        group: RolloutGroup,
        rewards: GroupRewards,
        logprobs: GroupLogprobs | None,
        lm_head: Any,
        temperature: float,
    ) -> ScoredGroup:
        """Advantages and weights of one group, from the policy's own pass over it.

        `logprobs` may be None without a token weighting, which alone reads them. `lm_head` is the
        policy's output embedding. Raises ValueError where the algorithm reads perception rewards
        and there are none, and AlgorithmError where the advantage function or the token weighting
        raises, or gives something else than finite numbers for all tokens.
        """
        segments = pad_sequence([r.segment_ids for r in group.rollouts], batch_first=True)
        mask = _mask(group) if logprobs is None else logprobs.mask
        advantages = self._advantages(rewards, segments, mask)
        if self.weighting is None:
            return ScoredGroup(group, rewards, advantages, None, None, None)
        assert logprobs is not None, "a token weighting reads the policy's pass"
        attention = logprobs.frame_attention
        has_frames = attention is not None and attention.shape[2] > 0
        if self.needs_frame_attention and not has_frames:
            return ScoredGroup(group, rewards, advantages, None, None, None)
        inputs = WeightingInputs(
            group, rewards, logprobs, segments.to(mask.device), lm_head, temperature
        )
        found = self._weights(self.weighting, inputs)
        # behind a completion's end may lie any number
        weights = torch.where(mask, found.weights.detach().to(mask.device), 1.0)
        return ScoredGroup(group, rewards, advantages, weights, attention, found.crucial_frames)

    def _weights(self, weighting: TokenWeighting, inputs: WeightingInputs) -> TokenWeights:
        what = f"the token weighting {weighting.name}"
        with blaming(what):
            found = weighting.weights(inputs)
        mask = inputs.logprobs.mask
        if not isinstance(found, TokenWeights):
            raise AlgorithmError(f"{what} must give TokenWeights, got {type(found).__name__}")
        _check_numbers(f"{what} must give a finite factor", found.weights, mask)
        frames = found.crucial_frames
        if frames is not None:
            _check_frames(what, frames, inputs.logprobs.frame_attention)
        return found

    def _advantages(self, rewards: GroupRewards, segments: Tensor, mask: Tensor) -> Tensor:
        """float32 [G, N], on the device of `mask`; 0 behind a completion's end."""
        advantage = ADVANTAGES[self.algo.advantages]
        reasoning, perception = _totals(rewards.reasoning), None
        if advantage.reads_perception:
            perception = _totals(self._perception(rewards))
        elif self.group_reward == "sum":
            reasoning = reasoning + _totals(self._perception(rewards))
        what = f"the advantage function {advantage.name}"
        with blaming(what):
            found = advantage.load()(perception, reasoning, segments, scale=self.scale)
        _check_numbers(f"{what} must give a number", found, mask)
        return torch.where(mask, found.detach().to(mask.device).float(), 0.0)

    def _perception(self, rewards: GroupRewards) -> tuple[SegmentReward, ...]:
        if rewards.perception is None:
            raise ValueError(
                f"{self.algo.name} with these options reads perception rewards, but nothing"
                " rewarded the rollouts' observations: there was no judge, or no observation"
            )
        return rewards.perception


def _mask(group: RolloutGroup) -> Tensor:
    """bool [G, N], the completions' tokens, where the prompt is."""
    rows = [torch.ones_like(rollout.token_ids, dtype=torch.bool) for rollout in group.rollouts]
    return pad_sequence(rows, batch_first=True).to(group.prompt["input_ids"].device)


def _totals(rewards: tuple[SegmentReward, ...]) -> Tensor:
    """float64 [G]: sums of terms keep the digits that decide whether a group is flat."""
    return torch.tensor([reward.total for reward in rewards], dtype=torch.float64)


def _check_numbers(must: str, found: object, mask: Tensor) -> None:
    """Raise AlgorithmError unless it is a tensor of one finite number for each token."""
    must = f"{must} for each token, {list(mask.shape)}"
    if not isinstance(found, Tensor) or found.is_complex():
        kind = found.dtype if isinstance(found, Tensor) else type(found).__name__
        raise AlgorithmError(f"{must}, got {kind}; return a real tensor")
    if found.shape != mask.shape:
        raise AlgorithmError(f"{must}, got {list(found.shape)}")
    # a number that is finite in float64 may be too large for the loss
    if not found.to(mask.device)[mask].float().isfinite().all():
        raise AlgorithmError(f"{must}, got {list(found.shape)} with non-finite ones (NaN or inf)")


def _check_frames(what: str, frames: Any, attention: Tensor | None) -> None:
    """Raise AlgorithmError unless they are bool [F]."""
    num_frames = None if attention is None else attention.shape[2]
    is_mask = isinstance(frames, Tensor) and frames.dtype == torch.bool and frames.ndim == 1
    if not is_mask or (num_frames is not None and frames.shape != (num_frames,)):
        raise AlgorithmError(
            f"{what} must give crucial frames as a bool tensor, one for each frame"
            + ("" if num_frames is None else f", [{num_frames}]")
        )
