"""What a planned run does, as far as memory depends on it: read from the options of its command.

The options are those of `train.rl` or `train.sft` themselves, so a run and its plan cannot differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Protocol

from media.sampling import FrameSpec
from train.planning.activations import (
    PassBytes,
    Precision,
    RowShape,
    Training,
    learner_pass,
    tuning_pass,
)
from train.planning.model_sizes import ModelSizes

# The longest text beside a temporal cell ("<12.5 seconds>" and two marks), for families with one.
_TOKENS_OF_CELL_TEXT = 12


class WeightOptions(Protocol):
    """The options that `train.rl` and `train.sft` share."""

    @property
    def dtype(self) -> str:
        """Number format of the weights."""

    @property
    def frames(self) -> str:
        """Frame policy."""

    @property
    def max_pixels(self) -> int:
        """Of a frame."""

    @property
    def freeze_vision(self) -> bool:
        """Whether the tower stays as it is."""

    @property
    def lora_rank(self) -> int:
        """0 for no adapter."""


class RlWeightOptions(WeightOptions, Protocol):
    """Those of `train.rl`."""

    @property
    def completions_per_pass(self) -> int | None:
        """Most completions that are forwarded together."""

    @property
    def groups_at_once(self) -> int | None:
        """Most groups whose completions are sampled together in process."""

    @property
    def merge_adapters(self) -> bool | None:
        """Whether adapters are added to copies of the weights meanwhile; None: if in float32."""


@dataclass(frozen=True)
class Prompt:
    """A question with its video, at its largest."""

    tokens: int
    patches: int


def prompt_of(sizes: ModelSizes, options: WeightOptions, text_tokens: int) -> Prompt:
    """The largest prompt that frames and pixels allow, with so much text around the video."""
    tower = sizes.tower
    cells = ceil(FrameSpec(options.frames, options.max_pixels).max_frames / tower.frames_per_cell)
    per_cell = max(1, options.max_pixels // (tower.patch_side * tower.merge_size) ** 2)
    beside = _TOKENS_OF_CELL_TEXT if sizes.family.cell_text else 0
    return Prompt(
        tokens=text_tokens + cells * (per_cell + beside),
        patches=cells * per_cell * tower.merge_size**2,
    )


@dataclass(frozen=True)
class Job:
    """One process of a run. Of fine-tuning a "group" is one row."""

    sizes: ModelSizes
    prompt: Prompt
    group_size: int
    """G; 0 in fine-tuning."""
    tokens: int
    """Of the longest completion; in fine-tuning of the rest of the longest row."""
    groups: int
    """Of a micro-batch."""
    groups_drawn: int
    """Drawn together; 0 in fine-tuning."""
    needs_reference: bool
    trains_tower: bool
    checkpoints: bool
    is_mixed: bool
    """Passes compute in bfloat16."""
    weight_bytes: int | None
    """Of a weight; None: 4 where weights train, 2 where an adapter does."""
    lora_rank: int
    per_pass: int | None = None
    """Most completions that are forwarded together; None for all of a micro-batch."""
    groups_at_once: int | None = None
    """Most groups whose completions are drawn together; None for all that are drawn."""
    merges_adapters: bool = True
    """Whether copies of the adapted weights exist while completions are drawn."""

    @property
    def is_rl(self) -> bool:
        """Completions are drawn."""
        return self.group_size > 0

    @property
    def groups_together(self) -> int:
        """Groups whose completions are drawn at the same time."""
        return min(self.groups_drawn, self.groups_at_once or self.groups_drawn)

    @property
    def batch_size(self) -> int:
        """As --per-device-train-batch-size counts it."""
        return self.groups * max(1, self.group_size)

    @property
    def row(self) -> RowShape:
        """What is forwarded together: a micro-batch, or the largest of its passes
        (`train.trainers.micro_batches.passes_of`)."""
        if not self.is_rl:
            return RowShape(self.groups, self.prompt.tokens + self.tokens, 0, 0)
        at_most, size = self.batch_size, self.group_size
        if self.per_pass is not None:
            at_most = min(at_most, self.per_pass)
        groups = at_most // size
        if at_most < size:
            groups, size = 1, ceil(size / ceil(size / at_most))
        return RowShape(groups, self.prompt.tokens, size, self.tokens)

    @property
    def is_in_passes(self) -> bool:
        """Whether a micro-batch is forwarded in several passes."""
        return self.per_pass is not None and self.per_pass < self.batch_size

    def with_groups(self, groups: int) -> "Job":
        """The same with other groups at a time, and as many micro-batches of them drawn."""
        return replace(
            self, groups=groups, groups_drawn=self.groups_drawn * groups // max(1, self.groups)
        )

    def with_per_pass(self, per_pass: int) -> "Job":
        """The same with at most `per_pass` completions forwarded together."""
        return replace(self, per_pass=per_pass)

    def with_rank(self, rank: int) -> "Job":
        """The same with an adapter of this rank, or without one (0)."""
        return replace(self, lora_rank=rank)

    def passed(self, number: Precision) -> PassBytes:
        """The learner's pass over what it forwards together."""
        trains_tower = self.trains_tower and not self.lora_rank
        training = Training(self.lora_rank, trains_tower, self.checkpoints)
        patches = self.row.groups * self.prompt.patches
        if self.is_rl:
            return learner_pass(self.sizes, self.row, patches, number, training)
        predicted = self.groups * self.tokens
        return tuning_pass(self.sizes, self.row, predicted, patches, number, training)


def rl_job(
    sizes: ModelSizes,
    options: RlWeightOptions,
    trl: Mapping[str, Any],
    *,
    beta: float,
    text_tokens: int,
    processes: int,
) -> Job:
    """A run of `train.rl`; `trl` holds TRL's options as they will be, `beta` the algorithm's."""
    size = int(trl.get("num_generations", 8))
    batch = int(trl.get("per_device_train_batch_size", size))
    parts = int(trl.get("steps_per_generation") or trl.get("gradient_accumulation_steps", 1))
    drawn = batch * parts
    if trl.get("generation_batch_size"):
        drawn = int(trl["generation_batch_size"]) // processes
    groups = max(1, batch // size)
    return Job(
        sizes=sizes,
        prompt=prompt_of(sizes, options, text_tokens),
        group_size=size,
        tokens=int(trl.get("max_completion_length", 1024)),
        groups=groups,
        groups_drawn=max(groups, drawn // size),
        needs_reference=float(trl.get("beta", beta)) != 0,
        trains_tower=not options.freeze_vision,
        checkpoints=bool(trl.get("gradient_checkpointing", True)),
        is_mixed=_is_mixed(trl),
        weight_bytes=_weight_bytes(options.dtype),
        lora_rank=options.lora_rank,
        per_pass=options.completions_per_pass,
        groups_at_once=options.groups_at_once,
        merges_adapters=_merges_adapters(options),
    )


def _merges_adapters(options: RlWeightOptions) -> bool:
    """As the sampler decides; under an adapter the base is bfloat16 on a GPU if nothing is said."""
    if options.merge_adapters is None:
        return options.dtype == "float32"
    return options.merge_adapters


def sft_job(
    sizes: ModelSizes,
    options: WeightOptions,
    trl: Mapping[str, Any],
    *,
    rows: int,
    longest: int,
    checkpoints: bool,
    text_tokens: int,
) -> Job:
    """A run of `train.sft` with `rows` of at most `longest` tokens in a forward pass."""
    prompt = prompt_of(sizes, options, text_tokens)
    if prompt.tokens >= longest:  # rows with such a video are left out: there are others
        prompt = replace(prompt, tokens=max(1, longest - 1))
    return Job(
        sizes=sizes,
        prompt=prompt,
        group_size=0,
        tokens=max(1, longest - prompt.tokens),
        groups=rows,
        groups_drawn=0,
        needs_reference=False,
        trains_tower=not options.freeze_vision,
        checkpoints=checkpoints,
        is_mixed=_is_mixed(trl),
        weight_bytes=_weight_bytes(options.dtype),
        lora_rank=options.lora_rank,
    )


def _is_mixed(trl: Mapping[str, Any]) -> bool:
    """On a GPU passes compute in 16 bits unless that is switched off."""
    return bool(trl.get("fp16")) or bool(trl.get("bf16", True))


def _weight_bytes(dtype: str) -> int | None:
    return {"float32": 4, "bfloat16": 2, "float16": 2}.get(dtype)
