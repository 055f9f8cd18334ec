"""Arithmetic in float32 or better, mostly of attention; what to do about NaN and infinities.

Grouped-query attention has several query heads on each key-value head. Here such heads are stacked
as further queries of the head that they share, so keys and values are never repeated.
"""

import torch
from torch import Tensor

from cli.config import UsageError

DEFAULT_QUERY_CHUNK = 64


class NotFiniteError(UsageError):
    """A model computes NaN or infinities. One sentence: which numbers, and when."""


def at_least_float32(values: Tensor) -> Tensor:
    """Float64 stays float64, everything else becomes float32."""
    return values if values.dtype == torch.float64 else values.float()


def last_queries_attention(query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """Causal attention of the last C of K positions: [1, heads, C, D] x [1, kv heads, K, D]."""
    batch, heads, num_queries, width = query.shape
    num_keys, kv_heads = keys.shape[2], keys.shape[1]
    is_visible = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril(
        num_keys - num_queries
    )
    shared_by = heads // kv_heads
    output = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(batch, kv_heads, shared_by * num_queries, width),
        keys,
        values,
        attn_mask=is_visible.repeat(shared_by, 1),
        scale=scaling,
    )
    return output.reshape(batch, heads, num_queries, width)


def attention_mass(
    query: Tensor,
    key: Tensor,
    visible: int,
    key_groups: Tensor,
    scaling: float,
    *,
    query_chunk: int = DEFAULT_QUERY_CHUNK,
) -> Tensor:
    """Attention weight of each query on each group of keys, averaged over the heads.

    `query` [heads, R, D], `key` [kv heads, K, D]; `key_groups` [K', F] has the factor of each of
    the first K' keys in each group. -> [R, F]. Query n sees the first `visible` + n keys. At most
    heads * `query_chunk` * K weights exist at a time.
    """
    num_heads, num_queries, width = query.shape
    kv_heads = len(key)
    query, key = at_least_float32(query) * scaling, at_least_float32(key)
    key_groups = key_groups.to(query.dtype)
    masses = []
    for start in range(0, num_queries, query_chunk):
        rows = query[:, start : start + query_chunk]
        num_rows = rows.shape[1]
        num_keys = visible + start + num_rows - 1
        stacked = rows.reshape(kv_heads, num_heads // kv_heads * num_rows, width)
        scores = torch.bmm(stacked, key[:, :num_keys].transpose(1, 2))
        scores = scores.view(num_heads, num_rows, num_keys)
        is_later = torch.ones(num_rows, num_rows, dtype=torch.bool, device=query.device).triu(1)
        scores[:, :, num_keys - num_rows :].masked_fill_(is_later, -torch.inf)
        weights = scores.softmax(dim=-1)[:, :, : len(key_groups)].mean(dim=0)
        masses.append(weights @ key_groups)
    return torch.cat(masses)
