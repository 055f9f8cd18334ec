"""Rewards of groups by the published names, without a judge."""

import pytest
from helpers.judged_groups import LIMITS, QUESTION
from helpers.rollout_scenes import P2R, rollout_group

from cli.config import UsageError
from schemas.traces import TEMPLATES
from train.rewards.group_rewarder import GroupRewarder
from train.rewards.plan import plan_of
from train.rewards.published import grounding_weights


def test_published_rewards_take_the_place_of_reasoning() -> None:
    with pytest.raises(UsageError, match="no reward is called 'tiou'"):
        plan_of({"tiou": 1.0})
    with pytest.raises(ValueError, match="needs the duration"):
        GroupRewarder(P2R, LIMITS, None, plan=plan_of({"next-gqa-tiou": 1.0}))
    template = TEMPLATES["grounding"]
    texts = [
        "<think>so</think> <answer>B</answer> <time>1 to 3</time>",
        "<think>so</think> <answer>C</answer> <time>2 to 3</time>",
        "<answer>B</answer>",
    ]
    rewarder = GroupRewarder(
        template,
        LIMITS,
        None,
        plan=plan_of(grounding_weights(integer_seconds=True)),
        duration_seconds=lambda question: 10.0,
    )
    group = rollout_group(QUESTION, texts, template=template)
    (rewards,) = rewarder.start([group]).wait()
    assert [one.total for one in rewards.reasoning] == pytest.approx([2.1, 0.6, 1.0])
    assert [(one.accuracy, one.format) for one in rewards.reasoning] == [(1, 1), (0, 1), (1, 0)]
