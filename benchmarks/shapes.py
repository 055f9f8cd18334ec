"""What the benchmarks compute on: models with random weights, a video prompt, and its completions.

`small` is the size of the CPU figures, `3b` and `7b` are Qwen2.5-VL's for a GPU (nothing is
downloaded), `3b-scaled` is 3b's heads, group and proportions in four layers of a quarter of its
width, for a CPU, `tiny` is for a look whether all runs.
"""

import argparse
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A model, and the tokens of one prompt group."""

    layers: int
    width: int
    mlp_width: int
    heads: int
    kv_heads: int
    vocabulary: int
    vision_layers: int
    vision_width: int
    vision_mlp_width: int
    vision_heads: int
    tied: bool
    vision_tokens: int
    text_tokens: int
    completions: int
    tokens: int


_QWEN_TOWER: dict[str, Any] = {
    "vision_layers": 32,
    "vision_width": 1280,
    "vision_mlp_width": 3420,
    "vision_heads": 16,
}
_GROUP = {"vision_tokens": 2048, "text_tokens": 100, "completions": 8, "tokens": 512}
SHAPES = {
    "tiny": Shape(3, 64, 128, 4, 2, 256, 2, 32, 64, 2, False, 64, 16, 4, 8),
    "small": Shape(4, 512, 2048, 8, 2, 2048, 2, 128, 256, 2, False, 512, 64, 8, 96),
    "3b-scaled": Shape(4, 512, 2752, 16, 2, 8192, 2, 128, 256, 2, True, **_GROUP),
    "3b": Shape(36, 2048, 11008, 16, 2, 151936, **_QWEN_TOWER, tied=True, **_GROUP),
    "7b": Shape(28, 3584, 18944, 28, 4, 152064, **_QWEN_TOWER, tied=False, **_GROUP),
}
_MODEL = tuple(Shape.__dataclass_fields__)[:11]
_GROUP_FIELDS = tuple(Shape.__dataclass_fields__)[11:]


def add_shape_options(parser: argparse.ArgumentParser) -> None:
    """Which model, which tokens, where."""
    parser.add_argument("--family", default="qwen2.5-vl", choices=("qwen2.5-vl", "qwen3-vl"))
    parser.add_argument("--shape", default="small", choices=tuple(SHAPES))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="float32 on a CPU")
    parser.add_argument("--vision-tokens", type=int, help="a multiple of 64")
    parser.add_argument("--text-tokens", type=int, help="of the prompt, placeholders not counted")
    parser.add_argument("--completions", type=int)
    parser.add_argument("--tokens", type=int, help="tokens of each completion")


def shape_of(options: argparse.Namespace) -> Shape:
    """The chosen shape with what the options change in it."""
    chosen = asdict(SHAPES[options.shape])
    given = {name: getattr(options, name) for name in _GROUP_FIELDS}
    return Shape(**chosen | {name: value for name, value in given.items() if value is not None})


def dtype_of(options: argparse.Namespace) -> Any:
    """The asked dtype; bfloat16 on a GPU."""
    import torch

    return getattr(torch, options.dtype or ("float32" if options.device == "cpu" else "bfloat16"))


def random_model(options: argparse.Namespace) -> Any:
    """A model of the asked shape; one torch thread on a CPU."""
    import torch
    from helpers.tiny_models import build_model

    torch.set_num_threads(1)
    shape = asdict(shape_of(options))
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype_of(options))
    try:
        with torch.device(options.device):
            model = build_model(
                options.family, **{name: shape[name] for name in _MODEL}, weight_std=0.02
            )
    finally:
        torch.set_default_dtype(default)
    return model.to(options.device)


def random_group(options: argparse.Namespace, *, seed: int = 0, as_image: bool = False) -> Any:
    """A video of 8 cells (or an image of as many tokens), text, and equally long completions."""
    from dataclasses import replace

    from helpers.tiny_models import IMAGE, VIDEO, group

    shape = shape_of(options)
    if as_image:
        media: dict[str, Any] = {"videos": (), "image": (1, 16, shape.vision_tokens // 4)}
        others = 5  # three words, start and end of the image
    else:
        per_cell = shape.vision_tokens // 8
        media = {"videos": ((8, 16, per_cell // 4),)}
        others = 6
    lengths = (shape.tokens,) * shape.completions
    made = group(options.family, seed, lengths, words=shape.text_tokens - others, **media)
    ids = made.inputs["input_ids"]
    assert ((ids == VIDEO) | (ids == IMAGE)).sum() == shape.vision_tokens
    inputs = {
        name: value.to(options.device, dtype_of(options))
        if value.is_floating_point() and "pixel" in name
        else value.to(options.device)
        for name, value in made.inputs.items()
    }
    completions = [completion.to(options.device) for completion in made.completions]
    return replace(made, inputs=inputs, completions=completions)
