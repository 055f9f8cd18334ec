"""Our plugin in verl 0.9.1 itself, from its wheel: it needs the network, so it is a campaign.

What verl passes is also recorded in `test_verl_rewards.py`, which needs neither.
"""

import json
from pathlib import Path

import pytest
from helpers.released import VERL, VERL_NEEDS, run_beside, unpacked

pytestmark = [pytest.mark.campaign, pytest.mark.heavy, pytest.mark.timeout(600)]

PROGRAM = r"""
import asyncio, json, math, os
import numpy as np, torch
from helpers.judged_groups import QUESTION, text_of
from omegaconf import OmegaConf
from tensordict import TensorDict
import verl
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopMetrics, AgentLoopOutput, _agent_loop_registry,
)
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.reward import get_custom_reward_fn
from train.integrations import verl_plugin
from train.integrations.completion_rewards import CompletionReward, question_column
from train.integrations.verl_rewards import pa_grpo
from train.rollouts.types import SegmentReward

found = {"version": verl.__version__, "estimator": get_adv_estimator_fn("pa-grpo") is pa_grpo}
found["loop"] = _agent_loop_registry["p2r_segments"]["_target_"]

def scored(perception, reasoning, segments):
    output = AgentLoopOutput(
        prompt_ids=[1, 2],
        response_ids=list(range(len(segments))),
        response_mask=[1] * len(segments),
        metrics=AgentLoopMetrics(),
        extra_fields={"turn_scores": []},
    )
    earned = [SegmentReward(total, 1.0, 0.0, total) for total in (perception, reasoning)]
    reward = CompletionReward(*earned, None, {}, torch.tensor(segments))
    return verl_plugin.SegmentOutput.of(output, reward).as_dict()

rows = [scored(2.0, 1.0, [1, 1, 1, 2, 2]), scored(1.0, 2.0, [1, 1, 2, 2, 2]),
        scored(math.nan, 0.0, [1, 1, 1, 1, 2])]
found["keys"] = sorted(rows[0])
found["extra"] = rows[0]["extra_fields"]["reward_extra_info"]
scores = torch.stack([row["rm_scores"] for row in rows])
mask = torch.stack([row["response_mask"] for row in rows])
batch = {"token_level_rewards": scores, "response_mask": mask}
data = DataProto(
    batch=TensorDict(batch, batch_size=3),
    non_tensor_batch={"uid": np.array(["q"] * 3, dtype=object)},
)
config = OmegaConf.create({"use_kl_in_reward": False, "norm_adv_by_std_in_grpo": False})
found["advantages"] = compute_advantage(data, "pa-grpo", config=config).batch["advantages"].tolist()

settings = {"path": "pkg://train.integrations.verl_rewards", "name": "compute_score"}
settings["reward_kwargs"] = {"score": "reasoning"}
function = get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": settings}}))
found["is_async"] = asyncio.iscoroutinefunction(function)
found["score"] = asyncio.run(function(
    data_source="p2r", solution_str=text_of("ok"), ground_truth="B",
    extra_info={"question": question_column(QUESTION), "num_turns": None},
))
print(json.dumps(found))
"""


def test_verl_finds_loads_and_calls_what_is_ours(tmp_path: Path, repository: Path) -> None:
    options = tmp_path / "rewards.yaml"
    options.write_text(f"output-dir: {tmp_path / 'out'}\nreward: [accuracy, format=0.5]\n")
    packages = unpacked(tmp_path, (*VERL, *VERL_NEEDS))
    printed = run_beside(packages, PROGRAM, repository, {"P2R_REWARDS": str(options)})
    found = json.loads(printed.splitlines()[-1])
    assert found["version"] == "0.9.1"
    assert found["estimator"]
    assert found["loop"] == "train.integrations.verl_plugin.SegmentRewardLoop"
    assert "token_rewards" not in found["keys"]
    assert found["extra"] == {"total": 3.0, "reasoning": 1.0, "perception": 2.0}
    assert found["advantages"] == [
        [0.5, 0.5, 0.5, 0.0, 0.0],
        [-0.5, -0.5, 1.0, 1.0, 1.0],
        [0.0, 0.0, 0.0, 0.0, -1.0],
    ]
    assert found["is_async"]
    numbers = {"total": 1.5, "reasoning": 1.5, "rewards/accuracy": 1.0, "rewards/format": 1.0}
    assert found["score"] == {"score": 1.5, **numbers}
