"""APPO's token weights: tokens that look at crucial frames and on which rollouts differ learn more.

APPO, "Attention-guided Perception Policy Optimization" (arXiv:2602.23823), section 3.2 and
supplement A.2, with the numbers of its published code where the two differ.

Shapes: G rollouts of one prompt, N completion tokens, V vocabulary entries, F frames. A frame is a
temporal cell of the video tower: for Qwen models two sampled frames merged. Weights are float64 if
the log-probs (the LM head's weights) are float64, otherwise float32.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from train.algorithms.divergence import (
    DEFAULT_VOCABULARY_CHUNK,
    Divergence,
    divergences_from_hidden,
    divergences_from_logprobs,
)
from train.modeling.numerics import at_least_float32

Strategy = Literal["soft", "hard", "soft-or-all", "all", "every-frame"]

_EPS = 1e-8


@dataclass(frozen=True)
class AppoConfig:
    """Which frames are crucial, how many tokens follow each of them, and how much more they learn.

    Defaults are the published SEED-Bench-R1 settings, with the paper's best strategy (soft).
    """

    score_tokens: int = 15
    """K1: a rollout's interest in a frame is the mean of its K1 highest attentions to it."""
    frames_per_rollout: int = 3
    """K2: how many best frames of a rollout count as the frames it looked at."""
    tokens_per_frame: int = 128
    """K3: how many tokens of each rollout, by attention, follow a crucial frame. At or above the
    completion length every token follows every frame and attention no longer matters."""
    max_weight: float = 1.7
    """The largest weight; the smallest is 1, and 1 here switches APPO off."""
    strategy: Strategy = "soft"
    """Crucial frames: those of right rollouts (soft), of right minus of wrong ones (hard), of right
    ones or of all when none is right (soft-or-all), of all rollouts (all), or every frame."""
    reward_threshold: float = 0.5
    """A rollout is right when its accuracy reward is at least this."""
    divergence: Divergence = "released"
    """How rollouts are compared at a slot: the published code's or the paper's KL divergence."""
    detach: bool = True
    """Whether weights are plain numbers. The published code lets gradient flow through them."""

    def __post_init__(self) -> None:
        for name in ("score_tokens", "frames_per_rollout", "tokens_per_frame"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 1.0 <= self.max_weight < math.inf:
            raise ValueError(
                f"max_weight must be a number from 1 (no effect) upwards, got {self.max_weight}"
            )
        if math.isnan(self.reward_threshold):
            raise ValueError("reward_threshold must be a number, got NaN")
        for name, choices in (("strategy", Strategy), ("divergence", Divergence)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(choices))},"
                    f" got {getattr(self, name)!r}"
                )


def frame_scores(frame_attention: Tensor, score_tokens: int) -> Tensor:
    """How much each rollout looked at each frame.  [G, N, F] -> [G, F].

    s_it = mean of the min(K1, N) largest attentions of rollout i's tokens to frame t. Tokens behind
    a rollout's end take part with the attention they carry: 0 from our own attention pass, so a
    rollout shorter than K1 is averaged with zeros, as in the published code. The mean of bfloat16
    attention is taken in float32, where that code rounds it to bfloat16.
    """
    attention = at_least_float32(frame_attention)
    return attention.topk(min(score_tokens, attention.shape[1]), dim=1).values.mean(dim=1)


def select_frames(frame_attention: Tensor, accuracy_rewards: Tensor, config: AppoConfig) -> Tensor:
    """The crucial frames.  [G, N, F], [G] -> bool [F].

    psi(S) = union over rollouts i in S of the min(K2, F) frames with the highest `frame_scores`;
    soft: psi(right), hard: psi(right) \\ psi(wrong), all: psi(everyone). A missing reward (NaN) is
    neither right nor wrong. Between equal scores the earlier frame is taken.

    Deviations from the published code: it calls soft "hard", soft-or-all "soft" and all
    "force-all"; its right rollouts have a reward above 0 (`reward_threshold=math.ulp(0)`); its
    fallback asks for the sum of the rewards, this one whether any rollout is right; the paper's
    hard is not in it.
    """
    _check_group(frame_attention, accuracy_rewards)
    num_frames = frame_attention.shape[2]
    if config.strategy == "every-frame":
        return torch.ones(num_frames, dtype=torch.bool, device=frame_attention.device)
    scores = frame_scores(frame_attention, config.score_tokens)
    best = _largest(scores, min(config.frames_per_rollout, num_frames), dim=1)
    looked_at = torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)
    is_right, is_wrong = _right_and_wrong(accuracy_rewards, config.reward_threshold)
    of_right = looked_at[is_right].any(dim=0)
    match config.strategy:
        case "soft":
            return of_right
        case "hard":
            return of_right & ~looked_at[is_wrong].any(dim=0)
        case "soft-or-all" if is_right.any():
            return of_right
        case "soft-or-all" | "all":
            return looked_at.any(dim=0)


def _right_and_wrong(rewards: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Masks [G] of the right and of the wrong; a missing reward is in neither."""
    rewards = rewards if rewards.is_floating_point() else rewards.float()
    if 0 < threshold < torch.finfo(rewards.dtype).tiny:  # would be rounded to 0
        return rewards > 0, rewards <= 0
    # rounded as the rewards are: a float32 reward of 0.7 is below the Python number 0.7
    rounded = torch.tensor(threshold, dtype=rewards.dtype, device=rewards.device)
    return rewards >= rounded, rewards < rounded


def token_weights(
    frame_attention: Tensor,
    logprobs: Tensor,
    completion_mask: Tensor,
    accuracy_rewards: Tensor,
    config: AppoConfig,
) -> Tensor:
    """Per-token factors on the policy loss.  [G, N, F], [G, N, V], [G, N], [G] -> [G, N].

    Row n of attention and log-probs belongs to the position that predicts token n. For each crucial
    frame t, slot j holds of every rollout, right or wrong, the j-th in reading order of its
    min(K3, N) tokens with the most attention to t (between equal ones the earlier token), and with
    the divergence D of `slot_divergence`

        w_tj = (D_tj - min_k D_tk) / (max_k D_tk - min_k D_tk + 1e-8)
        W_in = 1 + (max_weight - 1) * mean of w_tj over the frames t and slots j that hold token n

    Weights lie in [1, max_weight]; tokens of no slot and masked ones get exactly 1, and so does
    every token when no frame is crucial. A masked token in a slot counts as the uniform
    distribution and its slot takes part in minimum and maximum.

    Deviations: the paper weights with 1 + max_weight * w, its code as here. Weights are detached
    unless `config.detach` is False; then gradient flows into `logprobs`.
    """
    expected = (*frame_attention.shape[:2], "V")
    if logprobs.ndim != 3 or logprobs.shape[:2] != frame_attention.shape[:2]:
        raise ValueError(f"logprobs must be {_shown(expected)}, got {_shown(logprobs.shape)}")

    def divergences(columns: Tensor, is_alive: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not config.detach):
            return divergences_from_logprobs(logprobs, is_alive, columns, config.divergence)

    dtype = at_least_float32(logprobs[:0]).dtype
    return _weights(frame_attention, completion_mask, accuracy_rewards, config, dtype, divergences)


def token_weights_from_hidden(
    frame_attention: Tensor,
    hidden_states: Tensor,
    lm_head_weight: Tensor,
    completion_mask: Tensor,
    accuracy_rewards: Tensor,
    config: AppoConfig,
    *,
    lm_head_bias: Tensor | None = None,
    temperature: float = 1.0,
    vocabulary_chunk: int = DEFAULT_VOCABULARY_CHUNK,
    log_normalisers: Tensor | None = None,
    all_logprobs: Tensor | None = None,
) -> Tensor:
    """`token_weights` of log_softmax((h W^T + b) / temperature), without building it.

    `hidden_states` [G, N, H] is what the LM head reads, row n at the position that predicts token
    n; `lm_head_weight` [V, H], `lm_head_bias` [V] or None -> [G, N]. `log_normalisers` [G, N],
    where the tokens' logsumexp is known, spares one of two products with the head; `all_logprobs`
    [T, V] of the T tokens of the mask, one rollout after another, spares both. Peak memory beyond
    the inputs is about (chosen tokens + 5 G K3) * `vocabulary_chunk` numbers, whatever V is.
    `detach=False` is refused: gradient through the weights exists in `token_weights` only.
    """
    if not config.detach:
        raise ValueError(
            "token_weights_from_hidden gives plain numbers and cannot take detach=False; use"
            " token_weights where gradient is to flow through the weights"
        )
    if hidden_states.ndim != 3 or hidden_states.shape[:2] != frame_attention.shape[:2]:
        expected = (*frame_attention.shape[:2], "H")
        raise ValueError(
            f"hidden_states must be {_shown(expected)}, got {_shown(hidden_states.shape)}"
        )
    if lm_head_weight.ndim != 2 or lm_head_weight.shape[1] != hidden_states.shape[2]:
        raise ValueError(
            f"lm_head_weight must be {_shown(('V', hidden_states.shape[2]))},"
            f" got {_shown(lm_head_weight.shape)}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")

    def divergences(columns: Tensor, is_alive: Tensor) -> Tensor:
        if all_logprobs is not None:
            return divergences_from_logprobs(
                all_logprobs,
                is_alive,
                columns,
                config.divergence,
                vocabulary_chunk=vocabulary_chunk,
            )
        return divergences_from_hidden(
            hidden_states,
            lm_head_weight,
            is_alive,
            columns,
            config.divergence,
            lm_head_bias=lm_head_bias,
            temperature=temperature,
            vocabulary_chunk=vocabulary_chunk,
            log_normalisers=log_normalisers,
        )

    dtype = at_least_float32(lm_head_weight[:0]).dtype
    return _weights(frame_attention, completion_mask, accuracy_rewards, config, dtype, divergences)


def _weights(
    frame_attention: Tensor,
    completion_mask: Tensor,
    accuracy_rewards: Tensor,
    config: AppoConfig,
    dtype: torch.dtype,
    divergences: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The weights in `dtype`, given what computes [S, K] divergences of columns and bool mask."""
    if completion_mask.shape != frame_attention.shape[:2]:
        raise ValueError(
            f"completion_mask must be {_shown(frame_attention.shape[:2])},"
            f" got {_shown(completion_mask.shape)}"
        )
    is_alive = completion_mask.bool()
    is_crucial = select_frames(frame_attention, accuracy_rewards, config)
    if not is_crucial.any():
        return torch.ones_like(is_alive, dtype=dtype)
    columns = _slot_columns(frame_attention[:, :, is_crucial], config.tokens_per_frame)
    # Frames that chose the same tokens share their divergence; all do when K3 reaches N.
    distinct, which = torch.unique(columns.flatten(1), dim=0, return_inverse=True)
    per_frame = divergences(distinct.view(-1, *columns.shape[1:]), is_alive)[which]
    _refuse_non_finite(per_frame, columns, is_alive)

    lowest = per_frame.amin(dim=1, keepdim=True)
    highest = per_frame.amax(dim=1, keepdim=True)
    intensity = (per_frame - lowest) / (highest - lowest + _EPS)
    nothing = torch.zeros(is_alive.shape, dtype=dtype, device=intensity.device)
    total = count = nothing
    for frame_columns, values in zip(columns, intensity, strict=True):
        total = total + nothing.scatter(1, frame_columns, values.expand_as(frame_columns))
        count = count + nothing.scatter(1, frame_columns, 1.0)
    mean = (total / (count + _EPS)).masked_fill(~is_alive, 0.0)
    return 1.0 + (config.max_weight - 1.0) * mean


def _slot_columns(frame_attention: Tensor, tokens_per_frame: int) -> Tensor:
    """[G, N, S] -> [S, G, K]: each rollout's tokens with the most attention, in reading order."""
    attention = at_least_float32(frame_attention).permute(2, 0, 1)
    kept = min(tokens_per_frame, attention.shape[2])
    return _largest(attention, kept, dim=2).sort(dim=2).values


def _largest(values: Tensor, count: int, *, dim: int) -> Tensor:
    """Indices of the `count` largest; between equal values the lower index, on every device."""
    order = values.sort(dim=dim, descending=True, stable=True).indices
    return order.narrow(dim, 0, count)


def _check_group(frame_attention: Tensor, accuracy_rewards: Tensor) -> None:
    if frame_attention.ndim != 3 or 0 in frame_attention.shape:
        raise ValueError(
            "frame_attention must be [rollouts, tokens, frames] with at least one of each, got"
            f" {_shown(frame_attention.shape)}: APPO needs a group with a video and completions"
        )
    if accuracy_rewards.shape != frame_attention.shape[:1]:
        raise ValueError(
            f"accuracy_rewards must be [{len(frame_attention)}], one for each rollout of the group,"
            f" got {_shown(accuracy_rewards.shape)}"
        )
    is_finite = frame_attention.isfinite()
    if not is_finite.all():
        rollout, token, frame = (~is_finite).nonzero()[0].tolist()
        raise ValueError(
            f"frame_attention is {frame_attention[rollout, token, frame].item()} at rollout"
            f" {rollout}, token {token}, frame {frame}: no frame can be ranked by it; give finite"
            " attention, 0 behind a completion's end"
        )


def _refuse_non_finite(divergences: Tensor, columns: Tensor, is_alive: Tensor) -> None:
    is_finite = divergences.isfinite()
    if is_finite.all():
        return
    frame, slot = (~is_finite).nonzero()[0].tolist()
    tokens = ", ".join(
        f"({rollout}, {token})"
        for rollout, token in enumerate(columns[frame, :, slot].tolist())
        if is_alive[rollout, token]
    )
    raise ValueError(
        "the policy's log-probs are NaN or plus infinity at one of these (rollout, token) pairs:"
        f" {tokens}; the forward pass before has failed, look there first"
    )


def _shown(shape: tuple[int | str, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
