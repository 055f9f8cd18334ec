"""Weights spread over processes by FSDP2: whole where they are read outside of a forward.

A forward of the whole model gathers the weights of its parts itself. What reads weights elsewhere
asks for them here, in every process alike, because gathering is a collective: completions are drawn
in a block of whole weights (`whole_weights`), so that processes may make as many forwards as their
own completions need; APPO's divergence reads the LM head (`whole_head`).

Without sharding everything here does nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

_IS_WHOLE, _RESHARDS = "_is_whole", "_reshards"  # what is noted at an FSDPModule


def unwrapped(model: Any) -> Any:
    """The transformers model inside of peft's and distributed wrappers."""
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif isinstance(getattr(model, "module", None), torch.nn.Module):
            model = model.module
        else:
            return model


def is_sharded(model: Any) -> bool:
    """Whether FSDP2 spreads the weights of `model` over processes."""
    return bool(_parts(model))


def why_not_gathered(model: Any) -> str | None:
    """Why a forward of `model` may meet weights that are not whole; None if it cannot."""
    gathers = is_sharded(model)
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "ds_id") or (isinstance(parameter, DTensor) and not gathers):
            return f"its weights are sharded over processes, and not by FSDP2 ({name})"
    return None


def reshard_after_forward(model: Any, *, layers: bool = True) -> None:
    """What of a sharded `model` is given back between forward and backward: its layers, if wanted.

    Its root (embedding, norm, tower) and its LM head stay: a backward pass begins with them.
    """
    stays = (model, unwrapped(model).get_output_embeddings())
    for part in _parts(model):
        setattr(part, _RESHARDS, layers and not any(part is one for one in stays))
        _restore(part, model)


@contextmanager
def whole_weights(model: Any, of: Any = None) -> Iterator[None]:
    """In this block all weights of `model`, the outermost module, are whole in every process.

    Forwards gather nothing meanwhile, so processes may differ in their number. `of` limits it to
    the weights of a module inside of `model` that is called by itself, such as its vision tower.
    Every process enters the block; blocks may be nested.
    """
    gathered = [part for part in _parts(model, of) if not getattr(part, _IS_WHOLE, False)]
    if isinstance(model, FSDPModule):
        # FSDP2 takes what is called first for the root. With an adapter that would be a module
        # inside of it, because completions are drawn without the adapter's wrapper.
        model._get_fsdp_state()._lazy_init()
    try:
        for part in gathered:
            setattr(part, _IS_WHOLE, True)
            part.unshard()
            part.set_reshard_after_forward(False, recurse=False)
        yield
    finally:
        for part in gathered:
            setattr(part, _IS_WHOLE, False)
            _restore(part, model)
            part.reshard()


def _restore(part: Any, model: Any) -> None:
    """Without a choice of `reshard_after_forward`, FSDP2's own: all but the root are given back."""
    part.set_reshard_after_forward(getattr(part, _RESHARDS, part is not model), recurse=False)


@dataclass(frozen=True)
class Head:
    """The output embedding's tensors."""

    weight: Tensor
    """[V, H]."""
    bias: Tensor | None
    """[V]."""


def whole_head(model: Any) -> Head:
    """The LM head of `model` (or of what it wraps), whole and without gradient.

    Every process must call it equally often.
    """
    head = unwrapped(model).get_output_embeddings()
    bias = getattr(head, "bias", None)
    return Head(whole(head.weight), None if bias is None else whole(bias))


def whole(tensor: Tensor) -> Tensor:
    """A tensor without gradient, gathered where it is sharded: every process calls this alike."""
    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


def _parts(model: Any, of: Any = None) -> list[Any]:
    """The modules of `model` whose weights are gathered together, outermost first.

    With `of`, those that hold weights of the module `of`: its own ones, and the nearest around it.
    """
    parts: list[Any] = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if of is None:
        return parts
    within = {*of.modules()}
    around = [part for part in parts if part not in within and of in {*part.modules()}]
    return [*around[-1:], *(part for part in parts if part in within)]
