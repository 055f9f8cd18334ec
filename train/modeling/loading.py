"""Models and processors from a folder or the hub. The only file of this room with transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from cli.config import UsageError
from judges.backends.model_folders import (
    BrokenWeightsError,
    loading_errors,
    read_whole_model,
    reading_tokenizers,
    refuse_broken_files,
    refuse_not_finite,
    take_chat_template,
)
from train.modeling.families import (
    ModelFamily,
    family_names,
    family_of,
    family_of_processor,
    find_family,
)
from train.modeling.lora import base_of_adapter, merged_adapter

_configs: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()


def load_processor(model: str | Path) -> Any:
    """The processor beside a model's weights (folder or hub id). Raises UsageError.

    Where it has no chat template, the tokenizer's is taken; without either it is refused.
    """
    from transformers import AutoProcessor

    config = _model_config(base_of_adapter(model) or model)
    processor = _loaded(
        model, lambda: AutoProcessor.from_pretrained(str(model), trust_remote_code=False)
    )
    if not take_chat_template(processor):
        raise UsageError(
            f"the model {str(model)!r} has no chat template, neither its processor nor its"
            " tokenizer; give an instruction-tuned model, or put its chat_template.jinja there"
        )
    _configs[processor] = config
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

    def read(source: str, **options: Any) -> Any:
        return AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype, attn_implementation=attention, **options
        )

    loaded = _loaded(base or model, lambda: read_whole_model(read, base or model))
    if base is not None:
        loaded = _loaded(model, lambda: _with_adapter(loaded, Path(model)))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return loaded.to(device).eval()


def model_outline(model: str | Path) -> Any:
    """The model of a folder or of the hub without its weights: shapes only, on the meta device.

    A folder that holds `config.json` alone is enough. Raises UsageError.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    config = _model_config(model)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def read_models_whole() -> None:
    """From now on models are read whole, though transformers knows of ZeRO-3.

    It would put each tensor into parts as it is read, and no check of what was read would see one.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def training_dtype(wanted: str, *, has_adapter: bool) -> str:
    """The format in which weights are loaded to be trained.

    `auto` is float32 for weights that train: bfloat16 would round small updates away. Under an
    adapter, whose own weights are float32 in any case, the frozen rest is bfloat16 on a GPU.
    """
    import torch

    if wanted != "auto":
        return wanted
    return "bfloat16" if has_adapter and torch.cuda.is_available() else "float32"


def load_weights(model: Any, checkpoint: Path) -> None:
    """Put the weights of a checkpoint into `model`, a transformers model without wrappers.

    transformers' Trainer (5.17) reads a checkpoint by the model's own names, but writes Qwen2.5-VL
    under those of the hub: it would go on, with a warning, from the weights that `model` has.
    Raises UsageError where they are not whole.
    """

    def read(source: str, **options: Any) -> Any:
        return type(model).from_pretrained(source, dtype=model.dtype, **options)

    saved = _loaded(checkpoint, lambda: read_whole_model(read, checkpoint))
    model.load_state_dict(saved.state_dict())


def save_dtype(model: str | Path, wanted: str) -> Any:
    """The torch dtype that a model trained from `model` is saved in.

    `wanted` "auto" is the checkpoint's own, as its configuration says it; None where that says
    nothing: the format of training then.
    """
    import torch

    if wanted != "auto":
        return getattr(torch, wanted)
    return _model_config(base_of_adapter(model) or model).dtype


def config_of(processor: Any) -> Any:
    """The configuration of the model that a processor was loaded with; None for other ones."""
    return _configs.get(processor)


def processor_family(processor: Any) -> ModelFamily:
    """The family of the model that a processor was loaded with, else by the processor's class.

    Raises UsageError for processors of no known family.
    """
    config = config_of(processor)
    return family_of_processor(processor) if config is None else family_of(config)


def video_metadata(num_frames: int, seconds: list[float], distance: float) -> Any:
    """A clip's metadata for its processor: frames at these seconds, `distance` apart on average.

    Processors compute a time as index / fps; with an fps of 1 the indices are the seconds, so that
    clips of uneven frame rate keep their times.
    """
    from transformers.video_utils import VideoMetadata

    return VideoMetadata(
        total_num_frames=num_frames * distance, fps=1.0, frames_indices=list(seconds)
    )


def register_attention(name: str, function: Callable[..., Any]) -> None:
    """Make `function` an attention implementation; it receives the masks that SDPA receives."""
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


def _model_config(model: str | Path) -> Any:
    from transformers import AutoConfig

    config = _loaded(model, lambda: AutoConfig.from_pretrained(str(model), trust_remote_code=False))
    if find_family(config.model_type) is None:
        takes_video = hasattr(config, "vision_config") and hasattr(config, "video_token_id")
        fault = "a family that is not known here" if takes_video else "which takes no video"
        raise UsageError(
            f"{model} is {config.model_type}, {fault}; give a model of the family"
            f" {family_names()}, or a --plugin that registers its family"
        )
    return config


def _with_adapter(base: Any, folder: Path) -> Any:
    merged = merged_adapter(base, folder)
    refuse_not_finite(folder, merged.state_dict())
    return merged


def _loaded(model: str | Path, load: Callable[[], Any]) -> Any:
    """`load()`; what transformers raises becomes one sentence."""
    try:
        refuse_broken_files(Path(model))
        with reading_tokenizers():
            return load()
    except BrokenWeightsError as error:
        raise UsageError(str(error)) from error
    except loading_errors() as error:
        words = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the model {str(model)!r} cannot be loaded; give a folder with config.json, weights"
            f" and processor, or a hub id ({words or type(error).__name__})"
        ) from error
