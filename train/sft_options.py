"""The options of `python -m train.sft`; the string under each is its help."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from cli.config import UsageError
from cli.option_groups import (
    AttentionOptions,
    BatchSizeOptions,
    DecodeWorkerOptions,
    DryRunOptions,
    DtypeOptions,
    FrameOptions,
    LearningRateOptions,
    LimitOptions,
    MediaRootOptions,
    ModelOptions,
    NeedsVideoOptions,
    OutputOptions,
    PluginOptions,
    RopePositionOptions,
    SeedOptions,
    TemplateOptions,
    TrainedWeightsOptions,
)
from schemas.traces import TEMPLATES
from train.early_checks import known_options

EFFECTIVE_BATCH = 16

# What a resumed run may change: speed, logging and saving, never what is learned.
MAY_CHANGE_ON_RESUME = frozenset(
    {
        "dry_run",
        "frame_cache",
        "decode_timeout_seconds",
        "decode_workers",
        "decode_first",
        "held_out_max_new_tokens",
        "held_out_batch_size",
        "save_dtype",
        # TRL's
        "logging_steps",
        "logging_strategy",
        "logging_first_step",
        "logging_dir",
        "log_level",
        "report_to",
        "run_name",
        "disable_tqdm",
        "save_steps",
        "save_strategy",
        "save_total_limit",
    }
)

_VIDEO = "a row of video is prepared whole, by our collator"
REFUSED: Mapping[str, str] = {
    "packing": "rows packed together would lose their videos",
    "eval_packing": "rows packed together would lose their videos",
    "padding_free": "rows packed together would lose their videos",
    "assistant_only_loss": "the loss is on the completion only, always",
    "completion_only_loss": "the loss is on the completion only, always",
    "dataset_kwargs": _VIDEO,
    "dataset_text_field": _VIDEO,
    "dataset_num_proc": _VIDEO,
    "shuffle_dataset": "rows are shuffled anew in each epoch, by --seed",
    "remove_unused_columns": _VIDEO,
    "truncation_mode": "rows are never cut; --max-length drops the longer ones and says which",
    "dataloader_num_workers": "rows are prepared ahead by a thread; workers would be forked",
    "dataloader_persistent_workers": "there are no workers",
    "dataloader_prefetch_factor": "there are no workers",
    "dataloader_multiprocessing_context": "there are no workers",
    "model_init_kwargs": "--dtype and --attention say how the model is loaded",
    "trust_remote_code": "code that comes with a model is never run",
    "chat_template_path": "the model's own chat template is used, as RL and evaluation use it",
    "eos_token": "the end token is the one that the chat template writes after an answer",
    "pad_token": "set it in the model's tokenizer",
    "resume_from_checkpoint": "the same command again resumes",
    "load_best_model_at_end": "choose among the checkpoints: each is a complete model",
    "do_train": "it always trains",
    "do_predict": "python -m train.evaluate does that",
    **dict.fromkeys(
        (
            "push_to_hub",
            "hub_model_id",
            "hub_strategy",
            "hub_token",
            "hub_private_repo",
            "hub_always_push",
            "hub_revision",
        ),
        "TRL would upload the whole output folder; python -m train.push RUN OWNER/NAME sends the"
        " finished model and its card",
    ),
    "train_sampling_strategy": "rows are shuffled, so that a resumed run sees the same order",
    "length_column_name": "rows are shuffled, so that a resumed run sees the same order",
}


class SftConfig(
    PluginOptions,
    ModelOptions[str],
    MediaRootOptions[Path],
    OutputOptions[Path],
    DryRunOptions,
    LimitOptions,
    NeedsVideoOptions,
    TemplateOptions,
    FrameOptions,
    RopePositionOptions,
    DecodeWorkerOptions,
    BatchSizeOptions[int | None],
    LearningRateOptions,
    SeedOptions,
    DtypeOptions,
    AttentionOptions,
    TrainedWeightsOptions,
    defaults={"template": "auto", "batch_size": None, "seed": 42},
    choices={
        "template": lambda: ("auto", *TEMPLATES),
        "dtype": lambda: ("auto", "float32", "bfloat16"),
    },
    notes={
        "dry_run": "Here memory by part on each GPU, as train.plan prints it; nothing is loaded.",
        "output_dir": "It holds checkpoints, the model and the report.",
        "template": "auto is the dataset's own (its prompt_id says which); think-answer on a p2r"
        " dataset leaves the observations out.",
        "batch_size": "Here: rows per optimizer step, over all processes and accumulated"
        " micro-batches; default 16, or what --per-device-train-batch-size and"
        " --gradient-accumulation-steps make.",
        "dtype": "Here auto is float32 for weights that train (bfloat16 would round small updates"
        " away), and bfloat16 under LoRA on a GPU.",
        "lora_rank": "The saved model has them merged, the adapter is saved beside it.",
    },
    group="training",
    groups={
        "batch_size": "training",
        "dataset": "data",
        "target": "data",
        "decode_first": "media",
        "bf16": "speed",
        "gradient_checkpointing": "speed",
        "held_out_questions": "data",
        "held_out_rows": "data",
        "held_out_max_new_tokens": "data",
        "held_out_batch_size": "speed",
    },
    example="--model Qwen/Qwen2.5-VL-7B-Instruct --dataset out/build --media-root clips "
    "--output-dir out/sft",
):
    """Options of `python -m train.sft`."""

    dataset: tuple[Path, ...]
    """Output folder of a build, its dataset folder, or Parquet files."""
    target: Literal["gold", "teacher"] = "gold"
    """Which answer ends the trace that is learned: the ground truth or the teacher's."""
    max_length: int | None = Field(8192, ge=1)
    """Rows with more tokens than this, prompt and video included, are dropped and reported; none is
    ever cut. none keeps all.
    """
    decode_first: bool = False
    """Decode every file before training starts: slow the first time, but then no file can stop the
    run.
    """

    num_train_epochs: float = Field(1.0, gt=0)
    """Passes over the dataset."""
    per_device_train_batch_size: int = Field(1, ge=1)
    """Rows of one forward pass in one process."""
    gradient_accumulation_steps: int | None = Field(None, ge=1)
    """Micro-batches per optimizer step; default: as many as --batch-size needs with the number of
    processes.
    """
    max_grad_norm: float = Field(5.0, ge=0)
    """Gradients are clipped to this norm (VideoP2R's lineage: 5)."""
    bf16: bool | None = None
    """Compute in bfloat16; default: on a GPU that can."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass to save memory; default: on a GPU."""

    held_out_questions: Path | None = None
    """Question file on which template adherence is measured at the end; default: rows of the
    dataset that are kept out of training.
    """
    held_out_rows: int = Field(50, ge=0)
    """Rows of the dataset kept out of training for that, whole clips, at most 5 in 100; none with
    --held-out-questions.
    """
    held_out_max_new_tokens: int = Field(1024, ge=1)
    """Longest answer to a held-out question, in tokens."""
    held_out_batch_size: int = Field(16, ge=1)
    """Held-out questions that are answered together."""

    @model_validator(mode="after")
    def _options_that_need_each_other(self) -> "SftConfig":
        steps, rows = self.gradient_accumulation_steps, self.per_device_train_batch_size
        if self.batch_size is not None and steps is None and self.batch_size % rows:
            raise ValueError(
                f"--batch-size {self.batch_size} must be a multiple of"
                f" --per-device-train-batch-size {rows}"
            )
        if not self.lora_rank and (self.lora_alpha or self.lora_targets or self.lora_dropout):
            raise ValueError("--lora-alpha, --lora-dropout and --lora-targets need --lora-rank")
        return self


def accumulation_steps(config: SftConfig, num_processes: int) -> int:
    """Micro-batches per optimizer step in each process. Raises UsageError for what does not fit.

    Without options a step has 16 rows, whatever the number of processes.
    """
    at_once = config.per_device_train_batch_size * num_processes
    given = config.gradient_accumulation_steps
    if given is not None:
        if config.batch_size not in (None, given * at_once):
            raise UsageError(
                f"--batch-size {config.batch_size} is not {at_once} rows at once x"
                f" --gradient-accumulation-steps {given}; leave one of the two out"
            )
        return given
    wanted = config.batch_size or max(EFFECTIVE_BATCH, config.per_device_train_batch_size)
    if wanted % at_once:
        raise UsageError(
            f"a step of {wanted} rows cannot be split over {num_processes} processes with"
            f" {config.per_device_train_batch_size} rows each; give --batch-size as a multiple of"
            f" {at_once}"
        )
    return wanted // at_once


def trl_options() -> list[str]:
    """The names of TRL's options that this command takes besides its own."""
    taken = {*SftConfig.model_fields, *REFUSED}
    return sorted({*(known_options("SFTConfig") or ())} - taken)
