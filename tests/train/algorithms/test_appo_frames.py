"""Which frames are crucial."""

import math

import pytest
import torch
from helpers.appo_groups import random_group
from hypothesis import given
from hypothesis import strategies as st
from reference.naive_appo import naive_frame_scores, naive_select_frames
from torch import Tensor

from train.algorithms.appo import AppoConfig, frame_scores, select_frames

STRATEGIES = ["soft", "hard", "soft-or-all", "all", "every-frame"]
SMALLEST = math.ulp(0.0)


def frames_of(attention: Tensor, rewards: list[float], **options: object) -> list[int]:
    selected = select_frames(attention, torch.tensor(rewards), AppoConfig(**options))
    assert selected.dtype == torch.bool
    assert selected.shape == attention.shape[2:]
    return selected.nonzero().flatten().tolist()


def looking_at(*frames_of_rollouts: set[int], num_frames: int = 6) -> Tensor:
    """One token per rollout, which attends to the given frames only."""
    rows = [
        [float(frame in looked_at) for frame in range(num_frames)]
        for looked_at in frames_of_rollouts
    ]
    return torch.tensor(rows)[:, None, :]


def test_frame_scores_computed_by_hand() -> None:
    """Seen to catch: the mean over all tokens, a division by K1 where there are fewer tokens."""
    # one rollout, three tokens, two frames
    attention = torch.tensor([[[0.1, 0.6], [0.4, 0.0], [0.3, 0.2]]])
    # K1 = 2: frame 0 has 0.4 and 0.3, mean 0.35; frame 1 has 0.6 and 0.2, mean 0.4
    torch.testing.assert_close(
        frame_scores(attention, 2), torch.tensor([[0.35, 0.4]]), rtol=0, atol=1e-7
    )
    # K1 = 15 of 3 tokens: 0.8 / 3 both
    torch.testing.assert_close(
        frame_scores(attention, 15), torch.tensor([[0.8, 0.8]]) / 3, rtol=0, atol=1e-7
    )


def test_strategies_by_hand() -> None:
    """Seen to catch: hard without the difference, missing rewards counted as wrong."""
    # right (0.5 is enough), right, wrong, missing
    attention = looking_at({0, 1}, {1, 2}, {2, 3}, {1, 4})
    rewards = [0.5, 1.0, 0.4, math.nan]
    options = {"score_tokens": 1, "frames_per_rollout": 2}
    assert frames_of(attention, rewards, strategy="soft", **options) == [0, 1, 2]
    assert frames_of(attention, rewards, strategy="hard", **options) == [0, 1]
    assert frames_of(attention, rewards, strategy="soft-or-all", **options) == [0, 1, 2]
    assert frames_of(attention, rewards, strategy="all", **options) == [0, 1, 2, 3, 4]
    assert frames_of(attention, rewards, strategy="every-frame", **options) == [0, 1, 2, 3, 4, 5]


def test_a_short_rollout_is_averaged_with_the_zeros_behind_its_end() -> None:
    # rollout of one token, padded to three: frame 0 scores 0.9 / 2 with K1 = 2
    attention = torch.tensor([[[0.9, 0.5], [0.0, 0.0], [0.0, 0.0]]])
    assert frame_scores(attention, 2).tolist() == [[pytest.approx(0.45), 0.25]]


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        pytest.param(
            [0.0, 0.0],
            {"soft": [], "hard": [], "soft-or-all": [0, 1, 2, 3], "all": [0, 1, 2, 3]},
            id="nobody right",
        ),
        pytest.param(
            [1.0, 1.0],
            {"soft": [0, 1, 2, 3], "hard": [0, 1, 2, 3], "soft-or-all": [0, 1, 2, 3]},
            id="everybody right",
        ),
        pytest.param(
            [math.nan, math.nan],
            {"soft": [], "hard": [], "soft-or-all": [0, 1, 2, 3], "all": [0, 1, 2, 3]},
            id="all missing",
        ),
        pytest.param(
            [math.nan, 1.0],
            {"soft": [2, 3], "hard": [2, 3], "soft-or-all": [2, 3], "all": [0, 1, 2, 3]},
            id="one missing",
        ),
        pytest.param(
            [-3.0, 1.0],
            {"soft": [2, 3], "hard": [2, 3], "soft-or-all": [2, 3], "all": [0, 1, 2, 3]},
            id="negative sum",
        ),
    ],
)
def test_groups_at_the_edge(rewards: list[float], expected: dict[str, list[int]]) -> None:
    attention = looking_at({0, 1}, {2, 3})
    for strategy, frames in expected.items():
        assert frames_of(attention, rewards, strategy=strategy, frames_per_rollout=2) == frames
    assert len(frames_of(attention, rewards, strategy="every-frame")) == 6


def test_a_group_of_one_and_numbers_larger_than_the_group() -> None:
    attention = looking_at({0, 1}, num_frames=3)
    assert frames_of(attention, [1.0], frames_per_rollout=2) == [0, 1]
    assert frames_of(attention, [1.0], frames_per_rollout=50, score_tokens=50) == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_smallest_threshold_asks_for_a_reward_above_zero(dtype: torch.dtype) -> None:
    """Seen to catch: a comparison in float32, where the threshold is 0 and everyone is right."""
    attention = looking_at({0, 1}, {2, 3})
    for threshold in (SMALLEST, float(torch.finfo(torch.float32).tiny)):
        config = AppoConfig(frames_per_rollout=2, reward_threshold=threshold)
        rewards = torch.tensor([0.0, 0.05], dtype=dtype)
        assert select_frames(attention, rewards, config).nonzero().flatten().tolist() == [2, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_reward_at_the_threshold_is_right_in_any_dtype(dtype: torch.dtype) -> None:
    """Seen to catch: a comparison in float64, where a float32 reward of 0.7 is below 0.7."""
    attention = looking_at({0, 1}, {2, 3})
    for tenths in range(1, 10):
        config = AppoConfig(frames_per_rollout=2, reward_threshold=tenths / 10)
        rewards = torch.tensor([tenths / 10, (tenths - 1) / 10], dtype=dtype)
        assert select_frames(attention, rewards, config).nonzero().flatten().tolist() == [0, 1]


def test_whole_numbers_are_rewards_too() -> None:
    attention = looking_at({0, 1}, {2, 3})
    selected = select_frames(attention, torch.tensor([0, 1]), AppoConfig(frames_per_rollout=2))
    assert selected.nonzero().flatten().tolist() == [2, 3]


def test_equal_scores_take_the_earlier_frame() -> None:
    """Seen to catch: an unstable sort, `topk`."""
    attention = torch.ones(2, 3, 40)
    assert frames_of(attention, [1.0, 1.0], frames_per_rollout=3) == [0, 1, 2]


def test_equal_frame_scores_in_bfloat16_are_told_apart_in_float32() -> None:
    # the mean of 1, 1, 1 + 2^-7 is 1.0026, which bfloat16 rounds to 1, the score of frame 0
    attention = torch.tensor([[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0 + 2**-7]]]).bfloat16()
    assert frames_of(attention, [1.0], frames_per_rollout=1) == [1]


@given(
    st.integers(0, 10**6),
    st.sampled_from(STRATEGIES),
    st.sampled_from([0.5, SMALLEST, 1.0]),
    st.integers(1, 6),
    st.integers(1, 14),
    st.sampled_from([None, 4]),
)
def test_frames_equal_the_loop(
    seed: int, strategy: str, threshold: float, per_rollout: int, k1: int, levels: int | None
) -> None:
    group = random_group(seed, num_levels=levels)
    config = AppoConfig(k1, per_rollout, strategy=strategy, reward_threshold=threshold)  # type: ignore[arg-type]
    before = group.attention.clone()
    selected = select_frames(group.attention, group.rewards, config)
    expected = naive_select_frames(
        group.attention.tolist(), group.rewards.tolist(), k1, per_rollout, strategy, threshold
    )
    assert set(selected.nonzero().flatten().tolist()) == expected
    assert torch.equal(group.attention, before)


@given(st.integers(0, 10**6), st.integers(1, 14))
def test_frame_scores_equal_the_loop(seed: int, k1: int) -> None:
    attention = random_group(seed).attention
    expected = torch.tensor(naive_frame_scores(attention.tolist(), k1), dtype=torch.float64)
    torch.testing.assert_close(frame_scores(attention, k1), expected, rtol=0, atol=1e-14)


@given(st.integers(0, 10**6), st.sampled_from(STRATEGIES))
def test_scaling_attention_and_reordering_rollouts_select_the_same_frames(
    seed: int, strategy: str
) -> None:
    group = random_group(seed)
    config = AppoConfig(4, 2, strategy=strategy)  # type: ignore[arg-type]
    selected = select_frames(group.attention, group.rewards, config)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    again = select_frames(4.0 * group.attention[order], group.rewards[order], config)
    assert torch.equal(selected, again)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_attention_that_is_not_finite_is_refused_with_its_place(bad: float) -> None:
    attention = torch.rand(2, 3, 4)
    attention[1, 2, 3] = bad
    with pytest.raises(ValueError, match="at rollout 1, token 2, frame 3"):
        select_frames(attention, torch.tensor([1.0, 0.0]), AppoConfig())


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 0), (2, 0, 3), (0, 2, 3)])
def test_a_group_without_frames_or_tokens_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="APPO needs a group with a video and completions"):
        select_frames(torch.zeros(shape), torch.zeros(shape[0]), AppoConfig())


def test_rewards_of_another_group_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \[2\], one for each rollout .* got \[3\]"):
        select_frames(torch.zeros(2, 3, 4), torch.zeros(3), AppoConfig())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"score_tokens": 0}, "score_tokens must be at least 1, got 0"),
        ({"frames_per_rollout": 0}, "frames_per_rollout must be at least 1"),
        ({"tokens_per_frame": -1}, "tokens_per_frame must be at least 1"),
        ({"max_weight": 0.7}, r"max_weight must be a number from 1 .* got 0.7"),
        ({"max_weight": math.nan}, "max_weight must be a number"),
        ({"max_weight": math.inf}, "max_weight must be a number"),
        ({"reward_threshold": math.nan}, "reward_threshold must be a number"),
        ({"strategy": "force-all"}, "strategy must be one of soft, hard, .* got 'force-all'"),
        ({"divergence": "js"}, "divergence must be one of released, kl, got 'js'"),
    ],
)
def test_settings_without_meaning_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AppoConfig(**options)  # type: ignore[arg-type]
