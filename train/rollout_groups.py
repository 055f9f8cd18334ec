"""The nouns of reinforcement learning: a prompt, its sampled completions, what they earned.

Shapes: G rollouts of a group, N tokens of its longest completion, F frames (temporal cells).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.questions import VideoQuestion
from schemas.traces import TraceTemplate
from schemas.verdicts import Sufficiency
from train.rewards import SegmentReward
from train.segments import TokenBytes, inner_token_counts, segment_ids


@dataclass(frozen=True)
class Rollout:
    """One completion as it was sampled, its end token included, and what its tokens are."""

    token_ids: Tensor
    """long [C]."""
    text: str
    """The tokens' bytes as text (`train.segments.TokenBytes`): what rewards and judges read."""
    is_truncated: bool
    """Stopped by the token limit: no end token."""
    segment_ids: Tensor
    """long [C]: 1 perception, 2 reasoning."""
    token_counts: Mapping[str, int]
    """Tokens between the tags of each well-formed segment, by its tag's name."""

    def __post_init__(self) -> None:
        if self.token_ids.ndim != 1 or self.token_ids.shape != self.segment_ids.shape:
            raise ValueError(
                f"a rollout has one segment id per token: token ids {list(self.token_ids.shape)},"
                f" segment ids {list(self.segment_ids.shape)}"
            )


@dataclass(frozen=True)
class RolloutGroup:
    """The rollouts of one question, which share its prompt."""

    question: VideoQuestion
    prompt: Mapping[str, Tensor]
    """What `train.video_inputs.VideoInputs.prompt` says of the question."""
    rollouts: tuple[Rollout, ...]

    @property
    def size(self) -> int:
        """G."""
        return len(self.rollouts)


@dataclass(frozen=True)
class GroupRewards:
    """What the rollouts of a group earned, in their order; NaN in a term = missing."""

    reasoning: tuple[SegmentReward, ...]
    perception: tuple[SegmentReward, ...] | None
    """None where the template or the algorithm has no perception reward."""
    verdicts: tuple[Sufficiency | None, ...]
    """The judge's verdict of each rollout; None where nothing was asked."""


@dataclass(frozen=True)
class ScoredGroup:
    """A group with all that its update is made of: what diagnostics and the page are given."""

    group: RolloutGroup
    rewards: GroupRewards
    advantages: Tensor
    """float [G, N], before weights; 0 behind a completion's end."""
    weights: Tensor | None
    """float [G, N], APPO's factors; None without APPO."""
    frame_attention: Tensor | None
    """float [G, N, F]; None without APPO."""
    crucial_frames: Tensor | None
    """bool [F]; None without APPO."""


def rollouts_of(
    completions: Sequence[Tensor],
    token_bytes: TokenBytes,
    template: TraceTemplate,
    end_ids: Sequence[int],
) -> tuple[Rollout, ...]:
    """Sampled completions, each long [C] with C >= 1, as rollouts."""
    rollouts = []
    for ids in completions:
        tokens = ids.tolist()
        segments = segment_ids(ids[None], torch.ones_like(ids)[None], token_bytes, template)[0]
        rollouts.append(
            Rollout(
                token_ids=ids,
                text=token_bytes.text(tokens),
                is_truncated=tokens[-1] not in end_ids,
                segment_ids=segments,
                token_counts=inner_token_counts(tokens, token_bytes, template),
            )
        )
    return tuple(rollouts)
