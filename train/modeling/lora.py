"""LoRA adapters: settings, loading, merging. The only file of this room that imports peft."""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from cli.config import UsageError
from judges.backends.model_folders import refuse_unfit_tensors, weight_files
from train.modeling.families import ModelFamily
from train.modeling.numerics import at_least_float32


class LoraOptions(Protocol):
    """The options of a training command that describe an adapter."""

    @property
    def lora_rank(self) -> int:
        """0 for no adapter."""

    @property
    def lora_alpha(self) -> int | None:
        """None is twice the rank."""

    @property
    def lora_dropout(self) -> float:
        """Of the adapters' inputs."""

    @property
    def lora_targets(self) -> Sequence[str]:
        """Names of the layers that get an adapter; none named are the family's own."""


def adapter_from_options(options: LoraOptions, family: ModelFamily) -> Any:
    """The `peft.LoraConfig` that a command's options ask for; None without an adapter."""
    if not options.lora_rank:
        return None
    return lora_config(
        options.lora_rank,
        family,
        alpha=options.lora_alpha,
        dropout=options.lora_dropout,
        targets=options.lora_targets,
    )


def lora_config(
    rank: int,
    family: ModelFamily,
    *,
    alpha: int | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] = (),
) -> Any:
    """A `peft.LoraConfig` for the language model's linear layers, or for the layers named.

    `alpha` None is twice the rank. The vision tower gets no adapter unless `targets` name its
    layers: it is encoded once per prompt only while it does not train.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=list(targets or family.lora_targets),
        exclude_modules=None if targets else family.lora_excluded,
        task_type="CAUSAL_LM",
    )


def base_of_adapter(model: str | Path) -> str | None:
    """The base model of a folder that holds a LoRA adapter and no weights of its own; else None.

    Raises UsageError for an adapter that does not name its base, and for one beside other weights.
    """
    file = Path(model) / "adapter_config.json"
    if not file.is_file():
        return None
    if any(not path.name.startswith("adapter") for path in weight_files(Path(model))):
        raise UsageError(
            f"{model} holds a whole model and an adapter ({file.name}), and it does not say which"
            " of them counts; give a folder with one of them"
        )
    try:
        base = json.loads(file.read_text("utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError):
        base = None
    if not base:
        raise UsageError(f"{file} does not say which model the adapter belongs to")
    return str(base)


def merged_adapter(base: Any, folder: Path) -> Any:
    """`base` with the LoRA adapter in `folder` added to its weights. Raises BrokenWeightsError."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is missing is refused below
        adapted = PeftModel.from_pretrained(base, str(folder))
    refuse_unfit_adapter(adapted, folder)
    return adapted.merge_and_unload()


@contextmanager
def adapters_in_weights(model: Any) -> Iterator[None]:
    """In this block the active adapters of `model` are part of its weights, and cost no products.

    The sums are rounded once, to the format of the base. They are copies: afterwards each layer has
    the very tensor that it had. Weights spread over processes must be whole
    (`train.modeling.sharding.whole_weights`). A model without adapters is left alone.
    """
    adapted = [layer for layer in model.modules() if hasattr(layer, "get_delta_weight")]
    adapted = [layer for layer in adapted if not layer.disable_adapters and not layer.merged]
    before = []
    try:
        for layer in adapted:
            weight = layer.get_base_layer().weight
            before.append((layer, weight, weight.data))
            weight.data = _with_adapters(layer, weight.data)
        yield
    finally:
        for layer, weight, own in before:
            weight.data = own
            layer.merged_adapters.clear()


def _with_adapters(layer: Any, weight: Any) -> Any:
    """A copy of a layer's weight with its active adapters, which the layer then leaves out."""
    import torch

    total = at_least_float32(weight).clone()
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        for name in layer.active_adapters:
            if name in layer.lora_A or name in layer.lora_embedding_A:
                total += layer.get_delta_weight(name)
                layer.merged_adapters.append(name)
    return total.to(weight.dtype)


def refuse_unfit_adapter(adapted: Any, folder: Path) -> None:
    """Raise BrokenWeightsError where a folder's adapter has not the tensors that `adapted` has.

    peft leaves what is missing as a fresh adapter has it, without any effect.
    """
    from peft import get_peft_model_state_dict, load_peft_weights

    given = load_peft_weights(str(folder), device="cpu")
    wanted = {*get_peft_model_state_dict(adapted, save_embedding_layers=False)}
    known = wanted | {*adapted.state_dict()}
    refuse_unfit_tensors(folder, missing=wanted - {*given}, unexpected={*given} - known)


def save_merged(adapted: Any, processor: Any, folder: Path, dtype: Any = None) -> None:
    """Save a trained adapter and its base as one ordinary model; `adapted` is used up by it.

    `dtype` is the number format to save in; None keeps that of the base.
    """
    save_ordinary(adapted.merge_and_unload(), processor, folder, dtype)


def save_ordinary(merged: Any, processor: Any, folder: Path, dtype: Any = None) -> None:
    """As `save_merged`, of a model that its adapter has been merged into."""
    if dtype is not None:
        merged.to(dtype)
    merged.save_pretrained(str(folder))
    processor.save_pretrained(str(folder))
