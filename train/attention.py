"""The attention function of our training passes: PyTorch's own, observed, over packed rows too.

Registered with transformers under one name. On an ordinary forward it is SDPA, number for number.
Two things come on top: an `observing` block sees the queries and keys of every layer (attention per
frame is computed from them), and a forward that carries `packed_row=PackedRow(...)` treats its one
row as prompts with their completions, `[prompt][completion]...[completion][prompt]...`, where a
completion sees its own prompt and itself. Where completions are drawn token by token, a forward
carries the `row_cache` that its rows attend through (`train.shared_cache`).

The packed row travels as an argument of the forward and not in a variable of this module, so that
gradient checkpointing, which runs layers a second time in the backward pass, finds it again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from train.models import register_attention, sdpa_attention

NAME = "p2r_sdpa"


class Observer(Protocol):
    """Sees each attention layer once."""

    def observe(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """`query` [B, heads, L, D] and `key` [B, key-value heads, L, D] after rotation."""


class RowCache(Protocol):
    """Holds the keys and values of earlier tokens where rows grow by one token in each forward."""

    def attend(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """[B, heads, 1, D] queries over all tokens of their rows -> [B, 1, heads, D]."""


@dataclass(frozen=True)
class PackedGroup:
    """Columns of a packed row that belong to one prompt and to its completions."""

    prompt: slice
    completions: tuple[slice, ...]


@dataclass(frozen=True)
class PackedRow:
    """Which columns of the only row of a forward belong together."""

    groups: tuple[PackedGroup, ...]


_OBSERVER: ContextVar[Observer | None] = ContextVar("attention_observer", default=None)


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Show `observer` the attention layers of the forwards in this block."""
    token = _OBSERVER.set(observer)
    try:
        yield
    finally:
        _OBSERVER.reset(token)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    packed_row: PackedRow | None = None,
    row_cache: RowCache | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: [B, heads, L, D] queries -> [B, L, heads, D]."""
    layer: Any = module.layer_idx
    if row_cache is not None:
        return row_cache.attend(layer, query, scaling), None
    observer = _OBSERVER.get()
    if observer is not None:
        with torch.no_grad():
            observer.observe(layer, query.detach(), key.detach(), scaling)
    if packed_row is None:
        output: Tensor = sdpa_attention(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options
        )
        return output, None
    if attention_mask is not None or dropout:
        raise ValueError("a packed row takes neither an attention mask nor attention dropout")
    return packed_attention(query, key, value, packed_row, scaling), None


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, packed_row: PackedRow, scaling: float
) -> Tensor:
    """Attention inside a packed row: [1, heads, L, D] -> [1, L, heads, D].

    A prompt attends causally to itself; a completion to all of its prompt and causally to itself.
    """
    pieces = []
    for group in packed_row.groups:
        prompt_key, prompt_value = key[:, :, group.prompt], value[:, :, group.prompt]
        pieces.append(
            torch.nn.functional.scaled_dot_product_attention(
                query[:, :, group.prompt],
                prompt_key,
                prompt_value,
                is_causal=True,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
        for own in group.completions:
            keys = torch.cat([prompt_key, key[:, :, own]], dim=2)
            values = torch.cat([prompt_value, value[:, :, own]], dim=2)
            pieces.append(_last_queries(query[:, :, own], keys, values, scaling))
    return torch.cat(pieces, dim=2).transpose(1, 2)


def _last_queries(query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """Causal attention of the last C of K positions: [1, heads, C, D] x [1, kv heads, K, D].

    The heads that share a key-value head are laid one under the other as further queries, so that
    keys are not repeated.
    """
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


def why_not_ours(model: Any) -> str | None:
    """Why the text layers of `model` (an unwrapped video language model) cannot use `attention`."""
    text = model.config.text_config
    if text._attn_implementation not in (NAME, "sdpa"):
        return (
            f"its attention implementation is {text._attn_implementation!r}; load the model with"
            " attn_implementation='sdpa'"
        )
    if "sliding_attention" in (getattr(text, "layer_types", None) or ()):
        return "some of its layers attend within a sliding window"
    return None


def use_our_attention(model: Any) -> None:
    """Let the text layers of `model` (unwrapped) attend through `attention`, from now on.

    Nothing changes for any forward without `observing`, `packed_row` and `row_cache`. Raises
    ValueError for a model that does not use SDPA.
    """
    reason = why_not_ours(model)
    if reason:
        raise ValueError(f"attention of this model cannot be observed: {reason}")
    if model.config.text_config._attn_implementation != NAME:
        register_attention(NAME, attention)
        model.set_attn_implementation({"text_config": NAME})
