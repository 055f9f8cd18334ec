"""Our rewards and segment advantages for verl (0.9.1): what needs no verl to be imported.

`compute_score` is verl's custom reward function; `pa_grpo` its advantage estimator, registered by
`train.integrations.verl_plugin`. verl hands an estimator nothing of a rollout but its rewards by
token, so the two rewards and where reasoning begins travel in them (`token_rewards`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cli.config import UsageError
from train.algorithms.advantages import per_segment
from train.integrations.completion_rewards import (
    CompletionReward,
    question_of,
    shared_rewarder,
)
from train.rollouts.segments import NOT_TRAINED, PERCEPTION, REASONING

COUNT_UNIT = 2.0**-100
"""What one token of perception adds at the second token: exact in float32, and nothing in a sum."""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    rewards: str | None = None,
    score: str = "total",
    **_: Any,
) -> dict[str, float]:
    """verl's custom reward function: the rewards of one completion; NaN = missing.

    `extra_info["question"]` is the row's question (`rows.verl_row` writes it). `rewards` names the
    YAML file of options, by default P2R_REWARDS does. `score` says which of the numbers verl learns
    from: `total`, `perception` or `reasoning`. A missing one is NaN, which verl's own estimators
    spread over the group's tokens: learn with `algorithm.adv_estimator=pa-grpo`, which leaves it
    out. Raises UsageError, JudgeUnavailableError and RewardError.
    """
    question = question_of((extra_info or {}).get("question"))
    if ground_truth != question.solution:
        raise UsageError(
            f"the row's ground truth is {ground_truth!r}, but its question's solution is"
            f" {question.solution!r}; write rows by train.integrations.rows.verl_row"
        )
    rewarder = shared_rewarder(rewards)
    (reward,) = await asyncio.wrap_future(rewarder.begin([question], [solution_str]))
    numbers = numbers_of(reward)
    if score not in numbers:
        raise UsageError(f"score={score!r}: there are {', '.join(numbers)}")
    return {"score": numbers[score], **numbers}


def numbers_of(reward: CompletionReward) -> dict[str, float]:
    """The same keys for every completion of a run, as verl demands; NaN = missing."""
    numbers = {"total": reward.total, "reasoning": reward.reasoning.total}
    if reward.perception is not None:
        numbers["perception"] = reward.perception.total
    return numbers | {f"rewards/{label}": value for label, value in reward.named.items()}


def token_rewards(perception: float, reasoning: float, segment_ids: Tensor) -> list[float]:
    """One reward for each token, from which `pa_grpo` reads two and a boundary.  long [C] -> [C].

    The first token has perception's reward, the last one reasoning's, and the second one how many
    tokens are perception's, times 2^-100. Their sum is the sum of the two. NaN = missing. Raises
    ValueError for fewer than three tokens of which some are perception's, or for one token alone
    with a perception reward: neither can happen with well-formed tags.
    """
    num_tokens, num_perception = len(segment_ids), int((segment_ids == PERCEPTION).sum())
    if num_tokens < 3 and (num_perception or (num_tokens < 2 and perception != 0)):
        raise ValueError(
            f"{num_tokens} tokens cannot carry a perception reward of {perception} and a boundary"
            f" behind {num_perception} tokens"
        )
    rewards = [0.0] * num_tokens
    rewards[0] = perception
    if num_perception:
        rewards[1] = num_perception * COUNT_UNIT
    rewards[-1] = reasoning
    return rewards


def pa_grpo(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Sequence[object],
    config: Any = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """PA-GRPO as an advantage estimator of verl.  [B, T], [B, T], [B] -> [B, T] twice.

    Rows of one `index` are a group, in any order and of any size. Rows of `compute_score`, whose
    reward stands at the last token alone, have no perception: that is GRPO with missing rewards
    left out. `algorithm.norm_adv_by_std_in_grpo` scales. Raises UsageError where KL was mixed into
    the rewards, whose places then say nothing.
    """
    if config is not None and config.get("use_kl_in_reward", False):
        raise UsageError(
            "algorithm.use_kl_in_reward changes the reward of every token, and pa-grpo reads two"
            " rewards from their places; use actor.use_kl_loss"
        )
    scale = True if config is None else bool(config.get("norm_adv_by_std_in_grpo", True))
    perception, reasoning, segments = _read(token_level_rewards, response_mask)
    advantages = torch.zeros_like(token_level_rewards, dtype=torch.float32)
    for rows in _groups(index):
        advantages[rows] = per_segment(
            perception[rows], reasoning[rows], segments[rows], scale=scale
        ).float()
    return advantages, advantages


def _read(rewards: Tensor, response_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Perception [B], reasoning [B] (float64) and segment ids [B, T], as they were written."""
    mask = response_mask.bool()
    lengths = mask.sum(dim=1)
    places = torch.arange(rewards.shape[1], device=rewards.device)
    if not torch.equal(mask, places < lengths[:, None]):
        raise UsageError(
            "a response has tokens in its midst that are not learned from (tools, several turns);"
            " pa-grpo takes single turns only"
        )
    values = rewards.double()
    last = (lengths - 1).clamp(min=0)
    reasoning = values.gather(1, last[:, None])[:, 0]
    perception = torch.where(lengths > 1, values[:, 0], 0.0)
    counts = torch.zeros_like(lengths)
    if rewards.shape[1] > 2:
        counts = torch.where(lengths > 2, (values[:, 1] / COUNT_UNIT).round(), 0.0).long()
    segments = torch.where(places < counts[:, None], PERCEPTION, REASONING)
    return perception, reasoning, torch.where(mask, segments, NOT_TRAINED)


def _groups(index: Sequence[object]) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for row, uid in enumerate(index):
        groups.setdefault(uid, []).append(row)
    return list(groups.values())
