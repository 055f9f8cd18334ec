"""Features of a prompt's media, computed once by a frozen vision tower for all passes of a step.

While the tower does not train, the old, the reference and the policy pass need the same features:
`encode_media` computes them, `with_cached_vision_features` lets a forward use them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from train.modeling.families import family_of
from train.modeling.prompt_tensors import MEDIA


@dataclass(frozen=True)
class MediaFeatures:
    """The tower's output for one prompt, by kind ("video", "image").

    `merged` [vision tokens, H] replaces the placeholder tokens; `deepstack` has the same shape for
    each of the first text layers (families with deepstack, such as Qwen3-VL; empty elsewhere).
    """

    merged: Mapping[str, Tensor]
    deepstack: Mapping[str, tuple[Tensor, ...]]
    has_split_deepstack: bool = False
    """The model takes deepstack features medium by medium (transformers 5.24), not in one."""


def vision_tower(model: Any) -> Any:
    """The module of `model` (without wrappers) that encodes pixels."""
    return family_of(model.config).vision_tower(model)


def vision_tower_trains(model: Any) -> bool:
    """Whether any weight of the tower of `model` (without wrappers) is trained."""
    return any(parameter.requires_grad for parameter in vision_tower(model).parameters())


@torch.no_grad()
def encode_media(model: Any, inputs: Mapping[str, Tensor]) -> MediaFeatures:
    """Run the tower of `model` (without wrappers) over the media of one prompt."""
    has_deepstack = family_of(model.config).has_deepstack
    merged, deepstack, is_split = {}, {}, False
    for kind, names in MEDIA.items():
        if inputs.get(names.pixels) is None:
            continue
        encode = getattr(model.model, f"get_{kind}_features")
        output = encode(inputs[names.pixels], inputs[names.grid], return_dict=True)
        merged[kind] = torch.cat(output.pooler_output)
        layers = tuple(output.deepstack_features) if has_deepstack else ()
        is_split = any(not isinstance(layer, Tensor) for layer in layers)
        deepstack[kind] = tuple(torch.cat(layer) for layer in layers) if is_split else layers
    return MediaFeatures(merged, deepstack, is_split)


@contextmanager
def with_cached_vision_features(model: Any, features: Sequence[MediaFeatures]) -> Iterator[None]:
    """In this block `model` (without wrappers) uses these prompts' features, not its tower.

    Raises ValueError while the tower trains: its weights would get no gradient.
    """
    if torch.is_grad_enabled() and vision_tower_trains(model):
        raise ValueError(
            "media features were computed before, but the vision tower trains; freeze it"
            " (--freeze-vision) or let each pass run it"
        )
    methods = {kind: f"get_{kind}_features" for kind in MEDIA}
    for kind, method in methods.items():
        known = [each for each in features if kind in each.merged]
        setattr(model.model, method, _cached(known, kind))
    try:
        yield
    finally:
        for method in methods.values():
            delattr(model.model, method)


class _TowerOutput(SimpleNamespace):
    """What stands in for a tower's output."""

    def to_tuple(self) -> tuple[Any, ...]:
        """Its fields, as transformers' outputs give them."""
        return tuple(vars(self).values())


def _cached(features: Sequence[MediaFeatures], kind: str) -> Callable[..., Any]:
    """Stands in for the model's own method that runs the tower."""

    def cached_features(*_: Any, **__: Any) -> Any:
        layers = zip(*(each.deepstack[kind] for each in features), strict=True)
        is_split = any(each.has_split_deepstack for each in features)
        return _TowerOutput(
            pooler_output=tuple(each.merged[kind] for each in features),
            deepstack_features=[layer if is_split else torch.cat(layer) for layer in layers],
        )

    return cached_features


def features_if_frozen(
    model: Any, prompts: Sequence[Mapping[str, Tensor]]
) -> list[MediaFeatures | None]:
    """Features of each prompt for all passes of a step; None where the tower of `model` trains."""
    if vision_tower_trains(model):
        return [None] * len(prompts)
    return [encode_media(model, prompt) for prompt in prompts]
