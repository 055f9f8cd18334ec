"""The table of completions: its rows by hand, and what a tracker is given."""

import math
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.rollout_scenes import rollout_group

from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.samples import Sufficiency
from train.monitoring.completions_table import completions_table, log_completions
from train.rollouts.types import GroupRewards, ScoredGroup, SegmentReward

QUESTION = VideoQuestion(
    problem="Which one moves?",
    options=("A. the ball", "B. the box"),
    solution="B",
    media=(MediaRef(kind="video", path="a.mp4"),),
    problem_type=ProblemType.MULTIPLE_CHOICE,
)
TEXTS = ("<observation>it slides</observation> <think>so</think><answer>B</answer>", "never closed")


def reward(total: float) -> SegmentReward:
    return SegmentReward(total, 0.0, 0.0, total)


def group() -> ScoredGroup:
    rollouts = rollout_group(QUESTION, TEXTS)
    longest = max(len(one.token_ids) for one in rollouts.rollouts)
    advantages = torch.zeros(2, longest)
    first = rollouts.rollouts[0]
    advantages[0, : len(first.token_ids)] = torch.where(first.segment_ids == 1, 0.5, -0.25)
    rewards = GroupRewards(
        (reward(2.0), reward(0.0)),
        (reward(1.0), reward(math.nan)),
        (Sufficiency("yes"), None),
        {"brevity": (0.5, 0.75)},
    )
    return ScoredGroup(rollouts, rewards, advantages, None, None, None)


def test_a_row_is_a_rollout_with_what_became_of_it() -> None:
    table = completions_table([group(), group()], step=7)
    assert {len(values) for values in table.values()} == {4}
    first = {name: values[0] for name, values in table.items()}
    assert first == {
        "step": 7,
        "question_id": QUESTION.question_id,
        "prompt": "Which one moves?",
        "solution": "B",
        "completion": TEXTS[0],
        "verdict": "yes",
        "reward/reasoning": 2.0,
        "reward/perception": 1.0,
        "reward/brevity": 0.5,
        "advantage/reasoning": -0.25,
        "advantage/perception": 0.5,
        "tokens": len(group().group.rollouts[0].token_ids),
        "truncated": False,
    }
    assert table["verdict"][1] is None
    assert table["advantage/perception"][1] is None
    assert not [name for name in table if "path" in name or "media" in name]


def test_without_a_judge_nothing_is_said_of_perception() -> None:
    scored = group()
    rewards = replace(scored.rewards, perception=None, verdicts=())
    table = completions_table([replace(scored, rewards=rewards)], step=1)
    assert table["reward/perception"] == table["verdict"] == [None, None]


def stub(name: str, **more: Any) -> tuple[ModuleType, list[Any]]:
    """A tracker's module as far as it is called: a wire to a service that is not here."""
    module, given = ModuleType(name), list[Any]()
    module.__dict__.update(Table=lambda *, dataframe: dataframe, log=given.append, **more)
    return module, given


def test_the_table_goes_to_the_trackers_that_show_one(monkeypatch: pytest.MonkeyPatch) -> None:
    trackio, to_trackio = stub("trackio")
    wandb, to_wandb = stub("wandb", run=None)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    table = completions_table([group()], step=3)
    log_completions(["tensorboard"], table)
    assert not to_trackio
    log_completions(["wandb", "trackio"], table)
    assert not to_wandb  # no run is open
    assert list(to_trackio[0]["completions"]["completion"]) == list(TEXTS)
    monkeypatch.setattr(wandb, "run", object(), raising=False)
    log_completions(["wandb"], table)
    assert list(to_wandb[0]["completions"]["step"]) == [3, 3]
