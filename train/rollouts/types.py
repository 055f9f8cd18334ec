"""The nouns of reinforcement learning: a prompt, its sampled completions and their rewards.

Shapes: G rollouts of a group, N tokens of its longest completion, F frames (temporal cells).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.questions import VideoQuestion
from schemas.samples import Sufficiency

if TYPE_CHECKING:  # rewards are named and checked without torch
    from torch import Tensor


@dataclass(frozen=True)
class Rollout:
    """One sampled completion, end token included, with the segments of its tokens."""

    token_ids: "Tensor"
    """long [C]."""
    text: str
    """The tokens' bytes as text (`train.rollouts.segments.TokenBytes`): what rewards and judges
    read."""
    is_truncated: bool
    """Stopped by the token limit: no end token."""
    segment_ids: "Tensor"
    """long [C]: 1 perception, 2 reasoning."""
    token_counts: Mapping[str, int]
    """Tokens between the tags of each well-formed segment, by its tag's name."""
    logprobs: "Tensor | None" = None
    """float [C], of the tokens in the distribution that they were sampled from; None where the
    sampler gave none."""

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
    prompt: "Mapping[str, Tensor]"
    """Model inputs of the prompt: `train.data.model_inputs.VideoInputs.prompt`."""
    rollouts: tuple[Rollout, ...]

    @property
    def size(self) -> int:
        """G."""
        return len(self.rollouts)


@dataclass(frozen=True)
class SegmentReward:
    """The terms of one segment, unweighted, and their weighted sum; NaN = missing."""

    accuracy: float
    format: float
    length: float
    total: float


@dataclass(frozen=True)
class GroupRewards:
    """Rewards of a group's rollouts, in their order; NaN = missing."""

    reasoning: tuple[SegmentReward, ...]
    perception: tuple[SegmentReward, ...] | None
    """None where nothing rewards perception."""
    verdicts: tuple[Sufficiency | None, ...]
    """The judge's verdict of each rollout; None where the judge was not asked."""
    named: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Values of the rewards of --reward, unweighted, by the name that they are logged under."""


@dataclass(frozen=True)
class ScoredGroup:
    """A group with its rewards and the numbers of its update, for metrics and pages."""

    group: RolloutGroup
    rewards: GroupRewards
    advantages: "Tensor"
    """float [G, N], before weights; 0 behind a completion's end."""
    weights: "Tensor | None"
    """float [G, N], factors of the token weighting; None without one."""
    frame_attention: "Tensor | None"
    """float [G, N, F]; None unless the token weighting needs it."""
    crucial_frames: "Tensor | None"
    """bool [F], frames that the token weighting singles out; None where it does not."""
    sampler_gap: "SamplerGap | None" = None
    """What lies between learner and sampler; None where the sampler gave no log-probs."""


@dataclass(frozen=True)
class SamplerGap:
    """The log-probs of a group's tokens by learner and sampler; 0 behind a completion's end."""

    differences: "Tensor"
    """float [G, N], log-prob of the learner less that of the sampler."""
    ratios: "Tensor | None"
    """float [G, N], importance ratios, truncated; None where they do not enter learning."""


def is_correct(rewards: Sequence[SegmentReward], threshold: float) -> list[bool]:
    """Which rollouts are correct: their accuracy is at least `threshold`; a missing one is not."""
    return [reward.accuracy >= threshold for reward in rewards]
