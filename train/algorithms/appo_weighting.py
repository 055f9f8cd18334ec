"""APPO as a token weighting: `--algo BASE+appo`. The mathematics is in `train.algorithms.appo`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cli.config import Config
from schemas.traces import TraceTemplate
from train.algorithms.token_weighting import (
    MetricKind,
    PassOutput,
    TokenWeighting,
    TokenWeights,
    WeightingInputs,
)
from train.rollouts.types import GroupRewards, ScoredGroup, SegmentReward, is_correct

if TYPE_CHECKING:  # options are read without torch
    from torch import Tensor

    from train.algorithms.appo import AppoConfig

Correctness = Literal["accuracy", "perception", "both"]
WeightedTokens = Literal["all", "observation"]


class AppoOptions(
    Config,
    renamed={"appo_right_by": "appo_correctness"},
    removed={"appo_detach": True},
    group="training",
):
    """Numbers of APPO; defaults are its published settings."""

    appo_strategy: Literal["soft", "hard", "soft-or-all", "all", "every-frame"] = "soft"
    """Crucial frames, with +appo: those that correct rollouts look at (soft), correct but not wrong
    ones (hard), correct ones or, when none is correct, all (soft-or-all), all rollouts (all), or
    every frame of the video (every-frame)."""
    appo_score_tokens: int = Field(15, ge=1)
    """K1: a rollout's interest in a frame is the mean of its K1 highest attentions, in tokens."""
    appo_frames_per_rollout: int = Field(3, ge=1)
    """K2: how many best frames of a rollout count as looked at."""
    appo_tokens_per_frame: int = Field(128, ge=1)
    """K3: how many tokens of each rollout follow a crucial frame. At or above the completions'
    length attention no longer matters."""
    appo_max_weight: float = Field(1.7, ge=1)
    """The largest weight of a token; the smallest is 1, and 1 here switches the weights off."""
    appo_reward_threshold: float = 0.5
    """A rollout is correct when its accuracy is at least this."""
    appo_divergence: Literal["released", "kl"] = "released"
    """How rollouts are compared at a token: as the published code does it (released), or by the
    paper's formula (kl)."""
    appo_correctness: Correctness = "accuracy"
    """Whose accuracy makes a rollout correct: the answer's, the observation's (perception), or
    both. APPO knows the answer's only; anything else changes the published algorithm."""
    appo_tokens: WeightedTokens = "all"
    """Which tokens may weigh more than 1: all, or those of the observation only. The latter changes
    the published algorithm."""


class AppoWeighting(TokenWeighting):
    """Tokens that look at crucial frames, and at which rollouts differ, learn more.

    APPO (arXiv:2602.23823). `correctness` is the accuracy that its choice of frames reads, `tokens`
    those that may carry a weight above 1.
    """

    name: ClassVar[str] = "appo"
    options: ClassVar[type[Config]] = AppoOptions
    needs: ClassVar[frozenset[PassOutput]] = frozenset({"frame_attention"})
    metric_kinds: ClassVar[Mapping[str, MetricKind]] = {
        "appo/weight": "mean",
        "appo/weighted_tokens": "mean",
        "appo/crucial_frames": "mean",
        "appo/crucial_share": "mean",
        "appo/focus_gap_seconds": "mean",
        "appo/focus_same": "mean",
        "appo/focus_groups": "sum",
    }

    def __init__(self, config: Any) -> None:
        self._options = config
        self.correctness: Correctness = config.appo_correctness
        self.tokens: WeightedTokens = config.appo_tokens

    @cached_property
    def config(self) -> "AppoConfig":
        """The numbers, as `train.algorithms.appo` takes them."""
        from train.algorithms.appo import AppoConfig

        names = {field.name for field in fields(AppoConfig)} - {"detach"}
        return AppoConfig(**{name: getattr(self._options, f"appo_{name}") for name in names})

    @classmethod
    def of(
        cls,
        config: "AppoConfig",
        *,
        correctness: Correctness = "accuracy",
        tokens: WeightedTokens = "all",
    ) -> "AppoWeighting":
        """From the numbers of `train.algorithms.appo` instead of options."""
        numbers = {f"appo_{name}": value for name, value in vars(config).items()}
        del numbers["appo_detach"]
        return cls(AppoOptions(**numbers, appo_correctness=correctness, appo_tokens=tokens))

    def check(self, template: TraceTemplate, *, rewards_perception: bool) -> None:
        """Raise ValueError for options that fit neither template nor rewards."""
        has_observation = any(segment.role == "perception" for segment in template.segments)
        for option, is_read in (
            (f"--appo-correctness {self.correctness}", self.correctness != "accuracy"),
            (f"--appo-tokens {self.tokens}", self.tokens == "observation"),
        ):
            if is_read and not has_observation:
                raise ValueError(f"{option}: --template {template.name} has no observation")
        if self.correctness != "accuracy" and not rewards_perception:
            raise ValueError(
                f"--appo-correctness {self.correctness} reads rewards of perception, and there are"
                " none: give --judge, or a --reward perception:..."
            )

    def weights(self, given: WeightingInputs) -> TokenWeights:
        """The factors of `train.algorithms.appo.token_weights` and its crucial frames."""
        import torch

        from train.algorithms.appo import select_frames, token_weights_from_hidden
        from train.rollouts.segments import PERCEPTION

        attention = given.logprobs.frame_attention
        assert attention is not None, "the pass of a weighting that needs it has frame attention"
        correct = self._correctness_rewards(given.rewards).to(attention.device)
        head = given.lm_head
        weights = token_weights_from_hidden(
            attention,
            given.logprobs.hidden_states,
            head.weight.detach(),
            given.logprobs.mask,
            correct,
            self.config,
            lm_head_bias=None if head.bias is None else head.bias.detach(),
            temperature=given.temperature,
            log_normalisers=given.logprobs.log_normalisers,
            all_logprobs=given.logprobs.all_logprobs,
        )
        if self.tokens == "observation":
            weights = torch.where(given.segment_ids == PERCEPTION, weights, 1.0)
        return TokenWeights(weights, select_frames(attention, correct, self.config))

    def _correctness_rewards(self, rewards: GroupRewards) -> "Tensor":
        """[G], compared with APPO's threshold; NaN = neither correct nor wrong."""
        import torch

        accuracy = torch.tensor([reward.accuracy for reward in rewards.reasoning])
        if self.correctness == "accuracy":
            return accuracy
        perception = torch.tensor([reward.accuracy for reward in self._perception(rewards)])
        if self.correctness == "perception":
            return perception
        return torch.minimum(accuracy, perception)

    def _perception(self, rewards: GroupRewards) -> tuple[SegmentReward, ...]:
        if rewards.perception is None:
            raise ValueError(
                f"APPO with correctness {self.correctness!r} reads perception rewards, but the"
                " rollouts have none"
            )
        return rewards.perception

    def metrics(
        self, scored: ScoredGroup, frame_times: Sequence[float] | None
    ) -> Mapping[str, Sequence[float]]:
        """Weights, crucial frames, and how far apart correct and wrong rollouts focus."""
        found: dict[str, list[float]] = {}
        if scored.weights is not None:
            rows = zip(scored.weights.tolist(), scored.group.rollouts, strict=True)
            weights = [w for row, one in rows for w in row[: len(one.token_ids)]]
            found["appo/weight"] = weights
            found["appo/weighted_tokens"] = [float(weight != 1.0) for weight in weights]
        if scored.crucial_frames is not None:
            chosen = scored.crucial_frames.tolist()
            found["appo/crucial_frames"] = [sum(chosen)]
            found["appo/crucial_share"] = [sum(chosen) / len(chosen)]
        if scored.frame_attention is not None and frame_times is not None:
            gap = focus_gap(scored, frame_times, self.config)
            found["appo/focus_groups"] = [float(gap is not None)]
            if gap is not None:
                found["appo/focus_gap_seconds"] = [gap]
                found["appo/focus_same"] = [float(gap == 0)]
        return found

    @property
    def page_config(self) -> "AppoConfig":
        """APPO's own numbers."""
        return self.config

    def warning(self, groups: Sequence[ScoredGroup]) -> str | None:
        """Completions so short that every token follows every frame."""
        lengths = [len(one.token_ids) for scored in groups for one in scored.group.rollouts]
        if not lengths or self.config.tokens_per_frame < median(lengths):
            return None
        return (
            f"--appo-tokens-per-frame {self.config.tokens_per_frame} is no less than the median"
            f" completion of {median(lengths):g} tokens: every token then follows every frame, and"
            " attention cannot matter; a quarter of the length is a start"
        )


def focused_seconds(
    scored: ScoredGroup, frame_times: Sequence[float], config: "AppoConfig"
) -> list[float]:
    """The time of the frame that each rollout looks at most
    (`train.algorithms.appo.frame_scores`)."""
    from train.algorithms.appo import frame_scores

    assert scored.frame_attention is not None
    scores = frame_scores(scored.frame_attention, config.score_tokens)
    return [frame_times[frame] for frame in scores.argmax(dim=1).tolist()]


def focus_gap(
    scored: ScoredGroup, frame_times: Sequence[float], config: "AppoConfig"
) -> float | None:
    """Seconds between the mean focused times of correct and of wrong rollouts.

    APPO (arXiv:2602.23823), supplement, table A. None where nobody is correct or nobody is wrong.
    """
    correct = is_correct(scored.rewards.reasoning, config.reward_threshold)
    if all(correct) or not any(correct):
        return None
    focused = focused_seconds(scored, frame_times, config)
    sides = [
        [time for time, yes in zip(focused, correct, strict=True) if yes is side]
        for side in (True, False)
    ]
    first, second = (math.fsum(side) / len(side) for side in sides)
    return abs(first - second)
