"""Rewards of groups: what is missing stays missing, and nothing is asked twice."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.judged_groups import (
    LIMITS,
    OTHER,
    QUESTION,
    RULES,
    asked,
    group_of,
    open_judge,
    text_of,
)
from helpers.rollout_scenes import P2R, rollout_group
from servers.model_server import RunningServer

from schemas.traces import TEMPLATES
from train.rewards.group_rewarder import GroupRewarder, JudgeUse
from train.rewards.judge_client import JudgeClient

pytestmark = pytest.mark.heavy


@pytest.fixture
def judge(model_server: RunningServer, tmp_path: Path) -> Iterator[JudgeClient]:
    model_server.control(replies=RULES)
    with open_judge(model_server, tmp_path) as opened:
        yield opened


def test_yes_no_missing_claimed_and_malformed_are_five_different_things(
    judge: JudgeClient, model_server: RunningServer
) -> None:
    texts = [
        text_of("the box slides: ok"),
        text_of("poor"),
        text_of("mute", "C"),
        text_of("The box slides, so the answer is B."),
        "<observation>never closed <think>so B</think><answer>B</answer>",
    ]
    pending = GroupRewarder(P2R, LIMITS, judge).start([rollout_group(QUESTION, texts)])
    (rewards,) = pending.wait()
    assert rewards.perception is not None
    found = [(one.accuracy, one.format, one.total) for one in rewards.perception]
    assert found[:2] == [(1.0, 1.0, 2.0), (0.0, 1.0, 1.0)]
    accuracy, formatted, total = found[2]
    assert math.isnan(accuracy)
    assert math.isnan(total)
    assert formatted == 1.0
    assert found[3:] == [(0.0, 1.0, 1.0), (0.0, 0.0, 0.0)]
    said = [verdict and verdict.verdict for verdict in rewards.verdicts]
    assert said == ["yes", "no", "unscored", None, None]
    assert [one.accuracy for one in rewards.reasoning] == [1, 1, 0, 1, 1]
    assert pending.wait()[0] is rewards  # a second wait asks nothing
    use = pending.use
    assert (use.asked, use.missing, use.leaks, use.pauses) == (3, 1, 1, 0)
    assert asked(model_server) == 4  # once each; the unreadable one again
    allowing = GroupRewarder(P2R, LIMITS, judge, allow_leaks=True)
    (rewards,) = allowing.start([rollout_group(QUESTION, texts[3:4])]).wait()
    assert rewards.verdicts[0] is not None


def test_equal_observations_of_a_question_are_asked_about_once(
    judge: JudgeClient, model_server: RunningServer
) -> None:
    groups = [
        group_of("ok", "ok", "poor", " ok\n"),
        group_of("ok", "ok", question=OTHER),
        group_of("poor", "ok"),
    ]
    pending = GroupRewarder(P2R, LIMITS, judge).start(groups)
    rewards = pending.wait()
    accuracies = [[one.accuracy for one in of.perception or ()] for of in rewards]
    assert accuracies == [[1, 1, 0, 1], [1, 1], [0, 1]]
    assert (pending.use.asked, pending.use.stats.calls) == (8, 3)
    assert asked(model_server) == 3
    again = GroupRewarder(P2R, LIMITS, judge).start(groups)
    assert again.wait() == rewards
    assert again.use.stats.cache_hits == 3
    assert again.use.stats.calls == 0


def test_without_a_judge_there_is_no_perception_and_templates_must_have_one(
    judge: JudgeClient,
) -> None:
    (rewards,) = GroupRewarder(P2R, LIMITS, None).start([group_of("ok", "poor")]).wait()
    assert rewards.perception is None
    assert rewards.verdicts == (None, None)
    assert GroupRewarder(P2R, LIMITS, None).start([]).use == JudgeUse()
    with pytest.raises(ValueError, match="'think-answer' has no perception segment"):
        GroupRewarder(TEMPLATES["think-answer"], LIMITS, judge)


def test_the_judge_costs_no_time_while_the_device_computes(
    judge: JudgeClient, model_server: RunningServer
) -> None:
    """4 groups of 8, a judge of 0.4 s a call, a step of 3 s: at most 5 % of it is waited for."""
    model_server.control(latency_ms=400)
    groups = [group_of(*(f"ok {g} {n}" for n in range(8))) for g in range(4)]
    rewarder = GroupRewarder(P2R, LIMITS, judge)
    matrix = torch.randn(300, 300)
    began = time.monotonic()
    pending = rewarder.start(groups)
    while time.monotonic() - began < 3.0:
        matrix = torch.tanh(matrix @ matrix.T)
    pending.wait()
    assert pending.use.stats.calls == 32
    assert pending.use.seconds_waited <= 0.05 * 3.0
    assert 0.4 <= pending.use.seconds < 3.0
