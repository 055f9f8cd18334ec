import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.naive_advantages import naive_group_advantages, naive_segment_advantages
from torch import Tensor

from train.algorithms.advantages import flat_groups, group_advantages, segment_advantages

NAN = math.nan


def close(actual: Tensor, expected: object, atol: float) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol, equal_nan=False)


def test_advantages_of_two_groups_computed_by_hand() -> None:
    """Seen to catch: mean over the whole batch, population std."""
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 3.0, 1.0, 1.0, 1.0])
    # first group: mean 1/2, sum of squares 4/4 = 1, std = sqrt(1/3) = 0.577350269
    #   A = +-0.5 / 0.577450269 = +-0.865875430
    # second: mean 3/2, deviations 3/2 and three times -1/2, squares 9/4 + 3/4 = 3, std = 1
    #   A = 1.5 / 1.0001 = 1.499850015, -0.5 / 1.0001 = -0.499950005
    expected = [0.865875430, -0.865875430, -0.865875430, 0.865875430]
    expected += [1.499850015, -0.499950005, -0.499950005, -0.499950005]
    close(group_advantages(rewards.double(), 4), expected, 1e-8)
    close(group_advantages(rewards, 4), expected, 1e-6)


def test_advantages_of_the_published_example() -> None:
    """The example of APPO's code: 0.9 for the answer plus 0.1 for the format, eight rollouts."""
    rewards = torch.tensor([1, 0.1, 0, 0, 1, 1, 0.1, 0])
    # mean 0.4; std 0.498569
    expected = [1.2032, -0.6016, -0.8021, -0.8021, 1.2032, 1.2032, -0.6016, -0.8021]
    close(group_advantages(rewards, 8), expected, 5e-5)


def test_unscaled_advantages_are_the_centred_rewards() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 3.0, 1.0, 1.0, 1.0])
    expected = [0.5, -0.5, -0.5, 0.5, 1.5, -0.5, -0.5, -0.5]
    close(group_advantages(rewards, 4, scale=False), expected, 0)


def test_a_missing_reward_is_left_out_of_the_statistics() -> None:
    # present: 1, 0, 2: mean 1, std 1; the missing one has advantage 0, as has the middle one
    advantages = group_advantages(torch.tensor([1.0, NAN, 0.0, 2.0], dtype=torch.float64), 4)
    close(advantages, [0.0, 0.0, -1 / 1.0001, 1 / 1.0001], 1e-12)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize(
    ("rewards", "group_size"),
    [
        # 0.9 and 0.7 have means that are not exactly themselves: rounding over eps is not 0
        pytest.param([0.9] * 8, 8, id="flat group"),
        pytest.param([0.7] * 7, 7, id="flat group of seven"),
        pytest.param([0.9, NAN, 0.9, 0.9, NAN, 0.9, 0.9, 0.9], 8, id="flat but for missing"),
        pytest.param([NAN, 0.3, NAN, NAN], 4, id="one present reward"),
        pytest.param([NAN] * 4, 4, id="all missing"),
        pytest.param([0.1, 0.2, NAN, 5.0], 1, id="groups of one"),
        pytest.param([], 4, id="no rollouts"),
    ],
)
def test_a_group_that_teaches_nothing_has_advantage_exactly_zero(
    rewards: list[float], group_size: int, scale: bool
) -> None:
    """Seen to catch: the missing flat rule (-6e-4 for eight times 0.9)."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        advantages = group_advantages(
            torch.tensor(rewards, dtype=dtype), group_size, scale=scale, eps=1e-4
        )
        assert advantages.tolist() == [0.0] * len(rewards)
        assert flat_groups(torch.tensor(rewards, dtype=dtype), group_size).all()


def test_a_nearly_flat_group_is_not_flat() -> None:
    advantages = group_advantages(torch.tensor([0.5, 0.5001], dtype=torch.float64), 2)
    # std = 1e-4 / sqrt(2), A = -+0.5e-4 / (0.7071e-4 + 1e-4) = -+0.292893
    close(advantages, [-0.292893, 0.292893], 1e-6)
    assert not flat_groups(torch.tensor([0.5, 0.5001]), 2).any()


def test_flat_groups_are_told_apart() -> None:
    rewards = torch.tensor([1.0, 1.0, 0.0, 1.0, NAN, 1.0, NAN, NAN])
    assert flat_groups(rewards, 2).tolist() == [True, False, True, True]


REWARDS = st.one_of(st.sampled_from([0.0, 1.0, 0.9, NAN]), st.floats(-3, 3, width=32))
GROUPS = st.integers(1, 9).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.integers(0, 3).flatmap(
            lambda n: st.lists(REWARDS, min_size=n * size, max_size=n * size)
        ),
    )
)


@given(GROUPS, st.booleans(), st.sampled_from([1e-4, 1e-2]))
def test_advantages_equal_the_loop(group: tuple[int, list[float]], scale: bool, eps: float) -> None:
    group_size, rewards = group
    expected = naive_group_advantages(rewards, group_size, scale, eps)
    given_rewards = torch.tensor(rewards, dtype=torch.float64)
    actual = group_advantages(given_rewards, group_size, scale=scale, eps=eps)
    # 1e-9: float64 rounding of values up to 3, divided by a std + eps of at least 1e-4
    close(actual, expected, 1e-9)
    assert actual.dtype == torch.float64
    given_again = torch.tensor(rewards, dtype=torch.float64)
    torch.testing.assert_close(given_rewards, given_again, rtol=0, atol=0, equal_nan=True)


@given(GROUPS)
def test_advantages_of_a_group_sum_to_zero_and_ignore_a_shift(
    group: tuple[int, list[float]],
) -> None:
    group_size, rewards = group
    tensor = torch.tensor(rewards, dtype=torch.float64)
    advantages = group_advantages(tensor, group_size)
    sums = advantages.view(-1, group_size).sum(dim=1)
    close(sums, torch.zeros_like(sums), 1e-8)
    # unscaled, because tiny differences are lost in the shift and the group may become flat
    shifted = group_advantages(tensor + 4.0, group_size, scale=False)
    close(shifted, group_advantages(tensor, group_size, scale=False), 1e-12)


def test_bfloat16_and_integer_rewards_are_computed_in_float32() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0])
    expected = group_advantages(rewards, 4)
    for dtype in (torch.bfloat16, torch.float16, torch.int64):
        actual = group_advantages(rewards.to(dtype), 4)
        assert actual.dtype == torch.float32
        assert torch.equal(actual, expected)


def test_each_segment_has_its_own_advantage_computed_by_hand() -> None:
    """Seen to catch: the rewards of the two segments exchanged; one normalisation for both."""
    perception = torch.tensor([1.0, 0.0], dtype=torch.float64)
    reasoning = torch.tensor([0.0, 4.0], dtype=torch.float64)
    segments = torch.tensor([[1, 1, 2, 2], [1, 2, 2, 0]])
    # perception: mean 1/2, std 1/sqrt(2) = 0.707106781, A = +-0.5/0.707206781 = +-0.707006795
    # reasoning: mean 2, std 2 sqrt(2) = 2.828427125, A = -+2/2.828527125 = -+0.707081782
    expected = [
        [0.707006795, 0.707006795, -0.707081782, -0.707081782],
        [-0.707006795, 0.707081782, 0.707081782, 0.0],
    ]
    close(segment_advantages(perception, reasoning, segments, 2), expected, 1e-8)


def test_segment_advantages_equal_the_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    perception = torch.randn(12, generator=generator, dtype=torch.float64)
    reasoning = torch.randn(12, generator=generator, dtype=torch.float64)
    perception[[1, 5]] = NAN
    reasoning[4:8] = 0.3
    segments = torch.randint(0, 3, (12, 9), generator=generator)
    for scale in (True, False):
        actual = segment_advantages(perception, reasoning, segments, 4, scale=scale)
        expected = naive_segment_advantages(
            perception.tolist(), reasoning.tolist(), segments.tolist(), 4, scale, 1e-4
        )
        assert actual.shape == (12, 9)
        close(actual, expected, 1e-12)


def test_equal_rewards_on_both_segments_are_group_advantages_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(2)
    rewards = torch.randn(16, generator=generator)
    segments = torch.randint(0, 3, (16, 7), generator=generator)
    actual = segment_advantages(rewards, rewards, segments, 8)
    expected = group_advantages(rewards, 8)[:, None] * (segments > 0)
    assert (segments > 0).any()
    assert torch.equal(actual, expected)


def test_a_rollout_without_perception_tokens_still_counts_in_the_statistics() -> None:
    perception = torch.tensor([1.0, 1.0, 0.0])
    reasoning = torch.tensor([1.0, 0.0, 0.0])
    segments = torch.tensor([[1, 2], [1, 2], [2, 2]])
    actual = segment_advantages(perception, reasoning, segments, 3)
    assert torch.equal(actual[:2, 0], group_advantages(perception, 3)[:2])
    assert torch.equal(actual[2], group_advantages(reasoning, 3)[2].expand(2))


def test_a_missing_perception_reward_leaves_the_reasoning_tokens_trained() -> None:
    perception = torch.tensor([NAN, 1.0, 0.0])
    reasoning = torch.tensor([1.0, 0.0, 0.0])
    actual = segment_advantages(perception, reasoning, torch.tensor([[1, 2]] * 3), 3)
    assert actual[0, 0] == 0
    assert actual[0, 1] > 1
    assert actual.isfinite().all()


def test_all_masked_and_one_token_completions() -> None:
    rewards = torch.tensor([1.0, 0.0])
    assert segment_advantages(rewards, rewards, torch.zeros(2, 3), 2).tolist() == [[0.0] * 3] * 2
    one = segment_advantages(rewards, rewards, torch.tensor([[2], [2]]), 2)
    assert torch.equal(one[:, 0], group_advantages(rewards, 2))
    assert segment_advantages(rewards, rewards, torch.zeros(2, 0), 2).shape == (2, 0)


@pytest.mark.parametrize(
    ("rewards", "group_size", "sentence"),
    [
        ([1.0] * 20, 8, "20 rewards cannot be cut into groups of 8"),
        ([1.0, 2.0], 0, "cut into groups of 0"),
        ([[1.0, 2.0]], 2, r"one value per rollout, \[R\], got \(1, 2\)"),
        ([0.0, math.inf], 2, "the reward of rollout 1 is inf"),
        ([-math.inf, 0.0], 2, "the reward of rollout 0 is -inf"),
    ],
)
def test_rewards_that_form_no_groups_are_refused(
    rewards: list[float], group_size: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        group_advantages(torch.tensor(rewards), group_size)


def test_segments_that_do_not_fit_are_refused() -> None:
    rewards = torch.tensor([1.0, 0.0])
    with pytest.raises(ValueError, match=r"must be 0 .* got \[0, 3\]"):
        segment_advantages(rewards, rewards, torch.tensor([[0], [3]]), 2)
    with pytest.raises(ValueError, match="one row for each of the 2 rewards"):
        segment_advantages(rewards, rewards, torch.zeros(3, 4), 2)
    with pytest.raises(ValueError, match="one value per rollout each"):
        segment_advantages(rewards, rewards[:1], torch.zeros(2, 4), 2)
