"""LoRA: the only file of this room that imports peft."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def lora_config(
    rank: int, *, alpha: int | None = None, dropout: float = 0.0, targets: Sequence[str] = ()
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
        target_modules=list(targets) or _LANGUAGE_LAYERS,
        exclude_modules=None if targets else r".*visual.*",
        task_type="CAUSAL_LM",
    )


_LANGUAGE_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_merged(adapted: Any, processor: Any, folder: Path) -> None:
    """Save a trained adapter and its base as one ordinary model; `adapted` is used up by it."""
    adapted.merge_and_unload().save_pretrained(str(folder))
    processor.save_pretrained(str(folder))


def merged_adapter(base: Any, folder: Path) -> Any:
    """`base` with the LoRA adapter in `folder` added to its weights."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
