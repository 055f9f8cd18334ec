"""What verl (0.9.1) imports: PA-GRPO's estimator and the agent loop that rewards both segments.

    VERL_USE_EXTERNAL_MODULES=train.integrations.verl_plugin P2R_REWARDS=rewards.yaml \
    python -m verl.trainer.main_ppo algorithm.adv_estimator=pa-grpo \
        actor_rollout_ref.rollout.agent.default_agent_loop=p2r_segments ...

Both variables must reach every process: set them where Ray is started. The only file that imports
verl. Untried on a GPU: docs/guides/other_trainers_verl.md says what was tried, and how.
"""

import asyncio
from typing import Any

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.core_algos import register_adv_est

from cli.config import UsageError
from train.integrations.completion_rewards import (
    OPTIONS_VARIABLE,
    CompletionReward,
    question_of,
    shared_rewarder,
)
from train.integrations.verl_rewards import numbers_of, pa_grpo, token_rewards

register_adv_est("pa-grpo")(pa_grpo)


class SegmentOutput(AgentLoopOutput):  # type: ignore[misc]
    """A rollout whose rewards stand at tokens, instead of one number at the last."""

    token_rewards: list[float]

    @classmethod
    def of(cls, output: AgentLoopOutput, reward: CompletionReward) -> "SegmentOutput":
        """The rollout with what it has earned. Raises UsageError without a perception reward."""
        if reward.perception is None:
            raise UsageError(
                f"{OPTIONS_VARIABLE}: nothing rewards perception; give a judge or a perception"
                " reward, or use compute_score and the single_turn_agent loop"
            )
        values = {name: getattr(output, name) for name in type(output).model_fields}
        values |= {
            "token_rewards": token_rewards(
                reward.perception.total, reward.reasoning.total, reward.segment_ids
            ),
            "reward_score": reward.total,
            "extra_fields": {**output.extra_fields, "reward_extra_info": numbers_of(reward)},
        }
        made: SegmentOutput = cls.model_construct(set(values), **values)
        return made

    def as_dict(self) -> dict[str, Any]:
        """verl's own fields, with `rm_scores` float32 [C] at their tokens."""
        output: dict[str, Any] = super().as_dict()
        output["rm_scores"] = torch.tensor(output.pop("token_rewards"), dtype=torch.float32)
        return output


@register("p2r_segments")
class SegmentRewardLoop(SingleTurnAgentLoop):  # type: ignore[misc]
    """verl's single turn, and behind it our rewards of the very tokens that were sampled."""

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> SegmentOutput:
        """One rollout. The judge is asked while other rollouts are being sampled."""
        output = await super().run(sampling_params, **row)
        question = question_of(row["extra_info"]["question"])
        rewarder = shared_rewarder()
        asked = rewarder.begin([question], [""], [output.response_ids])
        (reward,) = await asyncio.wrap_future(asked)
        return SegmentOutput.of(output, reward)
