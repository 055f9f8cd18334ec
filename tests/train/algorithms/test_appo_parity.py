"""Equality with the published code of APPO, on vectors that it computed."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from train.algorithms.appo import AppoConfig, Strategy, _slot_columns, select_frames, token_weights

pytestmark = pytest.mark.data

CASES = [f"p{number:02}" for number in range(12)]
# The sum of its rewards is negative although one of them is positive.
NEGATIVE_SUM = "p09"
OUR_STRATEGY: dict[str, Strategy] = {"hard": "soft", "soft": "soft-or-all", "force-all": "all"}
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Vectors:
    """One case of the published function: its inputs, its options in our names, its outputs."""

    index: dict[str, Any]
    tensors: dict[str, Tensor]
    config: AppoConfig

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        names = ("attention", "logps", "completion_mask", "acc_rewards")
        return tuple(self.tensors[name] for name in names)  # type: ignore[return-value]

    def expected(self, name: str) -> Tensor:
        """The published weights, with add-one on."""
        offset = 0.0 if self.index["params"]["add_one"] else 1.0
        return self.tensors[name] + offset


@pytest.fixture(scope="session")
def parity(shared_data: Path) -> dict[str, Vectors]:
    folder = shared_data.parent / "parity"
    index = json.loads((folder / "appo_parity_public.json").read_text())
    tensors = load_file(folder / "appo_parity_public.safetensors")
    return {
        case["case"]: Vectors(
            case,
            {name: tensors[key] for name, key in case["tensors"].items()},
            our_config(case["params"]),
        )
        for case in index["cases"]
    }


def our_config(params: dict[str, Any]) -> AppoConfig:
    chooses = params["select_strategy"] == "topk-union"
    return AppoConfig(
        score_tokens=params["token_nums_for_avg_frame_score"],
        frames_per_rollout=params["frame_nums_for_select_valid_frames"],
        tokens_per_frame=params["token_nums_for_update_per_frame"],
        max_weight=params["max_weight"],
        strategy=OUR_STRATEGY[params["select_level"]] if chooses else "every-frame",
        reward_threshold=math.ulp(0.0),
    )


def matching_config(vectors: Vectors) -> AppoConfig:
    """For the negative sum, the strategy to which the published fallback amounts."""
    is_negative = vectors.index["case"] == NEGATIVE_SUM
    return replace(vectors.config, strategy="all") if is_negative else vectors.config


def largest_difference(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    assert actual.numel() > 0
    return float((actual - expected).abs().max())


def test_every_case_of_the_index_is_tried(parity: dict[str, Vectors]) -> None:
    assert list(parity) == CASES


@pytest.mark.parametrize("case", CASES)
def test_weights_equal_the_published_ones(parity: dict[str, Vectors], case: str) -> None:
    """Seen to catch: population of the count, min-max over the group, unsorted slots."""
    vectors = parity[case]
    config, expected = matching_config(vectors), vectors.expected("weights_f32")
    weights = token_weights(*vectors.inputs, config)
    assert largest_difference(weights, expected) <= TOLERANCE
    attention, logprobs, mask, rewards = vectors.inputs
    exact = token_weights(attention.double(), logprobs.double(), mask.bool(), rewards, config)
    assert largest_difference(exact, expected) <= TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_frames_and_tokens_are_the_published_ones(parity: dict[str, Vectors], case: str) -> None:
    vectors = parity[case]
    attention, _, mask, rewards = vectors.inputs
    config = matching_config(vectors)
    frames = select_frames(attention, rewards, config)
    assert frames.nonzero().flatten().tolist() == vectors.index["selected_frames"]
    count = torch.zeros_like(mask)
    for columns in _slot_columns(attention[:, :, frames], config.tokens_per_frame):
        count = count.scatter_add(1, columns, torch.ones_like(columns, dtype=count.dtype))
    # behind a completion's end the count depends on how ties between zeros are broken
    assert torch.equal(count * mask, vectors.tensors["token_count"] * mask)


@pytest.mark.parametrize("case", CASES)
def test_inputs_in_the_dtype_of_the_published_run_give_the_same(
    parity: dict[str, Vectors], case: str
) -> None:
    vectors = parity[case]
    attention, logprobs, mask, rewards = vectors.inputs
    attention = attention.to(getattr(torch, vectors.index["attention_dtype"]))
    logprobs = logprobs.to(getattr(torch, vectors.index["logps_dtype"]))
    weights = token_weights(attention, logprobs, mask, rewards, matching_config(vectors))
    assert weights.dtype == torch.float32
    assert largest_difference(weights, vectors.expected("weights_f32")) <= TOLERANCE
    if vectors.index["reference_outcome"] == "ok":
        # the unmodified function rounds to bfloat16 on its way, up to 0.012
        assert largest_difference(weights, vectors.expected("weights_reference")) <= 0.012


@pytest.mark.parametrize("case", ["p01", NEGATIVE_SUM])
def test_gradient_through_the_weights_is_the_published_one(
    parity: dict[str, Vectors], case: str
) -> None:
    vectors = parity[case]
    attention, logprobs, mask, rewards = vectors.inputs
    logprobs = logprobs.clone().requires_grad_()
    config = replace(matching_config(vectors), detach=False)
    weights = token_weights(attention, logprobs, mask, rewards, config)
    (vectors.tensors["grad_coef"] * weights).sum().backward()
    assert logprobs.grad is not None
    assert vectors.tensors["grad_logps"].abs().max() > 1e-2
    torch.testing.assert_close(logprobs.grad, vectors.tensors["grad_logps"], rtol=1e-3, atol=1e-5)


def test_documented_difference_the_fallback_asks_whether_any_rollout_is_right(
    parity: dict[str, Vectors],
) -> None:
    """The published code asks for the sum of the rewards, which wrong ones may make negative."""
    vectors = parity[NEGATIVE_SUM]
    assert vectors.tensors["acc_rewards"].tolist() == [1.0, -2.0, 0.0]
    assert vectors.config.strategy == "soft-or-all"
    ours = token_weights(*vectors.inputs, vectors.config)
    published = vectors.expected("weights_f32")
    assert largest_difference(ours, published) > 0.1
    soft = token_weights(*vectors.inputs, replace(vectors.config, strategy="soft"))
    assert torch.equal(ours, soft)


def test_documented_difference_a_missing_reward_calls_for_no_fallback(
    parity: dict[str, Vectors],
) -> None:
    """In the published code one NaN makes the sum NaN, and all rollouts choose frames."""
    vectors = parity["p11"]
    assert vectors.config.strategy == "soft-or-all"
    attention, logprobs, mask, rewards = vectors.inputs
    missing = rewards.masked_fill(rewards == 0, math.nan)
    assert missing.isnan().any()
    ours = token_weights(attention, logprobs, mask, missing, vectors.config)
    assert torch.equal(ours, token_weights(attention, logprobs, mask, rewards, vectors.config))
    everyone = replace(vectors.config, strategy="all")
    assert not torch.equal(ours, token_weights(attention, logprobs, mask, missing, everyone))
