"""Credit assignment: whose reward, on which tokens, with which weights."""

import math
import re
from typing import Any

import pytest
import torch
from helpers.replays import earned
from helpers.training_world import question
from torch import Tensor

from schemas.samples import Sufficiency
from train.algorithms.appo import AppoConfig
from train.algorithms.appo_weighting import AppoWeighting
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import ADVANTAGES, Advantage, GroupReward, parse_algo
from train.algorithms.token_weighting import AlgorithmError, TokenWeights
from train.modeling.packed_forward import GroupLogprobs
from train.rollouts.types import GroupRewards, Rollout, RolloutGroup, ScoredGroup

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


def scores(frames: int = FRAMES) -> GroupLogprobs:
    draw = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True] * 4, [True] * 3 + [False], [True] * 4])
    attention = torch.rand(3, 4, frames, generator=draw) * mask[:, :, None]
    hidden = torch.randn(3, 4, WIDTH, generator=draw)
    return GroupLogprobs(mask, torch.zeros(3, 4), torch.zeros(3, 4), hidden, attention)


def score(
    algo: str,
    *,
    reward: GroupRewards | None = None,
    frames: int = FRAMES,
    group_reward: GroupReward = "reasoning",
    **of_appo: Any,
) -> ScoredGroup:
    spec = parse_algo(algo)
    appo = AppoConfig(tokens_per_frame=2, score_tokens=2, frames_per_rollout=1)
    weighting = AppoWeighting.of(appo, **of_appo) if spec.weighting else None
    credit = CreditAssignment(spec, spec.scale, group_reward, weighting)
    torch.manual_seed(1)
    lm_head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
    return credit.score(group(), reward or rewards(), scores(frames), lm_head, 1.0)


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


def test_an_algorithm_has_its_own_weighting() -> None:
    appo = AppoWeighting.of(AppoConfig())
    assert CreditAssignment(parse_algo("dapo+appo"), True, weighting=appo).needs_frame_attention
    assert not CreditAssignment(parse_algo("dapo"), True).needs_frame_attention
    for algo, weighting in (("grpo", appo), ("grpo+appo", None)):
        with pytest.raises(ValueError, match=f"{re.escape(algo)} has the token weighting"):
            CreditAssignment(parse_algo(algo), True, weighting=weighting)


def test_appo_wants_the_rewards_that_it_reads() -> None:
    for correctness in ("both", "perception"):
        with pytest.raises(ValueError, match="reads perception rewards"):
            score("dapo+appo", reward=rewards(None), correctness=correctness)
    assert score("dapo+appo", reward=rewards(None)).weights is not None


def test_a_function_that_gives_no_number_for_a_token_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As somebody's own advantage function may."""
    for broken in (lambda p, r, ids, scale: r[:, None], lambda p, r, ids, scale: ids * math.nan):
        monkeypatch.setitem(ADVANTAGES, "group", Advantage("group", broken))
        with pytest.raises(ValueError, match=r"group must give a number for each token, \[3, 4\]"):
            score("grpo")


def scored_by(monkeypatch: pytest.MonkeyPatch, function: Any) -> ScoredGroup:
    monkeypatch.setitem(ADVANTAGES, "group", Advantage("group", function))
    return score("grpo")


def filled(ids: Tensor, value: float, *, behind: float = 0.0) -> Tensor:
    return torch.where(ids > 0, value, behind)


def test_an_advantage_is_a_finite_number_without_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On real tokens; what lies behind a completion's end is not read."""
    for value in (math.inf, -math.inf, math.nan):
        with pytest.raises(AlgorithmError, match=r"got \[3, 4\] with non-finite ones"):
            scored_by(monkeypatch, lambda p, r, ids, scale, value=value: filled(ids, value))
    for behind in (math.inf, math.nan):
        found = scored_by(
            monkeypatch, lambda p, r, ids, scale, b=behind: filled(ids, 2.0, behind=b)
        )
        assert rows(found.advantages) == [[2.0] * 4, [2.0] * 3 + [0.0], [2.0] * 4]
    leaf = torch.ones(3, 4, requires_grad=True)
    assert not scored_by(monkeypatch, lambda p, r, ids, scale: leaf).advantages.requires_grad


def test_a_mistaken_advantage_function_is_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mistaken(p: Any, r: Tensor, ids: Tensor, *, scale: bool) -> Tensor:
        return r.view(1000)

    with pytest.raises(
        AlgorithmError,
        match=r"function group raised RuntimeError \(test_credit_assignment.py, line \d+\): shape",
    ):
        scored_by(monkeypatch, mistaken)
    with pytest.raises(AlgorithmError, match="got list; return a real tensor"):
        scored_by(monkeypatch, lambda p, r, ids, scale: ids.tolist())


def weighted(monkeypatch: pytest.MonkeyPatch, weights: Any) -> ScoredGroup:
    monkeypatch.setattr(AppoWeighting, "weights", lambda self, given: weights(given))
    return score("dapo+appo")


def test_a_weighting_gives_finite_factors_without_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(value: float, behind: float = 1.0) -> Any:
        return lambda given: TokenWeights(filled(given.segment_ids, value, behind=behind))

    with pytest.raises(AlgorithmError, match=r"appo must give a finite factor .* non-fin"):
        weighted(monkeypatch, of(math.inf))
    assert rows(weighted(monkeypatch, of(2.0, math.nan)).weights)[1] == [2.0] * 3 + [1.0]
    leaf = torch.ones(3, 4, requires_grad=True)
    found = weighted(monkeypatch, lambda given: TokenWeights(leaf)).weights
    assert found is not None
    assert not found.requires_grad
    for broken, sentence in (
        (lambda given: leaf, "must give TokenWeights, got Tensor"),
        (lambda given: TokenWeights(leaf[:2]), r"for each token, \[3, 4\], got \[2, 4\]"),
        (lambda given: TokenWeights(leaf, leaf[0]), r"crucial frames as a bool tensor, .* \[3\]"),
        (lambda given: {}["x"], "raised KeyError"),
        (lambda given: 1 / 0, "raised ZeroDivisionError"),
    ):
        with pytest.raises(AlgorithmError, match=sentence):
            weighted(monkeypatch, broken)


def crucial(correctness: str, perception: Any = PERCEPTION) -> list[bool]:
    scored = score("dapo+appo", reward=rewards(perception), correctness=correctness)
    assert scored.crucial_frames is not None
    chosen: list[bool] = scored.crucial_frames.tolist()
    return chosen


def test_which_rollouts_are_correct_for_appo() -> None:
    """By the answer the first and third are correct, by the observation the second, by both none;
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
    observed = score("pa-dapo+appo", tokens="observation").weights
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
