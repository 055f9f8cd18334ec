"""Rewards of groups by the published names, without a judge."""

import pytest
from helpers.judged_groups import LIMITS, QUESTION
from helpers.rollout_scenes import P2R, rollout_group

from schemas.traces import TEMPLATES
from train.reward_groups import GroupRewarder


def test_published_rewards_take_the_place_of_reasoning() -> None:
    with pytest.raises(ValueError, match=r"rewards are .*; got tiou"):
        GroupRewarder(P2R, LIMITS, None, published={"tiou": 1.0})
    with pytest.raises(ValueError, match="needs the duration"):
        GroupRewarder(P2R, LIMITS, None, published={"next-gqa-tiou": 1.0})
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
        published={"next-gqa-accuracy": 1.0, "next-gqa-format": 0.1, "next-gqa-tiou": 1.0},
        duration_seconds=lambda question: 10.0,
    )
    group = rollout_group(QUESTION, texts, template=template)
    (rewards,) = rewarder.start([group]).wait()
    assert [one.total for one in rewards.reasoning] == pytest.approx([2.1, 0.6, 1.0])
    assert [(one.accuracy, one.format) for one in rewards.reasoning] == [(1, 1), (0, 1), (1, 0)]
