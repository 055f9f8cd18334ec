"""The sizes of a model that memory follows from, counted from its configuration alone."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cli.config import UsageError
from train.modeling.families import ModelFamily, attention_layers, family_of
from train.modeling.loading import model_outline
from train.modeling.lora import base_of_adapter


@dataclass(frozen=True)
class RecurrentSizes:
    """Gated delta nets: number and widths."""

    layers: int
    key_width: int
    """Keys of all key heads of a token, and as many queries."""
    value_width: int
    """Values of all value heads of a token."""
    heads: int
    """Value heads."""
    kernel: int
    """Tokens that the convolution sees."""

    @property
    def matrix(self) -> int:
        """Numbers of the state itself: keys and values of a head are equally wide."""
        return self.value_width**2 // self.heads

    @property
    def state(self) -> int:
        """Numbers that one layer keeps for a completion."""
        return self.matrix + (2 * self.key_width + self.value_width) * self.kernel


@dataclass(frozen=True)
class TextSizes:
    """The language model: widths and numbers of its layers."""

    layers: int
    width: int
    """H."""
    heads: int
    kv_heads: int
    head_width: int
    """D."""
    mlp_width: int
    """I."""
    vocabulary: int
    has_query_norm: bool
    """Queries and keys are normalised per head (Qwen3-VL, Qwen3.5)."""
    recurrent: RecurrentSizes | None = None
    """Layers that keep a state instead of keys and values (Qwen3.5)."""

    @property
    def attending(self) -> int:
        """Number of layers that attend."""
        return self.layers - (self.recurrent.layers if self.recurrent else 0)

    @property
    def query_width(self) -> int:
        """Queries of all heads of a token."""
        return self.heads * self.head_width

    @property
    def key_width(self) -> int:
        """Keys of all key-value heads of a token."""
        return self.kv_heads * self.head_width


@dataclass(frozen=True)
class TowerSizes:
    """The vision tower: widths and numbers of its layers, per patch."""

    layers: int
    width: int
    mlp_width: int
    is_gated: bool
    """Three linear layers in an MLP and RMS norms (Qwen2.5-VL), else two and layer norms."""
    patch_values: int
    """Numbers of one patch: channels x frames x height x width."""
    patch_side: int
    """Pixels along one side of a patch."""
    merge_size: int
    """Patches along one side of what becomes one token."""
    frames_per_cell: int
    num_mergers: int
    """Places where patches become tokens: one, and one for each layer of deepstack."""


@dataclass(frozen=True)
class ModelSizes:
    """A model as far as memory depends on it. Counts are numbers, not bytes."""

    name: str
    family: ModelFamily
    text: TextSizes
    tower: TowerSizes
    num_weights: int
    """All parameters, each once: a head that is tied to the embedding is not counted again."""
    num_tower: int
    num_embedding: int
    num_head: int
    """0 where it is tied."""
    num_layer: int
    """One layer of the language model; where they differ, their mean."""
    num_linear: int
    """Weights and biases of linear layers of the language model, head included: what autocast
    converts."""
    lora_widths: int
    """Sum of (inputs + outputs) of the layers that get an adapter: its size per unit of rank."""
    lora_linears: int
    """Layers of one layer of the language model that get an adapter; the mean, rounded up."""

    @property
    def num_text(self) -> int:
        """The language model, head included."""
        return self.num_weights - self.num_tower

    @property
    def num_root(self) -> int:
        """What belongs to no text layer: tower, embedding, last norm, head."""
        return self.num_weights - self.text.layers * self.num_layer


def model_sizes(model: str | Path, lora_targets: Collection[str] = ()) -> ModelSizes:
    """Count a model in a folder (its config.json is enough) or on the hub. Raises UsageError."""
    base = base_of_adapter(model) or model
    return sizes_of(model_outline(base), name=str(model), lora_targets=lora_targets)


def sizes_of(model: Any, *, name: str = "", lora_targets: Collection[str] = ()) -> ModelSizes:
    """Count a transformers model without wrappers, whatever device it is on."""
    family, config = family_of(model.config), model.config
    text, vision = config.get_text_config(), config.vision_config
    tower = family.vision_tower(model)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    layers, attending = _text_layers(model, tower), attention_layers(config)
    linears = [m for _, m in _linears(model) if m not in set(tower.modules())]
    adapted = _adapted(model, family, lora_targets)
    if lora_targets and not adapted:
        raise UsageError(
            f"--lora-targets {' '.join(lora_targets)}: no linear layer of {name or 'the model'} has"
            f" such a name; its family's are {', '.join(family.lora_targets)}"
        )
    is_tied, in_layers = head.weight is embedding.weight, set(layers.modules())
    return ModelSizes(
        name=name,
        family=family,
        text=TextSizes(
            layers=text.num_hidden_layers,
            width=text.hidden_size,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            head_width=getattr(text, "head_dim", None)
            or text.hidden_size // text.num_attention_heads,
            mlp_width=text.intermediate_size,
            vocabulary=text.vocab_size,
            has_query_norm=any(name.endswith("q_norm") for name, _ in layers.named_modules()),
            recurrent=_recurrent(text, len(layers) - len(attending)),
        ),
        tower=TowerSizes(
            layers=vision.depth,
            width=vision.hidden_size,
            mlp_width=vision.intermediate_size,
            is_gated=any(name.endswith("gate_proj") for name, _ in tower.named_modules()),
            patch_values=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
            patch_side=vision.patch_size,
            merge_size=vision.spatial_merge_size,
            frames_per_cell=vision.temporal_patch_size,
            num_mergers=1 + len(getattr(vision, "deepstack_visual_indexes", ())),
        ),
        num_weights=_count(model),
        num_tower=_count(tower),
        num_embedding=embedding.weight.numel(),
        num_head=0 if is_tied else head.weight.numel(),
        num_layer=_count(layers) // len(layers),
        num_linear=sum(_count(linear) for linear in linears),
        lora_widths=sum(linear.in_features + linear.out_features for _, linear in adapted),
        lora_linears=-(-len(in_layers.intersection(m for _, m in adapted)) // len(layers)),
    )


def _recurrent(text: Any, layers: int) -> RecurrentSizes | None:
    if not layers:
        return None
    return RecurrentSizes(
        layers=layers,
        key_width=text.linear_num_key_heads * text.linear_key_head_dim,
        value_width=text.linear_num_value_heads * text.linear_value_head_dim,
        heads=text.linear_num_value_heads,
        kernel=text.linear_conv_kernel_dim,
    )


def _count(module: Any) -> int:
    """Numbers of a module's parameters, each once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _text_layers(model: Any, tower: Any) -> Any:
    """The longest list of modules outside of the tower."""
    inside = set(tower.modules())
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and m not in inside]
    return max(lists, key=len)


def _linears(model: Any) -> Iterator[tuple[str, Any]]:
    return ((n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear))


def _adapted(model: Any, family: ModelFamily, targets: Collection[str]) -> list[tuple[str, Any]]:
    """The linear layers that `train.modeling.lora.lora_config` gives an adapter, by peft's rules:
    a name is a target where it ends in one, and out where the whole of it matches the exclusion."""
    names = tuple(targets or family.lora_targets)
    excluded = None if targets else family.lora_excluded
    return [
        (name, linear)
        for name, linear in _linears(model)
        if name.rpartition(".")[2] in names and not (excluded and re.fullmatch(excluded, name))
    ]
