"""Token weights from log-probs."""

import math
from typing import Literal

import pytest
import torch
from helpers.appo_groups import Group, random_group
from hypothesis import given
from hypothesis import strategies as st
from reference.naive_appo import naive_select_frames, naive_token_weights
from torch import Tensor

from train.algorithms.appo import AppoConfig, token_weights
from train.algorithms.divergence import slot_divergence

DIVERGENCES: list[Literal["released", "kl"]] = ["released", "kl"]
divergences = pytest.mark.parametrize("divergence", DIVERGENCES)


def close(actual: Tensor, expected: object, atol: float) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def three_slots() -> Tensor:
    """Two rollouts, three tokens, two entries: equal, somewhat different, opposite."""
    probabilities = [[[0.5, 0.5], [0.5, 0.5], [0.8, 0.2]], [[0.5, 0.5], [0.8, 0.2], [0.2, 0.8]]]
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_divergences_computed_by_hand() -> None:
    """Seen to catch: the sum over rollouts for the mean, weights p in the released form."""
    # released, G = V = 2: the d of an entry sum to 0 over the rollouts, so
    #   D = 1/2 sum_v (sqrt(r_v) + 1 / sqrt(r_v)) - 2 with r_v the ratio of the two probabilities.
    # slot 1: r = 1.6 and 0.4: 1.2649111 + 0.7905694 + 0.6324555 + 1.5811388 = 4.2690748
    # slot 2: r = 0.25 and 4: 0.5 + 2 + 2 + 0.5 = 5
    close(slot_divergence(three_slots(), "released"), [0.0, 0.1345374, 0.5], 1e-7)
    # kl: slot 1, m = (0.65, 0.35):
    #   0.5 ln(0.5/0.65) + 0.5 ln(0.5/0.35) = -0.1311821 + 0.1783375 = 0.0471554
    #   0.8 ln(0.8/0.65) + 0.2 ln(0.2/0.35) =  0.1661115 - 0.1119232 = 0.0541883
    # slot 2, m = (0.5, 0.5): 2 (0.8 ln 1.6 + 0.2 ln 0.4) = 2 (0.3760029 - 0.1832581) = 0.3854896
    close(slot_divergence(three_slots(), "kl"), [0.0, 0.1013437, 0.3854896], 2e-7)


def test_weights_of_one_frame_computed_by_hand() -> None:
    """Seen to catch: max_weight for max_weight - 1, min-max over the group instead of the frame."""
    attention = torch.ones(2, 3, 1)
    rewards = torch.tensor([1.0, 0.0])
    # one frame holds all three slots: w = D / 0.5 = (0, 0.2690748, 1), W = 1 + 0.7 w
    weights = token_weights(attention, three_slots(), torch.ones(2, 3), rewards, AppoConfig())
    close(weights, [[1.0, 1.1883524, 1.7]] * 2, 1e-6)
    # kl: w = (0, 0.1013437 / 0.3854896 = 0.2628961, 1)
    weights = token_weights(
        attention, three_slots(), torch.ones(2, 3), rewards, AppoConfig(divergence="kl")
    )
    close(weights, [[1.0, 1.1840273, 1.7]] * 2, 1e-6)


def test_a_token_of_two_frames_has_the_mean_of_their_intensities() -> None:
    """Seen to catch: the sum, the mean over all frames, one min-max over all frames."""
    # frame 0 holds tokens 0 and 1, frame 1 tokens 1 and 2, of both rollouts
    attention = torch.tensor([[[0.9, 0.1], [0.8, 0.8], [0.1, 0.9]]]).expand(2, 3, 2)
    # frame 0: D = (0, 0.13), w = (0, 1); frame 1: D = (0.13, 0.5), w = (0, 1)
    # token 0: 0, token 1: (1 + 0) / 2, token 2: 1
    config = AppoConfig(tokens_per_frame=2, strategy="every-frame")
    weights = token_weights(attention, three_slots(), torch.ones(2, 3), torch.zeros(2), config)
    close(weights, [[1.0, 1.35, 1.7]] * 2, 1e-6)


def test_slots_are_in_reading_order_and_differ_between_rollouts() -> None:
    """Seen to catch: slots in the order of attention."""
    # rollout 0 prefers token 2, then 0; rollout 1 token 1, then 2: slots (0, 1) and (2, 2)
    attention = torch.tensor([[[0.5], [0.1], [0.9]], [[0.1], [0.9], [0.5]]])
    # slot 0 compares (0.5, 0.5) with (0.8, 0.2): D = 0.1345; slot 1 (0.8, 0.2) with (0.2, 0.8): 0.5
    config = AppoConfig(tokens_per_frame=2, strategy="all")
    weights = token_weights(attention, three_slots(), torch.ones(2, 3), torch.zeros(2), config)
    close(weights, [[1.0, 1.0, 1.7], [1.0, 1.0, 1.7]], 1e-6)


def test_a_masked_token_counts_as_the_uniform_distribution() -> None:
    """Seen to catch: masked rollouts left out of the slot, their weight not kept at 1."""
    logprobs = three_slots()
    logprobs[1, 2] = math.nan  # behind the end of rollout 1: never read
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    # slot 2 compares (0.8, 0.2) with (0.5, 0.5), the same as slot 1: both have w = 1
    weights = token_weights(
        torch.ones(2, 3, 1), logprobs, mask, torch.ones(2), AppoConfig(max_weight=2.0)
    )
    close(weights, [[1.0, 2.0, 2.0], [1.0, 2.0, 1.0]], 1e-6)


@pytest.mark.parametrize("levels", [None, 4])
@divergences
def test_weights_equal_the_loop(divergence: Literal["released", "kl"], levels: int | None) -> None:
    """Also where attention is full of ties, which the lower index wins."""
    for seed in range(20):
        group = random_group(seed, rollouts=1 + seed % 5, num_levels=levels)
        per_frame = [1, 3, 7, 12, 40][seed % 5]
        strategy = ["all", "every-frame", "soft-or-all", "soft", "hard"][seed % 3]
        config = AppoConfig(3, 2, per_frame, 1.9, strategy, 0.4, divergence)  # type: ignore[arg-type]
        attention, logprobs, mask, rewards = (tensor.tolist() for tensor in group.args)
        frames = naive_select_frames(attention, rewards, 3, 2, strategy, 0.4)
        expected = naive_token_weights(
            attention, logprobs, mask, frames, per_frame, 1.9, divergence
        )
        weights = token_weights(*group.args, config)
        assert weights.dtype == torch.float64
        # 2e-8: the 1e-8 beside the count, which the loop does without
        close(weights, expected, 2e-8)
        single = token_weights(
            group.attention, group.logprobs.float(), group.mask, group.rewards, config
        )
        assert single.dtype == torch.float32
        close(single, expected, 2e-6)


@given(st.integers(0, 10**6), st.sampled_from(DIVERGENCES), st.sampled_from([1, 4, 12]))
def test_weights_are_in_range_and_one_where_masked(
    seed: int, divergence: Literal["released", "kl"], per_frame: int
) -> None:
    group = random_group(seed)
    config = AppoConfig(3, 2, per_frame, 1.5, "all", divergence=divergence)
    copies = [tensor.clone() for tensor in group.args]
    weights = token_weights(*group.args, config)
    assert ((weights >= 1.0) & (weights <= 1.5)).all()
    assert (weights[~group.mask] == 1.0).all()
    for tensor, copy in zip(group.args, copies, strict=True):
        torch.testing.assert_close(tensor, copy, rtol=0, atol=0, equal_nan=True)
    neutral = AppoConfig(3, 2, per_frame, 1.0, "all", divergence=divergence)
    assert (token_weights(*group.args, neutral) == 1.0).all()


@given(st.integers(0, 10**6), st.sampled_from(DIVERGENCES))
def test_order_of_rollouts_entries_and_frames_does_not_matter(
    seed: int, divergence: Literal["released", "kl"]
) -> None:
    group = random_group(seed)
    config = AppoConfig(3, 2, 5, strategy="all", divergence=divergence)
    weights = token_weights(*group.args, config)
    generator = torch.Generator().manual_seed(seed)
    rollouts, entries, frames = (torch.randperm(n, generator=generator) for n in (4, 17, 5))
    again = token_weights(
        group.attention[rollouts][:, :, frames],
        group.logprobs[rollouts][:, :, entries],
        group.mask[rollouts],
        group.rewards[rollouts],
        config,
    )
    close(again, weights[rollouts], 1e-9)


@divergences
def test_attention_matters_below_the_completion_length_and_not_at_it(
    divergence: Literal["released", "kl"],
) -> None:
    group = random_group(5)
    other = Group(
        group.attention.flip(2) * group.attention.mean(2, keepdim=True).exp(), *group.args[1:]
    )
    config = AppoConfig(3, 2, 4, strategy="all", divergence=divergence)
    assert not torch.allclose(
        token_weights(*group.args, config), token_weights(*other.args, config)
    )
    whole = AppoConfig(3, 2, 12, strategy="all", divergence=divergence)
    assert torch.equal(token_weights(*group.args, whole), token_weights(*other.args, whole))


def weights_of(group: Group, **options: object) -> Tensor:
    return token_weights(*group.args, AppoConfig(**options))  # type: ignore[arg-type]


@divergences
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_at_the_edge_have_weights_of_exactly_one(
    dtype: torch.dtype, divergence: Literal["released", "kl"]
) -> None:
    """Seen to catch: rounding noise of equal distributions stretched to the whole range."""

    def ones(group: Group, **options: object) -> bool:
        group = Group(group.attention, group.logprobs.to(dtype), group.mask, group.rewards)
        weights = weights_of(group, divergence=divergence, **options)
        return weights.dtype == dtype and bool((weights == 1.0).all())

    group = random_group(3)
    nobody = Group(*group.args[:3], torch.zeros(4))
    assert ones(nobody, strategy="soft"), "nobody right, no frame is crucial"
    assert ones(nobody, strategy="hard")
    assert not ones(nobody, strategy="soft-or-all")
    everybody = Group(*group.args[:3], torch.ones(4))
    assert not ones(everybody, strategy="hard"), "everybody right"
    missing = Group(*group.args[:3], torch.full((4,), math.nan))
    assert ones(missing, strategy="soft"), "all rewards missing"
    masked = Group(group.attention, group.logprobs, torch.zeros(4, 12), torch.ones(4))
    assert ones(masked), "all masked"
    single = random_group(3, rollouts=1)
    assert ones(single, strategy="all"), "a group of one differs from nobody"
    token = random_group(3, tokens=1)
    assert ones(token, strategy="all"), "one token: one slot, nothing to rank"
    assert ones(group, strategy="all", tokens_per_frame=1), "one token per frame"
    for rollouts in (3, 5, 7):  # means of equal numbers are rounded
        equal = random_group(4, rollouts=rollouts)
        first = equal.logprobs[:1].expand_as(equal.logprobs)
        whole = torch.ones(rollouts, 12)
        assert ones(
            Group(equal.attention, first, whole, equal.rewards), tokens_per_frame=12, strategy="all"
        ), "equal distributions"


def test_numbers_larger_than_the_group_are_those_of_the_group() -> None:
    group = random_group(11)
    large = weights_of(
        group, strategy="all", score_tokens=999, frames_per_rollout=999, tokens_per_frame=999
    )
    exact = weights_of(
        group, strategy="all", score_tokens=12, frames_per_rollout=5, tokens_per_frame=12
    )
    assert torch.equal(large, exact)
    assert (large > 1).any()


@divergences
def test_a_probability_of_zero_is_the_limit_of_small_ones(
    divergence: Literal["released", "kl"],
) -> None:
    """Minus infinity, as filtered or underflowing log-probs have it; for one and for all."""
    probabilities = torch.full((3, 4, 6), 1.0, dtype=torch.float64)
    probabilities += torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))
    zero, tiny = probabilities.clone(), probabilities.clone()
    for place in ((0, 1, 2), (1, 2, 3), (2, 2, 3)):
        zero[place], tiny[place] = 0.0, 1e-300
    zero[:, 3, 4] = 0.0
    zero, tiny = (values / values.sum(-1, keepdim=True) for values in (zero, tiny))
    actual = slot_divergence(zero.log(), divergence)
    assert actual.isfinite().all()
    close(actual[:3], slot_divergence(tiny.log(), divergence)[:3], 1e-9)
    # an entry that is impossible for every rollout adds nothing
    without = torch.cat([zero[:, 3:, :4], zero[:, 3:, 5:]], dim=-1)
    close(actual[3:], slot_divergence(without.log(), divergence), 1e-12)


@divergences
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_log_probs_that_are_not_finite_are_refused_with_their_tokens(
    bad: float, divergence: Literal["released", "kl"]
) -> None:
    logprobs = three_slots()
    logprobs[1, 2, 0] = bad
    with pytest.raises(ValueError, match=r"\(rollout, token\) pairs: \(0, 2\), \(1, 2\);"):
        token_weights(
            torch.ones(2, 3, 1),
            logprobs,
            torch.ones(2, 3),
            torch.ones(2),
            AppoConfig(divergence=divergence),
        )


def test_the_clamp_is_at_eleven() -> None:
    # G = 2, one entry: log-probs 0 and -40 give d = -20 and +20, clamped to -11 and +11
    logprobs = torch.tensor([[[0.0]], [[-40.0]]], dtype=torch.float64)
    expected = (math.exp(-11) + 11 - 1 + math.exp(11) - 11 - 1) / 2
    close(slot_divergence(logprobs, "released"), [expected], 1e-7)


def test_kl_of_near_equal_distributions_survives_float32() -> None:
    """Seen to catch: sum p (l - ln m), which float32 cancels to noise."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 5000, generator=generator, dtype=torch.float64)
    noise = 1e-3 * torch.randn(4, 3, 5000, generator=generator, dtype=torch.float64)
    # float32 numbers that both forms read alike
    logprobs = (logits + noise).log_softmax(-1).float()
    exact = slot_divergence(logprobs.double(), "kl")
    assert (exact < 1e-5).all()
    torch.testing.assert_close(slot_divergence(logprobs, "kl").double(), exact, rtol=1e-3, atol=0)


def test_weights_are_plain_numbers_unless_gradient_is_asked_for() -> None:
    group = random_group(7)
    logprobs = group.logprobs.clone().requires_grad_()
    args = (group.attention, logprobs, group.mask, group.rewards)
    assert not token_weights(*args, AppoConfig(3, 2, 5, strategy="all")).requires_grad
    flowing = token_weights(*args, AppoConfig(3, 2, 5, strategy="all", detach=False))
    plain = token_weights(*args, AppoConfig(3, 2, 5, strategy="all"))
    assert torch.equal(flowing.detach(), plain)
    with torch.no_grad():
        config = AppoConfig(3, 2, 5, strategy="all", detach=False)
        assert not token_weights(*args, config).requires_grad


@divergences
def test_gradient_through_the_weights_equals_finite_differences(
    divergence: Literal["released", "kl"],
) -> None:
    group = random_group(8, rollouts=3, tokens=5, frames=2, entries=4)
    config = AppoConfig(3, 2, 3, strategy="all", divergence=divergence, detach=False)

    def weights(logprobs: Tensor) -> Tensor:
        return token_weights(group.attention, logprobs, group.mask, group.rewards, config)

    logprobs = group.logprobs.clone().requires_grad_()
    assert weights(logprobs).requires_grad
    assert torch.autograd.gradcheck(weights, (logprobs,), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        (((2, 3, 4), (2, 3), (2, 3), (2,)), r"logprobs must be \[2, 3, V\], got \[2, 3\]"),
        (((2, 3, 4), (2, 4, 5), (2, 3), (2,)), r"logprobs must be \[2, 3, V\], got \[2, 4, 5\]"),
        (((2, 3, 4), (2, 3, 5), (2, 4), (2,)), r"completion_mask must be \[2, 3\], got \[2, 4\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shapes: tuple[tuple[int, ...], ...], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        token_weights(*(torch.zeros(shape) for shape in shapes), AppoConfig())  # type: ignore[call-arg,arg-type]
