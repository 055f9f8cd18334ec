"""Models: the only file of this room that imports transformers.

What the families differ in is said here: how their processors count pixels, whether they take the
seconds of a cell, and how many of their positions make a second.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import Tensor

from schemas.config import UsageError

_FAMILIES = "Qwen2.5-VL or Qwen3-VL"
# What every released Qwen2.5-VL says in its config.json.
_RELEASED_TOKENS_PER_SECOND = 2
_tokens_per_second: "WeakKeyDictionary[Any, int]" = WeakKeyDictionary()


def register_attention(name: str, function: Callable[..., Any]) -> None:
    """Make `function` an attention implementation; it is given the masks that SDPA is given."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def sdpa_attention(*args: Any, **options: Any) -> Tensor:
    """transformers' SDPA attention: its output, [B, L, heads, D]."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    output: Tensor = ALL_ATTENTION_FUNCTIONS["sdpa"](*args, **options)[0]
    return output


def dataclass_parser(config_class: Any) -> Any:
    """The parser that transformers makes of a configuration's fields."""
    from transformers import HfArgumentParser

    return HfArgumentParser(config_class, add_help=False, allow_abbrev=False)


def load_processor(model: str | Path) -> Any:
    """The processor beside a model's weights (folder or hub id). Raises UsageError."""
    from transformers import AutoProcessor

    config = _model_config(base_of_adapter(model) or model)
    processor = _loaded(model, lambda: AutoProcessor.from_pretrained(str(model)))
    processor_family(processor)
    seconds = getattr(config.vision_config, "tokens_per_second", None)
    if seconds is not None:
        _tokens_per_second[processor] = int(seconds)
    return processor


def load_policy(
    model: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    attention: str = "sdpa",
) -> Any:
    """The video language model in a folder or on the hub, in evaluation mode. Raises UsageError.

    `dtype` "auto" is the checkpoint's own; `device` "auto" a GPU where there is one. A folder with
    a LoRA adapter is its base model with the adapter merged. Text-only models are refused: they
    would answer without looking.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    base = base_of_adapter(model)
    _model_config(base or model)
    loaded = _loaded(
        base or model,
        lambda: AutoModelForImageTextToText.from_pretrained(
            str(base or model), dtype=dtype, attn_implementation=attention
        ),
    )
    if base is not None:
        from train.adapters import merged_adapter

        loaded = merged_adapter(loaded, Path(model))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return loaded.to(device).eval()


def processor_family(processor: Any) -> Literal["qwen2.5-vl", "qwen3-vl"]:
    """Which rules for pixels and times a processor follows. Raises UsageError for other ones."""
    families: dict[str, Literal["qwen2.5-vl", "qwen3-vl"]] = {
        "Qwen2_5_VLProcessor": "qwen2.5-vl",
        "Qwen3VLProcessor": "qwen3-vl",
    }
    family = families.get(type(processor).__name__)
    if family is None:
        raise UsageError(
            f"{type(processor).__name__} is not a processor that videos are prepared for here;"
            f" give a model of the family {_FAMILIES}"
        )
    return family


def tokens_per_second(processor: Any) -> int:
    """Temporal positions per second of Qwen2.5-VL: of the model that the processor was loaded with,
    or what all released ones have.
    """
    return _tokens_per_second.get(processor, _RELEASED_TOKENS_PER_SECOND)


def video_metadata(num_frames: int, seconds: list[float], distance: float) -> Any:
    """What a processor is told of a clip: frames at these seconds, so far apart on average.

    Processors compute a time as index / fps; with an fps of 1 the indices are the seconds, so that
    clips of uneven frame rate keep their times.
    """
    from transformers.video_utils import VideoMetadata

    return VideoMetadata(
        total_num_frames=num_frames * distance, fps=1.0, frames_indices=list(seconds)
    )


def _model_config(model: str | Path) -> Any:
    from transformers import AutoConfig

    config = _loaded(model, lambda: AutoConfig.from_pretrained(str(model)))
    if not hasattr(config, "vision_config") or not hasattr(config, "video_token_id"):
        raise UsageError(
            f"{model} is {config.model_type}, which takes no video; give a model of the family"
            f" {_FAMILIES}"
        )
    return config


def base_of_adapter(model: str | Path) -> str | None:
    """The base model of a folder that holds a LoRA adapter and no weights of its own."""
    file = Path(model) / "adapter_config.json"
    if not file.is_file() or (Path(model) / "config.json").is_file():
        return None
    base = json.loads(file.read_text("utf-8")).get("base_model_name_or_path")
    if not base:
        raise UsageError(f"{file} does not say which model the adapter belongs to")
    return str(base)


def _loaded(model: str | Path, load: Callable[[], Any]) -> Any:
    """`load()`, with what cannot be loaded told as one sentence."""
    try:
        return load()
    except (OSError, ValueError, KeyError, ImportError) as error:
        words = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the model {str(model)!r} cannot be loaded; give a folder with config.json, weights"
            f" and processor, or a hub id ({words})"
        ) from error
