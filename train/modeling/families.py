"""What differs between families of video language models: one record for each.

    register_family(
        ModelFamily(name="My-VL", model_types=("my_vl",), shares_clip_limit=True)
    )

in a file that a command reads by `--plugin FILE.py` adds a family. The fields of `ModelFamily` are
all that a family may answer in its own way. What every family must offer is the interface that
transformers gives to Qwen-VL models:

- a processor with `video_processor`, `image_processor`, `tokenizer`, `replace_video_token` and
  `replace_image_token`, and a chat template that writes one placeholder token for each medium;
- a configuration with `text_config`, `vision_config`, `image_token_id` and `video_token_id`;
- a model whose `model` has `get_video_features`, `get_image_features`, `get_rope_index` and
  `rope_deltas`, and whose text layers attend through transformers' `AttentionInterface` and hand
  the forward's further keyword arguments to it, and to its recurrent layers where it has some.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cli.config import UsageError

if TYPE_CHECKING:
    from torch import Tensor

TimeInputs = Callable[["Mapping[str, Tensor]", Sequence[float], int, Any], "Mapping[str, Tensor]"]
"""(prompt, seconds of each of its videos' cells, patches merged per side, configuration or None)
-> the further tensors that the prompt needs."""

LANGUAGE_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DELTA_NET_LAYERS = ("in_proj_qkv", "in_proj_z", "out_proj")


@dataclass(frozen=True)
class VisionTokens:
    """The placeholder tokens of media, and how many patches of a side become one of them."""

    video_id: int
    image_id: int
    merge_size: int


def _vision_tokens(config: Any) -> VisionTokens:
    return VisionTokens(
        int(config.video_token_id),
        int(config.image_token_id),
        int(config.vision_config.spatial_merge_size),
    )


def _visual(model: Any) -> Any:
    return model.model.visual


def _text_layers(model: Any) -> Sequence[Any]:
    layers: Sequence[Any] = model.model.language_model.layers
    return layers


def _no_layers(_: Any) -> Sequence[Any]:
    return ()


def _delta_nets(model: Any) -> Sequence[Any]:
    layers = model.model.language_model.layers
    return [layer.linear_attn for layer in layers if hasattr(layer, "linear_attn")]


def attention_layers(config: Any) -> list[int]:
    """Numbers of the text layers that attend, by a model's configuration; others are recurrent."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    return [number for number, kind in enumerate(kinds) if kind != "linear_attention"]


def _rope_index(model: Any, prompt: "Mapping[str, Tensor]") -> "Tensor":
    names = ("video_grid_thw", "image_grid_thw", "second_per_grid_ts")
    grids = {name: prompt[name] for name in names if prompt.get(name) is not None}
    positions: Tensor = model.model.get_rope_index(
        prompt["input_ids"], prompt["mm_token_type_ids"], **grids
    )[0]
    return positions


@dataclass(frozen=True)
class ModelFamily:
    """One family of models, as far as it differs from others. Models come without wrappers."""

    name: str
    """As messages write it, such as Qwen2.5-VL."""
    model_types: tuple[str, ...]
    """The `model_type` of the configurations that it serves."""
    processors: tuple[str, ...] = ()
    """Class names of its processors; needed only for processors that are made without a model."""

    shares_clip_limit: bool = False
    """The video processor's limits count the pixels of all frames of a clip, not of one frame."""
    cell_text: str = ""
    """The longest text that the processor writes beside the vision tokens of one temporal cell."""
    video_options: Mapping[str, Any] = field(
        default_factory=lambda: {"cap_pixels_per_frame": False}
    )
    """Further options of the video processor, so that it keeps the size that it is given."""
    time_inputs: TimeInputs | None = None
    """Tensors that tell the model when cells are shown; None where the prompt's text does."""
    time_inputs_apart: TimeInputs | None = None
    """As `time_inputs`, for `--rope-positions apart`; None where cells never share a position."""

    vision_tokens: Callable[[Any], VisionTokens] = _vision_tokens
    """Of a configuration."""
    rope_positions: "Callable[[Any, Mapping[str, Tensor]], Tensor]" = _rope_index
    """The model's own rotary positions [3, 1, P] of a prompt with media."""
    vision_tower: Callable[[Any], Any] = _visual
    """The module that encodes pixels: what --freeze-vision freezes."""
    text_layers: Callable[[Any], Sequence[Any]] = _text_layers
    """The layers of the language model: what FSDP2 gathers one by one."""
    recurrent_layers: Callable[[Any], Sequence[Any]] = _no_layers
    """Modules of the language model that keep a state instead of keys and values, as transformers'
    gated delta nets do (`train.modeling.recurrent_layers`)."""
    has_deepstack: bool = False
    """The tower also gives features to the first text layers."""
    lora_targets: tuple[str, ...] = LANGUAGE_LAYERS
    """Layers that get a LoRA adapter where none are named."""
    lora_excluded: str = r".*visual.*"
    """Regular expression of modules that get none: the vision tower."""


_FAMILIES: dict[str, ModelFamily] = {}


def register_family(family: ModelFamily) -> ModelFamily:
    """Add a family. Raises UsageError where another one has its name or serves a type of its."""
    for other in _FAMILIES.values():
        shared = {*family.model_types} & {*other.model_types}
        if other != family and (shared or other.name == family.name):
            raise UsageError(
                f"the model family {family.name!r} clashes with {other.name!r}, which is"
                f" registered for {', '.join(other.model_types)}; give it another name and types"
            )
    _FAMILIES[family.name] = family
    return family


def family_names() -> str:
    """All families, as a message lists them."""
    *others, last = _FAMILIES
    return f"{', '.join(others)} or {last}" if others else last


def find_family(model_type: str) -> ModelFamily | None:
    """The family that serves a `model_type`; None if there is none."""
    return next((one for one in _FAMILIES.values() if model_type in one.model_types), None)


def family_of(config: Any) -> ModelFamily:
    """The family of a model's configuration. Raises UsageError for models of no known one."""
    family = find_family(config.model_type)
    if family is None:
        raise UsageError(
            f"models of the type {config.model_type} are of no known family; give a model of the"
            f" family {family_names()}, or a --plugin that registers theirs"
        )
    return family


def family_of_processor(processor: Any) -> ModelFamily:
    """The family of a processor by its class. Raises UsageError for processors of no known one."""
    name = type(processor).__name__
    family = next((one for one in _FAMILIES.values() if name in one.processors), None)
    if family is None:
        raise UsageError(
            f"{name} is not a processor that videos are prepared for here; give a model of the"
            f" family {family_names()}"
        )
    return family


def _qwen2_5_time_inputs(
    prompt: "Mapping[str, Tensor]", seconds: Sequence[float], merge_size: int, config: Any
) -> "Mapping[str, Tensor]":
    from train.modeling.rope_positions import qwen2_5_time_inputs  # loads torch

    return qwen2_5_time_inputs(prompt, seconds, merge_size, config)


def _qwen2_5_time_inputs_apart(
    prompt: "Mapping[str, Tensor]", seconds: Sequence[float], merge_size: int, config: Any
) -> "Mapping[str, Tensor]":
    from train.modeling.rope_positions import qwen2_5_time_inputs

    return qwen2_5_time_inputs(prompt, seconds, merge_size, config, apart=True)


QWEN2_5_VL = register_family(
    ModelFamily(
        name="Qwen2.5-VL",
        model_types=("qwen2_5_vl",),
        processors=("Qwen2_5_VLProcessor",),
        time_inputs=_qwen2_5_time_inputs,
        time_inputs_apart=_qwen2_5_time_inputs_apart,
    )
)
QWEN3_VL = register_family(
    ModelFamily(
        name="Qwen3-VL",
        model_types=("qwen3_vl",),
        processors=("Qwen3VLProcessor",),
        shares_clip_limit=True,
        cell_text="<99999.9 seconds><|vision_start|><|vision_end|>",
        has_deepstack=True,
    )
)
QWEN3_5 = register_family(
    ModelFamily(
        name="Qwen3.5",
        model_types=("qwen3_5",),
        shares_clip_limit=True,
        cell_text="<99999.9 seconds><|vision_start|><|vision_end|>",
        recurrent_layers=_delta_nets,
        lora_targets=(*LANGUAGE_LAYERS, *DELTA_NET_LAYERS),
    )
)
