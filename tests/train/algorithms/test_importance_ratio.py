"""The truncated ratio between learner and sampler: values by hand, and where it enters."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from schemas.questions import MediaRef, ProblemType, VideoQuestion
from train.algorithms.importance_ratio import (
    gap_of_rollouts,
    truncated_ratios,
    update_factors,
    with_sampler_gap,
)
from train.rollouts.types import GroupRewards, Rollout, RolloutGroup, ScoredGroup

QUESTION = VideoQuestion(
    problem="What?",
    options=("A. red", "B. blue"),
    solution="A",
    media=(MediaRef(kind="video", path="a.mp4"),),
    problem_type=ProblemType.MULTIPLE_CHOICE,
)


def rollout(length: int, logprobs: list[float] | None) -> Rollout:
    return Rollout(
        token_ids=torch.arange(length),
        text="",
        is_truncated=False,
        segment_ids=torch.full((length,), 2),
        token_counts={},
        logprobs=None if logprobs is None else torch.tensor(logprobs),
    )


def scored(
    rollouts: list[Rollout], advantages: Tensor, weights: Tensor | None = None
) -> ScoredGroup:
    rewards = GroupRewards(reasoning=(), perception=None, verdicts=())
    group = RolloutGroup(QUESTION, {}, tuple(rollouts))
    return ScoredGroup(group, rewards, advantages, weights, None, None)


def test_a_ratio_is_that_of_the_probabilities_up_to_the_cap() -> None:
    ratios = truncated_ratios(torch.tensor([0.0, 0.4054651, -0.6931472, 3.0]), 2.0)
    assert ratios.tolist() == pytest.approx([1.0, 1.5, 0.5, 2.0])


def test_advantages_are_multiplied_by_weight_and_ratio_of_each_token() -> None:
    group = scored(
        [rollout(3, [-1.0, -2.0, -3.0]), rollout(2, [-1.0, -1.0])],
        torch.tensor([[1.0, 1.0, -2.0], [3.0, 3.0, 0.0]]),
        torch.tensor([[1.0, 2.0, 1.0], [1.0, 1.0, 1.0]]),
    )
    # what stands behind a completion's end may be anything
    learner = torch.tensor([[-1.0, -1.5945349, -9.0], [0.0, -1.0, 77.0]])
    found = with_sampler_gap(group, learner, cap=2.0)
    assert found.sampler_gap is not None
    assert found.sampler_gap.differences[1, 2] == 0
    # ratios 1, 1.5, exp(-6); min(2, e), 1
    expected = [[1.0, 3.0, -2 * 0.00247875], [6.0, 3.0, 0.0]]
    assert torch.allclose(update_factors(found), torch.tensor(expected), atol=1e-6)
    own = [(d.tolist(), r.tolist()) for d, r in gap_of_rollouts(found) if r is not None]
    assert own[1][0] == pytest.approx([1.0, 0.0])
    assert own[1][1] == pytest.approx([2.0, 1.0])


def test_without_a_cap_the_gap_is_measured_and_changes_nothing() -> None:
    group = scored([rollout(1, [-1.0]), rollout(1, [-2.0])], torch.tensor([[1.0], [-1.0]]))
    found = with_sampler_gap(group, torch.tensor([[-3.0], [-2.0]]), cap=None)
    assert found.sampler_gap is not None
    assert found.sampler_gap.ratios is None
    assert found.sampler_gap.differences.tolist() == [[-2.0], [0.0]]
    assert torch.equal(update_factors(found), group.advantages)


def test_a_sampler_without_logprobs_leaves_the_group_as_it_is() -> None:
    group = scored([rollout(1, None), rollout(1, [-1.0])], torch.ones(2, 1))
    assert with_sampler_gap(group, torch.zeros(2, 1), cap=2.0) is group
    assert gap_of_rollouts(group) == []
    assert torch.equal(update_factors(replace(group, weights=None)), group.advantages)


def test_the_ratio_carries_no_gradient() -> None:
    group = scored([rollout(1, [-1.0]), rollout(1, [-1.0])], torch.ones(2, 1))
    learner = torch.tensor([[-0.5], [-1.5]], requires_grad=True)
    assert not update_factors(with_sampler_gap(group, learner, cap=2.0)).requires_grad
