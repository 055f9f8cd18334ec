"""What a frozen vision tower says about a prompt's media, kept for all passes of a step.

While the tower does not train, the old, the reference and the policy pass need the same features:
`encode_media` computes them once, `answering_with` lets a forward take them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

_PIXELS = {
    "video": ("pixel_values_videos", "video_grid_thw"),
    "image": ("pixel_values", "image_grid_thw"),
}


@dataclass(frozen=True)
class MediaFeatures:
    """The tower's output for one prompt: by kind ("video", "image"), what the text model is given.

    `merged` [vision tokens, H] replaces the placeholder tokens; `deepstack` holds the same for each
    of the first text layers (Qwen3-VL; empty elsewhere).
    """

    merged: Mapping[str, Tensor]
    deepstack: Mapping[str, tuple[Tensor, ...]]


@torch.no_grad()
def encode_media(model: Any, inputs: Mapping[str, Tensor]) -> MediaFeatures:
    """Run the tower of `model` (unwrapped) over the media of one prompt."""
    merged, deepstack = {}, {}
    for kind, (pixels, grids) in _PIXELS.items():
        if inputs.get(pixels) is None:
            continue
        encode = getattr(model.model, f"get_{kind}_features")
        output = encode(inputs[pixels], inputs[grids], return_dict=True)
        merged[kind] = torch.cat(output.pooler_output)
        deepstack[kind] = tuple(getattr(output, "deepstack_features", None) or ())
    return MediaFeatures(merged, deepstack)


@contextmanager
def answering_with(model: Any, features: Sequence[MediaFeatures]) -> Iterator[None]:
    """In this block `model` (unwrapped) takes these prompts' features instead of running its tower.

    Raises ValueError while the tower trains: its weights would get no gradient.
    """
    trains = any(parameter.requires_grad for parameter in model.model.visual.parameters())
    if trains and torch.is_grad_enabled():
        raise ValueError(
            "media features were computed before, but the vision tower trains; freeze it"
            " (model.visual.requires_grad_(False)) or let each pass run it"
        )
    names = [f"get_{kind}_features" for kind in _PIXELS]
    for kind, name in zip(_PIXELS, names, strict=True):
        setattr(
            model.model, name, _answer([each for each in features if kind in each.merged], kind)
        )
    try:
        yield
    finally:
        for name in names:
            delattr(model.model, name)


def _answer(features: Sequence[MediaFeatures], kind: str) -> Callable[..., Any]:
    def answer(*_: Any, **__: Any) -> Any:
        layers = zip(*(each.deepstack[kind] for each in features), strict=True)
        return SimpleNamespace(
            pooler_output=tuple(each.merged[kind] for each in features),
            deepstack_features=[torch.cat(layer) for layer in layers],
        )

    return answer
