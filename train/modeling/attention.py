"""The attention function of our passes: PyTorch's SDPA, observable, and with shared prefixes.

Registered with transformers under one name. An ordinary forward gives exactly SDPA's numbers. It
adds three things:

- an `observing` block sees the queries and keys of every layer (attention per frame is computed
  from them);
- a forward with `packed_layout=PackedLayout(...)` has one row of prompts and their completions,
  `[prompt][completion]...[completion][prompt]...`; a completion attends to its own prompt (the
  shared prefix) and to itself;
- a forward with `row_cache=...` generates one token per row and attends through that cache
  (`train.rollouts.kv_cache`).

The layout is an argument of the forward and not a variable of this module: gradient checkpointing
runs layers again in the backward pass and must find it there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from train.modeling.families import family_of
from train.modeling.loading import register_attention, sdpa_attention
from train.modeling.numerics import last_queries_attention
from train.modeling.recurrent_layers import share_recurrent_layers

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
    """The columns of one prompt and of its completions in a packed row."""

    prompt: slice
    completions: tuple[slice, ...]


@dataclass(frozen=True)
class PackedLayout:
    """Which columns of a forward's only row are prompts, and which their completions."""

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
    packed_layout: PackedLayout | None = None,
    row_cache: RowCache | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Called by transformers for each layer: [B, heads, L, D] queries -> [B, L, heads, D]."""
    layer: Any = module.layer_idx
    if row_cache is not None:
        return row_cache.attend(layer, query, scaling), None
    observer = _OBSERVER.get()
    if observer is not None:
        # In float32, as documented: under autocast its products would be rounded to bfloat16.
        with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
            observer.observe(layer, query.detach(), key.detach(), scaling)
    if packed_layout is None:
        output: Tensor = sdpa_attention(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options
        )
        return output, None
    if attention_mask is not None or dropout:
        raise ValueError("a packed row takes neither an attention mask nor attention dropout")
    return shared_prefix_attention(query, key, value, packed_layout, scaling), None


def shared_prefix_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scaling: float
) -> Tensor:
    """Attention inside a packed row: [1, heads, L, D] -> [1, L, heads, D].

    A prompt attends causally to itself; a completion to all of its prompt and causally to itself.
    """
    pieces = []
    for group in layout.groups:
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
            pieces.append(last_queries_attention(query[:, :, own], keys, values, scaling))
    return torch.cat(pieces, dim=2).transpose(1, 2)


def why_not_supported(model: Any) -> str | None:
    """Why `attention` cannot serve the text layers of `model` (no wrappers); None if it can."""
    text = model.config.text_config
    if text._attn_implementation not in (NAME, "sdpa"):
        return (
            f"its attention implementation is {text._attn_implementation!r}; load the model with"
            " attn_implementation='sdpa'"
        )
    kinds = getattr(text, "layer_types", None) or ()
    if "sliding_attention" in kinds:
        return "some of its layers attend within a sliding window"
    if "linear_attention" in kinds and not family_of(model.config).recurrent_layers(model):
        return "some of its layers keep a state, and the record of its family does not name them"
    return None


def use_our_attention(model: Any) -> None:
    """Make the text layers of `model` (without wrappers) attend through `attention` from now on.

    Forwards without `observing`, `packed_layout` and `row_cache` give the same numbers as before.
    Raises ValueError for a model that does not use SDPA.
    """
    reason = why_not_supported(model)
    if reason:
        raise ValueError(f"attention of this model cannot be observed: {reason}")
    if model.config.text_config._attn_implementation != NAME:
        register_attention(NAME, attention)
        share_recurrent_layers(model)
        model.set_attn_implementation({"text_config": NAME})
