"""What rewards make of a group's update: whose reward, on which tokens, with which weights."""

import math
from typing import Any

import pytest
import torch
from helpers.replays import earned
from helpers.training_world import question
from torch import Tensor

from schemas.verdicts import Sufficiency
from train.algorithms import parse_algo
from train.appo import AppoConfig
from train.group_updates import UpdateRule
from train.grouped_forward import GroupScores
from train.rollout_groups import GroupRewards, Rollout, RolloutGroup, ScoredGroup

# Three rollouts of 4, 3 and 4 tokens; the last one has no observation.
SEGMENTS = ([1, 1, 2, 2], [1, 2, 2], [2, 2, 2, 2])
REASONING = (1.0, 0.0, 0.5)
PERCEPTION = (0.0, 1.0, 0.0)
VOCABULARY, WIDTH, FRAMES = 11, 6, 3


def rollout(segments: list[int]) -> Rollout:
    ids = torch.arange(len(segments))
    return Rollout(ids, "", False, torch.tensor(segments), {})


def rewards(perception: Any = PERCEPTION) -> GroupRewards:
    return GroupRewards(
        reasoning=tuple(earned(value) for value in REASONING),
        perception=None if perception is None else tuple(earned(p) for p in perception),
        verdicts=(Sufficiency("yes"),) * 3,
    )


def group(*paths: str) -> RolloutGroup:
    return RolloutGroup(question(*(paths or ("a.mp4",))), {}, tuple(map(rollout, SEGMENTS)))


def scores(frames: int = FRAMES) -> GroupScores:
    draw = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True] * 4, [True] * 3 + [False], [True] * 4])
    attention = torch.rand(3, 4, frames, generator=draw) * mask[:, :, None]
    hidden = torch.randn(3, 4, WIDTH, generator=draw)
    return GroupScores(mask, torch.zeros(3, 4), torch.zeros(3, 4), hidden, attention)


def score(
    algo: str, *, reward: GroupRewards | None = None, frames: int = FRAMES, **options: Any
) -> ScoredGroup:
    spec = parse_algo(algo)
    appo = AppoConfig(tokens_per_frame=2, score_tokens=2, frames_per_rollout=1)
    rule = UpdateRule(spec, scale=spec.scale, appo=appo if spec.uses_appo else None, **options)
    torch.manual_seed(1)
    lm_head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
    return rule.score(group(), reward or rewards(), scores(frames), lm_head, 1.0)


def rows(values: Tensor | None) -> list[list[float]]:
    assert values is not None
    return [[round(value, 3) for value in row] for row in values.tolist()]


def test_each_segment_learns_from_its_own_reward() -> None:
    """By hand: mean 0.5 and std 0.5 of (1, 0, 0.5); mean 1/3 and std 0.577 of (0, 1, 0)."""
    assert rows(score("pa-grpo").advantages) == [
        [-0.577, -0.577, 1.0, 1.0],
        [1.155, -1.0, -1.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
    ]
    assert rows(score("grpo").advantages) == [[1.0] * 4, [-1.0] * 3 + [0.0], [0.0] * 4]
    assert rows(score("dr-grpo").advantages)[0] == [0.5] * 4
    assert score("grpo").weights is None


def test_the_sum_of_both_rewards_is_the_paper_without_separation() -> None:
    """1, 1, 0.5: mean 0.833, std 0.289."""
    advantages = rows(score("grpo", group_reward="sum").advantages)
    assert advantages == [[0.577] * 4, [0.577] * 3 + [0.0], [-1.154] * 4]


def test_a_missing_verdict_leaves_its_observation_alone() -> None:
    advantages = rows(score("pa-grpo", reward=rewards((math.nan, 1.0, 0.0))).advantages)
    assert advantages[0][:2] == [0.0, 0.0]
    assert advantages[1][0] == 0.707
    assert advantages[0][2:] == [1.0, 1.0]


def test_what_reads_perception_wants_it() -> None:
    for options in ({"group_reward": "sum"}, {}):
        with pytest.raises(ValueError, match="reads perception rewards"):
            score("grpo" if options else "pa-grpo", reward=rewards(None), **options)
    assert rows(score("grpo", reward=rewards(None)).advantages)[0] == [1.0] * 4


def needs(algo: str, **options: Any) -> bool:
    spec = parse_algo(algo)
    return UpdateRule(
        spec, scale=True, appo=AppoConfig() if spec.uses_appo else None, **options
    ).needs_perception


def test_when_a_judge_is_needed() -> None:
    assert needs("pa-dapo")
    assert needs("dapo", group_reward="sum")
    assert needs("dapo+appo", right_by="both")
    assert not needs("dapo+appo")
    with pytest.raises(ValueError, match="do not agree"):
        UpdateRule(parse_algo("grpo"), scale=True, appo=AppoConfig())


def crucial(right_by: str, perception: Any = PERCEPTION) -> list[bool]:
    scored = score("dapo+appo", reward=rewards(perception), right_by=right_by)
    assert scored.crucial_frames is not None
    chosen: list[bool] = scored.crucial_frames.tolist()
    return chosen


def test_who_is_right_for_appo() -> None:
    """By the answer the first and third rollout are, by the observation the second, by both none;
    each is interested in one frame."""
    best = scores().frame_attention
    assert best is not None
    favourites = best.topk(2, dim=1).values.mean(dim=1).argmax(dim=1).tolist()
    expected = [frame in (favourites[0], favourites[2]) for frame in range(FRAMES)]
    assert crucial("accuracy") == expected
    assert crucial("perception") == [frame == favourites[1] for frame in range(FRAMES)]
    assert crucial("both") == [False] * FRAMES
    assert crucial("both", (1.0, 1.0, math.nan)) == [f == favourites[0] for f in range(FRAMES)]


def test_observation_tokens_alone_may_weigh_more() -> None:
    everywhere = score("pa-dapo+appo").weights
    observed = score("pa-dapo+appo", weighted_tokens="observation").weights
    assert everywhere is not None
    assert observed is not None
    is_observed = torch.tensor([[True, True, False, False], [True] + [False] * 3, [False] * 4])
    assert torch.equal(observed[is_observed], everywhere[is_observed])
    assert (observed[~is_observed] == 1).all()
    assert (everywhere[~is_observed] > 1).any()
    assert float(everywhere.max()) <= 1.7 + 1e-6


def test_a_question_about_pictures_only_has_no_weights() -> None:
    scored = score("dapo+appo", frames=0)
    assert (scored.weights, scored.frame_attention, scored.crucial_frames) == (None, None, None)
    assert rows(scored.advantages)[0] == [1.0] * 4
