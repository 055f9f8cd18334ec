"""Token weights from hidden states, without `[G, N, V]`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from helpers.appo_groups import Group, random_group
from helpers.tensor_memory import TensorMemory
from torch import Tensor

from train.algorithms.appo import AppoConfig, token_weights, token_weights_from_hidden

pytestmark = pytest.mark.heavy

WIDTH = 6
divergences = pytest.mark.parametrize("divergence", ["released", "kl"])


def with_head(
    group: Group, entries: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, LM head and bias."""
    generator = torch.Generator().manual_seed(entries)
    shapes = ((*group.mask.shape, WIDTH), (entries, WIDTH), (entries,))
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    return hidden.to(dtype), weight.to(dtype), bias.to(dtype)


@pytest.mark.parametrize("chunk", [1, 7, 32, 33, 1000])
@divergences
def test_streamed_weights_equal_the_dense_ones(
    divergence: Literal["released", "kl"], chunk: int
) -> None:
    """Seen to catch: the bias or temperature left out, uniform as -ln of the chunk's size."""
    for seed in range(6):
        group = random_group(seed, rollouts=1 + seed % 4)
        hidden, weight, bias = with_head(group, 33)
        config = AppoConfig(3, 2, 3 + 4 * (seed % 3), strategy="all", divergence=divergence)
        for temperature, chosen_bias in ((1.0, None), (0.7, bias)):
            logits = torch.nn.functional.linear(hidden, weight, chosen_bias) / temperature
            dense = token_weights(
                group.attention, logits.log_softmax(-1), group.mask, group.rewards, config
            )
            for known in (
                {},
                {"log_normalisers": logits.logsumexp(-1)},
                {"all_logprobs": logits.log_softmax(-1)[group.mask.bool()]},
            ):
                streamed = token_weights_from_hidden(
                    group.attention,
                    hidden,
                    weight,
                    group.mask,
                    group.rewards,
                    config,
                    lm_head_bias=chosen_bias,
                    temperature=temperature,
                    vocabulary_chunk=chunk,
                    **known,
                )
                assert streamed.dtype == torch.float64
                # 1e-11: other order of float64 sums over 33 entries
                torch.testing.assert_close(streamed, dense, rtol=0, atol=1e-11)
            assert seed % 4 == 0 or (dense > 1).any()


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        # 5e-5: float32 log-normalisers of 5,000 entries summed in another order
        (torch.float32, 5e-5),
        # both round the logits to bfloat16 first, as the model does, and differ no more after that
        (torch.bfloat16, 5e-5),
    ],
)
@divergences
def test_streamed_weights_in_the_dtypes_of_training(
    dtype: torch.dtype, tolerance: float, divergence: Literal["released", "kl"]
) -> None:
    group = random_group(1, tokens=40)
    hidden, weight, _ = with_head(group, 5000, dtype)
    config = AppoConfig(3, 2, 12, strategy="all", divergence=divergence)
    logprobs = (hidden @ weight.T).float().log_softmax(-1)
    dense = token_weights(group.attention, logprobs, group.mask, group.rewards, config)
    streamed = token_weights_from_hidden(
        group.attention, hidden, weight, group.mask, group.rewards, config
    )
    assert streamed.dtype == torch.float32
    torch.testing.assert_close(streamed, dense, rtol=0, atol=tolerance)
    assert dense.max() > 1.6


def test_streamed_weights_of_edge_groups() -> None:
    group = random_group(2)
    hidden, weight, _ = with_head(group, 33)
    hidden[~group.mask] = torch.nan  # behind the ends: never read

    def weights(mask: Tensor, rewards: Tensor) -> Tensor:
        return token_weights_from_hidden(
            group.attention, hidden, weight, mask, rewards, AppoConfig(3, 2, 7)
        )

    assert (weights(group.mask, torch.zeros(4)) == 1).all()
    assert (weights(torch.zeros(4, 12), torch.ones(4)) == 1).all()
    ordinary = weights(group.mask, torch.ones(4))
    assert ordinary.isfinite().all()
    assert (ordinary > 1).any()
    assert not ordinary.requires_grad
    hidden[1, 0] = torch.nan
    with pytest.raises(ValueError, match=r"\(rollout, token\) pairs: .*\(1, 0\)"):
        weights(group.mask, torch.ones(4))


def streamed(divergence: Literal["released", "kl"], entries: int, chunk: int) -> TensorMemory:
    """What is made on the way, beside the inputs."""
    # 4 rollouts of 40 tokens of which each frame takes 2: at most 2 frames, 16 tokens
    group = random_group(1, tokens=40)
    hidden, weight, _ = with_head(group, entries)
    config = AppoConfig(3, 1, 2, strategy="soft", divergence=divergence)
    rewards = torch.tensor([1.0, 1.0, 0.0, 0.0])
    weight = weight.requires_grad_()
    with TensorMemory(*group.args, rewards, hidden, weight) as memory:
        token_weights_from_hidden(
            group.attention, hidden, weight, group.mask, rewards, config, vocabulary_chunk=chunk
        )
    return memory


@divergences
def test_only_chosen_tokens_meet_the_head_and_only_a_chunk_at_a_time(
    divergence: Literal["released", "kl"],
) -> None:
    """Seen to catch: the head applied to all tokens; a chunk as large as the vocabulary."""
    memory = streamed(divergence, 3000, 100)
    assert 8 * 100 * 8 <= memory.largest_bytes <= 16 * 100 * 8
    # the same bytes alive at once, whether there are 10 chunks, 30 or 300
    peaks = {streamed(divergence, entries, 100).peak_bytes for entries in (1000, 3000, 30_000)}
    assert len(peaks) == 1
    assert memory.peak_bytes < 12 * memory.largest_bytes


def test_peak_memory_does_not_grow_with_the_vocabulary(repository: Path) -> None:
    """Measured as the resident size of a process of its own: 4 rollouts of 48 tokens, 16 a frame.

    [G, N, V] of 400,000 entries is 293 MiB, and the plain way grows by more than that. Streamed it
    is about 30 MiB, a sixth of that in tensors and the rest first use of code and arenas.
    """
    command = [sys.executable, "tests/helpers/streaming_memory.py", "400000"]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, check=True
    )
    growth = {form: size / 2**20 for form, size in json.loads(result.stdout).items()}
    assert growth["released"] <= 64
    assert growth["kl"] <= 64
    assert growth["plain"] >= 293


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden": (4, 11, 6)}, r"hidden_states must be \[4, 12, H\], got \[4, 11, 6\]"),
        ({"weight": (33, 5)}, r"lm_head_weight must be \[V, 6\], got \[33, 5\]"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"detach": False}, "cannot take detach=False; use token_weights"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(changes: dict[str, object], sentence: str) -> None:
    group = random_group(0)
    hidden, weight, _ = with_head(group, 33)
    if "hidden" in changes:
        hidden = torch.zeros(changes["hidden"])  # type: ignore[arg-type,call-overload]
    if "weight" in changes:
        weight = torch.zeros(changes["weight"])  # type: ignore[arg-type,call-overload]
    with pytest.raises(ValueError, match=sentence):
        token_weights_from_hidden(
            group.attention,
            hidden,
            weight,
            group.mask,
            group.rewards,
            AppoConfig(detach=bool(changes.get("detach", True))),
            temperature=float(changes.get("temperature", 1.0)),  # type: ignore[arg-type]
        )
