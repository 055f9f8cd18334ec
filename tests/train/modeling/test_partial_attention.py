"""Attention over keys in two parts is attention over all of them, on each device's kernel."""

import math

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from train.modeling.partial_attention import (
    attention_of_part,
    bias_of_hidden,
    join_parts,
    why_no_kernel,
)


def states(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # sums in another order; bfloat16 outputs have 8 bits, and values reach 4
    [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-2)],
)
def test_two_parts_are_one_softmax(dtype: torch.dtype, tolerance: float) -> None:
    """The first part's last 3 keys of row 0 are hidden; the second part outweighs it in row 1."""
    query, keys, values = (3 * states(2, 2, n, 16, dtype=dtype) for n in (5, 12, 13))
    values = values[:, :, :12] / 3
    is_hidden = torch.zeros(2, 1, 1, 8, dtype=torch.bool)
    is_hidden[0, ..., 5:] = True
    bias = bias_of_hidden(is_hidden, dtype)
    first = attention_of_part(query, keys[:, :, :8], values[:, :, :8], 0.3, bias)
    second = attention_of_part(query, keys[:, :, 8:], values[:, :, 8:], 0.3)
    scores = 0.3 * query.double() @ keys.double().transpose(2, 3)
    scores[..., :8].masked_fill_(is_hidden, -torch.inf)
    expected = scores.softmax(dim=-1) @ values.double()
    assert (join_parts(first, second) - expected).abs().max() < tolerance
    assert (join_parts(second, first) - expected).abs().max() < tolerance


def test_a_normaliser_by_hand() -> None:
    """Scores 0.5 * (2, 4): log(e + e^2)."""
    query, key = torch.tensor([[[[2.0]]]]), torch.tensor([[[[1.0], [2.0]]]])
    output, normaliser = attention_of_part(query, key, torch.tensor([[[[0.0], [1.0]]]]), 0.5)
    # 1e-6: float32
    assert float(normaliser) == pytest.approx(math.log(math.e + math.e**2), abs=1e-6)
    assert float(output) == pytest.approx(math.e / (1 + math.e), abs=1e-6)


@pytest.mark.parametrize("has_bias", [False, True])
def test_on_a_gpu_the_kernel_takes_what_it_is_given(has_bias: bool) -> None:
    """Shapes and dtypes of PyTorch's own account of its CUDA kernel; nothing is computed."""
    with FakeTensorMode():
        query = torch.empty(6, 2, 7, 64, device="cuda", dtype=torch.bfloat16)
        key = torch.empty(6, 2, 40, 64, device="cuda", dtype=torch.bfloat16)
        is_hidden = torch.empty(6, 1, 1, 40, device="cuda", dtype=torch.bool)
        bias = bias_of_hidden(is_hidden, torch.bfloat16) if has_bias else None
        output, normaliser = attention_of_part(query, key, key, 0.1, bias)
        assert output.shape == (6, 2, 7, 64)
        assert normaliser.shape == (6, 2, 7)
        assert normaliser.dtype == torch.float32
        assert join_parts((output, normaliser), (output, normaliser)).device.type == "cuda"
        if bias is not None:
            assert bias.stride(0) == 48, "rows of a bias begin at multiples of 16"


def test_devices_without_a_kernel_say_so() -> None:
    assert why_no_kernel(torch.device("cpu")) is None
    assert why_no_kernel(torch.device("cuda", 1)) is None
    assert why_no_kernel(torch.device("meta")) == "attention in parts has no kernel on meta"
