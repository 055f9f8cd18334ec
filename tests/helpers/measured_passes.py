"""Passes of tiny models in which the bytes of tensors are counted, as a plan names them."""

from dataclasses import dataclass
from typing import Any

import torch
from helpers.live_bytes import LiveBytes
from helpers.tiny_models import batch_of, build_model, group
from peft import get_peft_model

from train.modeling.families import family_of
from train.modeling.lora import lora_config
from train.modeling.packed_forward import group_logprobs
from train.planning.activations import Precision, Training
from train.planning.model_sizes import ModelSizes, sizes_of

LAYERS, PATCHES = 3, 48
_SHAPE = {"layers": LAYERS, "width": 128, "mlp_width": 384}


@dataclass(frozen=True)
class Setting:
    """One way of training a tiny model."""

    family: str = "qwen2.5-vl"
    tied: bool = True
    checkpoints: bool = False
    trains_tower: bool = False
    lora_rank: int = 0
    autocast: bool = False
    """Products in bfloat16."""
    bfloat16: bool = False
    """Weights in bfloat16."""

    @property
    def precision(self) -> Precision:
        """As the plan names it."""
        kept = 2 if self.bfloat16 else 4
        return Precision(kept, 2 if self.autocast else kept, kept)

    @property
    def training(self) -> Training:
        """As the plan names it."""
        return Training(self.lora_rank, self.trains_tower, self.checkpoints)

    def model(self) -> Any:
        """A model that is ready to train, with gradients that exist already: as in every
        micro-batch of a step but the first."""
        model = build_model(self.family, **_SHAPE, tied=self.tied)
        model.to(torch.bfloat16 if self.bfloat16 else torch.float32).train()
        if not self.trains_tower:
            model.model.visual.requires_grad_(False)
        if self.lora_rank:
            model = get_peft_model(model, lora_config(self.lora_rank, family_of(model.config)))
        if self.checkpoints:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            if self.lora_rank:
                model.enable_input_require_grads()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        return model

    def sizes(self) -> ModelSizes:
        """Of the model, before it gets an adapter."""
        return sizes_of(build_model(self.family, **_SHAPE, tied=self.tied))


@dataclass(frozen=True)
class Measured:
    """Bytes of a pass, weights and gradients not counted."""

    prompt: int
    """Tokens of the prompt, or of a row."""
    kept: int
    """After the forward."""
    peak: int
    """Of the backward pass."""


def measured_group(setting: Setting, *, completions: int, tokens: int) -> Measured:
    """A pass of RL over one group of equally long completions."""
    model = setting.model()
    one = group(setting.family, 0, (tokens,) * completions, words=80)
    with LiveBytes(*_tensors(model)) as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.autocast):
            (scores,) = group_logprobs(model, [one])
        loss = scores.logprobs.sum()
        del scores
        kept = live.now()
        live.forget_peak()
        loss.backward()
    return Measured(one.inputs["input_ids"].shape[1], kept, live.peak)


def measured_rows(setting: Setting, *, rows: int, tokens: int) -> Measured:
    """The layers' pass of fine-tuning over padded rows; TRL's head is not run."""
    model = setting.model()
    groups = [group(setting.family, n, (tokens - 7 * n,), words=80) for n in range(rows)]
    inputs, _ = batch_of(groups, align_prompts=False)
    bare = model.get_base_model() if setting.lora_rank else model
    with LiveBytes(*_tensors(model), *inputs.values()) as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.autocast):
            output = bare.model(**inputs, use_cache=False)
        loss = output.last_hidden_state.sum()
        del output
        kept = live.now()
        live.forget_peak()
        loss.backward()
    return Measured(inputs["input_ids"].shape[1], kept, live.peak)


def converted_bytes(setting: Setting) -> int:
    """Copies of weights that autocast makes and the backward pass of a measured pass holds: all
    layers', or one layer's where layers are computed again. A plan counts them apart."""
    if not setting.precision.converts:
        return 0
    layers = build_model(setting.family, **_SHAPE).model.language_model.layers
    numbers = sum(
        p.numel()
        for name, p in layers.named_parameters()
        if "proj" in name.rpartition(".")[0].rpartition(".")[2]
    )
    return 2 * numbers // (LAYERS if setting.checkpoints else 1)


def _tensors(model: Any) -> list[Any]:
    parameters = list(model.parameters())
    return parameters + [p.grad for p in parameters if p.grad is not None]
