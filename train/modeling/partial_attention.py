"""Attention over a part of the keys, such that parts can be joined afterwards; one kernel for each.

A softmax over keys in two parts is an average of the parts' outputs. Their weights follow from the
parts' log-normalisers, which PyTorch's kernels compute for the backward pass anyway: with outputs
a, b and log-normalisers m, n the whole is a + sigmoid(n - m) (b - a). Keys and values of a
part are read where they lie: they may be slices of larger buffers.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_ALIGNMENT = 16
"""The kernel of GPUs wants each row of a bias to begin at a multiple of this number of columns."""


def attention_of_part(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """[B, heads, Q, D] queries over [B, heads, K, D] keys -> their outputs [B, heads, Q, D], and
    log-normalisers [B, heads, Q] (natural logarithm; float32, or float64 of float64).

    `bias` [B or 1, 1, 1, K] is added to the scores, see `bias_of_hidden`. Scores are summed in
    float32 whatever the dtype. Call it outside of autocast, on a device that has the kernel
    (`why_no_kernel`).
    """
    return _KERNELS[query.device.type](query, key, value, scaling, bias)


def join_parts(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Outputs over the keys of two parts together, of each one's outputs and log-normalisers."""
    (of_one, normaliser), (of_other, other_normaliser) = one, other
    share = torch.sigmoid(other_normaliser - normaliser).unsqueeze(-1)
    return torch.lerp(of_one.to(share.dtype), of_other.to(share.dtype), share)


def bias_of_hidden(is_hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """-inf where keys are hidden, else 0, laid out as the kernels want it; bool [..., K]."""
    *rows, columns = is_hidden.shape
    width = -(-columns // _ALIGNMENT) * _ALIGNMENT
    bias = torch.zeros(*rows, width, dtype=dtype, device=is_hidden.device)
    return bias.narrow(-1, 0, columns).masked_fill_(is_hidden, -torch.inf)


def why_no_kernel(device: torch.device) -> str | None:
    """Why `attention_of_part` does not work on a device; None if it does."""
    if device.type in _KERNELS:
        return None
    return f"attention in parts has no kernel on {device.type}"


def _on_cpu(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output, normaliser = kernel(query, key, value, attn_mask=bias, scale=scaling)
    return output, normaliser


def _on_gpu(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    if bias is not None:
        bias = bias.expand(*query.shape[:3], key.shape[2])
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    output, normaliser, *_ = kernel(query, key, value, bias, True, scale=scaling)
    return output, normaliser.narrow(2, 0, query.shape[2])  # it comes with room for 32 queries


_Kernel = Callable[[Tensor, Tensor, Tensor, float, Tensor | None], tuple[Tensor, Tensor]]
_KERNELS: dict[str, _Kernel] = {"cpu": _on_cpu, "cuda": _on_gpu}
