"""What a group's rewards make of its update: advantages per token, and APPO's weights on them.

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

from train.advantages import group_advantages, segment_advantages
from train.algorithms import AlgoSpec, GroupReward, RightBy, WeightedTokens
from train.appo import AppoConfig, select_frames, token_weights_from_hidden
from train.grouped_forward import GroupScores
from train.rewards import SegmentReward
from train.rollout_groups import GroupRewards, RolloutGroup, ScoredGroup
from train.segments import PERCEPTION


@dataclass(frozen=True)
class UpdateRule:
    """An algorithm with its options, as a function from rewards to numbers per token."""

    algo: AlgoSpec
    scale: bool
    """Whether advantages are divided by the group's standard deviation."""
    group_reward: GroupReward = "reasoning"
    """The one reward of a rollout where advantages are per rollout: its reasoning reward, or the
    sum of both (VideoP2R's "without separation")."""
    appo: AppoConfig | None = None
    """None: no weights."""
    right_by: RightBy = "accuracy"
    """Which accuracy says whether a rollout is right, for APPO's choice of frames."""
    weighted_tokens: WeightedTokens = "all"
    """Which tokens may carry a weight above 1."""

    def __post_init__(self) -> None:
        if self.algo.uses_appo != (self.appo is not None):
            raise ValueError(f"{self.algo.name} and {self.appo = } do not agree on using APPO")

    @property
    def needs_perception(self) -> bool:
        """Whether the update reads perception rewards, so that a judge is needed."""
        return (
            self.algo.advantages == "segment"
            or self.group_reward == "sum"
            or (self.appo is not None and self.right_by != "accuracy")
        )

    def score(
        self,
        group: RolloutGroup,
        rewards: GroupRewards,
        scores: GroupScores,
        lm_head: Any,
        temperature: float,
    ) -> ScoredGroup:
        """Advantages and weights of one group, from the policy's own pass over it.

        `lm_head` is the policy's output embedding, whose distributions APPO compares. Raises
        ValueError where the rule needs perception rewards and there are none.
        """
        device = scores.mask.device
        segments = pad_sequence([r.segment_ids for r in group.rollouts], batch_first=True)
        advantages = self._advantages(rewards, segments, group.size).to(device)
        advantages = advantages * scores.mask
        if self.appo is None:
            return ScoredGroup(group, rewards, advantages, None, None, None)
        frame_attention = scores.frame_attention
        assert frame_attention is not None, "the pass of an algorithm with APPO asks for it"
        if not frame_attention.shape[2]:  # a question about pictures only
            return ScoredGroup(group, rewards, advantages, None, None, None)
        is_right = self._right_rewards(rewards).to(device)
        weights = token_weights_from_hidden(
            frame_attention,
            scores.hidden_states,
            lm_head.weight.detach(),
            scores.mask,
            is_right,
            self.appo,
            lm_head_bias=None if lm_head.bias is None else lm_head.bias.detach(),
            temperature=temperature,
            log_normalisers=scores.log_normalisers,
            all_logprobs=scores.all_logprobs,
        )
        if self.weighted_tokens == "observation":
            weights = torch.where(segments.to(device) == PERCEPTION, weights, 1.0)
        crucial = select_frames(frame_attention, is_right, self.appo)
        return ScoredGroup(group, rewards, advantages, weights, frame_attention, crucial)

    def _advantages(self, rewards: GroupRewards, segments: Tensor, group_size: int) -> Tensor:
        """[G, N]; tokens behind a completion's end may hold any number."""
        reasoning = _totals(rewards.reasoning)
        if self.algo.advantages == "segment":
            perception = _totals(self._perception(rewards))
            return segment_advantages(
                perception, reasoning, segments, group_size, scale=self.scale
            ).float()
        if self.group_reward == "sum":
            reasoning = reasoning + _totals(self._perception(rewards))
        advantages = group_advantages(reasoning, group_size, scale=self.scale)
        return advantages[:, None].expand(segments.shape).float()

    def _right_rewards(self, rewards: GroupRewards) -> Tensor:
        """[G], compared with APPO's threshold; NaN = neither right nor wrong."""
        accuracy = torch.tensor([reward.accuracy for reward in rewards.reasoning])
        if self.right_by == "accuracy":
            return accuracy
        perception = torch.tensor([reward.accuracy for reward in self._perception(rewards)])
        return perception if self.right_by == "perception" else torch.minimum(accuracy, perception)

    def _perception(self, rewards: GroupRewards) -> tuple[SegmentReward, ...]:
        if rewards.perception is None:
            raise ValueError(
                f"{self.algo.name} with these options reads perception rewards, but the rollouts"
                " were rewarded without a judge or with a template that has no observation"
            )
        return rewards.perception


def _totals(rewards: tuple[SegmentReward, ...]) -> Tensor:
    """float64 [G]: sums of terms keep the digits that decide whether a group is flat."""
    return torch.tensor([reward.total for reward in rewards], dtype=torch.float64)
