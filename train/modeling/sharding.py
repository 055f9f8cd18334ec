"""Weights spread over processes by FSDP2 or ZeRO-3: whole where they are read outside of a forward.

A forward of the whole model gathers the weights of its parts itself. What reads weights elsewhere
asks for them here, in every process alike, because gathering is a collective: completions are drawn
in a block of whole weights (`whole_weights`), so that processes may make as many forwards as their
own completions need; APPO's divergence reads the LM head (`whole_head`).

FSDP2 makes modules of its own class, which are found again. ZeRO-3 leaves the model as it is, puts
hooks at its modules and keeps them in an object of its engine, which `gathers_by` notes at the
model. The only file of this room that imports DeepSpeed. Without sharding everything here does
nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

_IS_WHOLE, _RESHARDS = "_is_whole", "_reshards"  # what is noted at an FSDPModule
_OFFLOAD = "_zero3_offload"  # and at the outermost module that ZeRO-3 spreads


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
    """Whether FSDP2 or ZeRO-3 spreads the weights of `model` over processes."""
    return bool(_parts(model)) or _offload_of(model) is not None


def gathers_by(engine: Any, stays: Any) -> None:
    """Note at the model of a DeepSpeed engine who gathers its weights; below ZeRO-3 nobody does.

    The weights of the module `stays` are whole from now on in every process, which may call it as
    often as it needs to: ZeRO-3 wants the same calls of all other modules from all processes.
    """
    offload = getattr(engine.optimizer, "parameter_offload", engine.optimizer)
    if not hasattr(offload, "forward_hooks"):
        return
    setattr(engine.module, _OFFLOAD, offload)
    tables = {
        id(table)
        for module in stays.modules()
        for table in (module._forward_hooks, module._forward_pre_hooks)
    }
    for handles in (offload.forward_hooks, offload.backward_hooks):
        for handle in [each for each in handles if id(each.hooks_dict_ref()) in tables]:
            handles.remove(handle)
            handle.remove()
    kept = [parameter for parameter in stays.parameters() if not parameter.ds_persist]
    for parameter in kept:
        parameter.ds_persist = True
    offload.persistent_parameters.extend(kept)  # gathered again after each optimizer step
    if kept:
        kept[0].all_gather(kept)


def why_not_gathered(model: Any) -> str | None:
    """Why a forward of `model` may meet weights that are not whole; None if it cannot."""
    if is_sharded(model):
        return None
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "ds_id") or isinstance(parameter, DTensor):
            return f"its weights are sharded over processes, and nobody gathers them ({name})"
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
    with _whole_under_fsdp2(model, of), _whole_under_zero3(model, of):
        yield


@contextmanager
def _whole_under_fsdp2(model: Any, of: Any) -> Iterator[None]:
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


@contextmanager
def _whole_under_zero3(model: Any, of: Any) -> Iterator[None]:
    offload = _offload_of(model)
    if offload is None:
        yield
        return
    parameters = (model if of is None else of).parameters()
    with _without_hooks(offload), _gathered([p for p in parameters if _is_in_parts(p)]):
        yield


@contextmanager
def _without_hooks(offload: Any) -> Iterator[None]:
    """In this block ZeRO-3 neither gathers nor gives back, nor compares the processes' forwards."""
    handles = [offload.fwd_pre_hook, *offload.forward_hooks, *offload.backward_hooks]
    tables = [(handle.id, handle.hooks_dict_ref()) for handle in handles]
    taken = [(table, key, table.pop(key)) for key, table in tables if key in table]
    try:
        yield
    finally:
        for table, key, hook in taken:  # as they were registered: a module calls them in this order
            table[key] = hook


@contextmanager
def _gathered(parameters: Sequence[Any]) -> Iterator[None]:
    """In this block these parameters, which ZeRO-3 has in parts, are whole."""
    if not parameters:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(parameters):
        yield


def _is_in_parts(parameter: Any) -> bool:
    """Whether ZeRO-3 has a parameter in parts just now: small ones always stay whole."""
    return hasattr(parameter, "ds_id") and parameter.ds_status.name != "AVAILABLE"


def _offload_of(model: Any) -> Any:
    return next((vars(each)[_OFFLOAD] for each in model.modules() if _OFFLOAD in vars(each)), None)


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
    if _is_in_parts(tensor):
        with _gathered([tensor]):
            return tensor.detach().clone()
    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


def whole_state(model: Any, *, trained_only: bool = False) -> dict[str, Tensor]:
    """The state dict of a model under DeepSpeed, whole and on the CPU; every process calls this.

    Weights that train come from the optimizer's copies in float32, where it has some.
    """
    return {
        name: _master(value).cpu()
        for name, value in model.state_dict(keep_vars=True).items()
        if value.requires_grad or not trained_only
    }


def _master(tensor: Any) -> Tensor:
    has_copy = hasattr(tensor, "_z3_optimizer") or hasattr(tensor, "_hp_mapping")
    if not (has_copy and tensor.requires_grad):  # ZeRO-3 notes its optimizer at frozen ones, too
        return whole(tensor)
    from deepspeed.utils import safe_get_full_fp32_param

    copy: Tensor = safe_get_full_fp32_param(tensor)
    return copy.view(whole_shape(tensor))


def whole_shape(tensor: Any) -> tuple[int, ...]:
    """The shape of a tensor that may be in parts; nothing is gathered."""
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def own_part(tensor: Any) -> Tensor:
    """What this process has of a tensor that may be in parts."""
    if hasattr(tensor, "ds_tensor"):
        part: Tensor = tensor.ds_tensor
        return part
    detached: Tensor = tensor.detach()
    return detached.to_local() if isinstance(detached, DTensor) else detached


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
