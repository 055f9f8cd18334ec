"""A slow judge answers while the policy computes: training does not stand still for it."""

import time
from pathlib import Path
from typing import Any

import pytest
from helpers.replays import rl_world
from helpers.rl_settings import SIZE, settings
from servers.model_server import RunningServer

from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.rewards.group_rewarder import GroupRewarder
from train.rewards.judge_client import JudgeClient
from train.rewards.segment_rewards import RewardConfig
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.step_report import StepReport

JUDGE_SECONDS, FORWARD_SECONDS = 1.0, 1.5


@pytest.mark.heavy
def test_verdicts_come_while_the_policy_computes(
    model_server: RunningServer, tmp_path: Path
) -> None:
    """A forward that takes longer than the judge hides all of its time, a shorter one its own.

    0.6 s of play: calls that began only when they are waited for would take 1 s, those of a step
    one after another 4 s or more.
    """
    reply = "It follows. <judgement>Yes</judgement>"
    model_server.control(
        latency_ms=1000 * JUDGE_SECONDS, replies=[{"contains": "### Observations", "reply": reply}]
    )
    world, spec = rl_world(tmp_path, num=4), parse_algo("pa-dapo")
    model, reports = world.model(), list[StepReport]()

    def compute(*_: Any) -> None:
        if model.training:
            time.sleep(FORWARD_SECONDS)

    def observe(report: StepReport) -> dict[str, float]:
        reports.append(report)
        return {}

    model.register_forward_pre_hook(compute)
    with JudgeClient(
        f"openai:judge@{model_server.openai_url}",
        ledger_path=tmp_path / "judge-0.duckdb",
        media_root=tmp_path,
    ) as judge:
        VideoGRPOTrainer(
            model,
            settings(tmp_path / "out", spec.name, max_steps=2),
            world.rows,
            processor=world.processor,
            template=world.template,
            credit=CreditAssignment(spec, scale=True),
            rewarder=GroupRewarder(world.template, RewardConfig(), judge),
            rollout_source=world.replay(SIZE),
            observe=observe,
        ).train()
    world.loader.close()
    uses = [report.judge for report in reports]
    assert [use is not None and use.stats.calls >= 4 for use in uses] == [True, True]
    for use in uses:
        assert use is not None
        assert use.seconds >= JUDGE_SECONDS
        assert use.seconds_waited < 0.6 * JUDGE_SECONDS
