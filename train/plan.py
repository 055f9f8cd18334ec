"""`python -m train.plan`: what a training run needs of each GPU, before anything is loaded.

    python -m train.plan --model Qwen/Qwen2.5-VL-7B-Instruct --gpus 8 --gpu-memory-gb 80
    python -m train.plan --model FOLDER --config train/recipes/7b_8gpu.yaml --nodes 2 --json
    python -m train.plan --sft --model FOLDER --gpus 8 --max-length 16384

FOLDER may hold a `config.json` alone: parameters are counted from it. All options of `train.rl`
(with `--sft` those of `train.sft`) are taken, those of TRL included, so a recipe or a command line
is planned as it is. Of each way of spreading weights (DDP, ZeRO-2, ZeRO-3, FSDP2; with and without
LoRA) the plan shows memory by part, whether it fits, and the largest batch that does. It ends with
status 0 whether or not something fits. `train.rl --dry-run` and `train.sft --dry-run` print the
same plan for their own run.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import new_class
from typing import Any

from pydantic import Field

from cli.config import EXIT_OK, Config, UsageError, exit_with_usage_error, run_command
from cli.option_groups import JsonOptions
from cli.plugins import load_plugins_of
from train.early_checks import refuse_missing_model, refuse_unreadable_frames
from train.rl_checks import algorithm_of, prompts_per_generation
from train.rl_options import REFUSED as REFUSED_BY_RL
from train.rl_options import TRL_DEFAULTS, RlOptions, rl_config_class
from train.sft_options import REFUSED as REFUSED_BY_SFT
from train.sft_options import SftConfig
from train.trainers.distributed import num_processes, process_number
from train.training_options import read_training_command

PROG = "train.plan"
DESCRIPTION = "What a training run needs of each GPU's memory, and what fits."
PROMPT_TEXT_TOKENS = 330
DEFAULT_GPU_MEMORY_GB = 80.0
_WRAPPINGS = ("ddp", "zero2", "zero3", "fsdp2")
_NOWHERE = Path(".")


class PlanOptions(
    JsonOptions,
    choices={"wrapping": lambda: _WRAPPINGS},
    notes={"json": "Sizes are in bytes."},
    group="speed",
    groups={"sft": "other", "prompt_text_tokens": "data"},
    example="--model Qwen/Qwen2.5-VL-7B-Instruct --gpus 8 --gpu-memory-gb 80",
):
    """Options of `python -m train.plan`, besides those of the run that is planned."""

    sft: bool = False
    """Plan fine-tuning (train.sft, its options) instead of RL (train.rl, its options)."""
    gpus: int = Field(8, ge=1)
    """GPUs of a node."""
    nodes: int = Field(1, ge=1)
    """Nodes with that number of GPUs each."""
    gpu_memory_gb: float = Field(DEFAULT_GPU_MEMORY_GB, gt=0, allow_inf_nan=False)
    """Memory of a GPU, in GB of 10^9 bytes."""
    rollout_gpus: int = Field(0, ge=0)
    """Of all GPUs, those that draw completions with vLLM and do not learn."""
    wrapping: tuple[str, ...] = _WRAPPINGS
    """Ways of spreading weights to show."""
    prompt_text_tokens: int = Field(PROMPT_TEXT_TOKENS, ge=0)
    """Tokens of the longest prompt besides its video's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        config, trl = _read(words)
        print(_planned(config, trl))
    except UsageError as error:
        exit_with_usage_error(PROG, error)
    return EXIT_OK


def planned_options(*, is_sft: bool = False) -> type[Config]:
    """The options of a plan: its own, and those of the run that is planned, which has no files."""
    notes = {"model": "A folder that holds config.json alone is enough."}
    given_elsewhere: dict[str, Any] = {"output_dir": _NOWHERE, "media_root": _NOWHERE}
    if is_sft:
        given_elsewhere |= {"dataset": (_NOWHERE,)}
    else:
        given_elsewhere |= {"questions": _NOWHERE, "algo": "pa-grpo"}
    base: type[Config] = SftConfig if is_sft else rl_config_class()
    return new_class(
        "PlannedOptions", (PlanOptions, base), {"defaults": given_elsewhere, "notes": notes}
    )


def _read(argv: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    load_plugins_of(argv)
    is_sft = "--sft" in argv
    return read_training_command(
        planned_options(is_sft=is_sft),
        "SFTConfig" if is_sft else "GRPOConfig",
        argv,
        prog=PROG,
        description=DESCRIPTION,
        refused=REFUSED_BY_SFT if is_sft else REFUSED_BY_RL,
        check=_check_early,
    )


def _check_early(config: Any) -> None:
    refuse_missing_model(config.model)
    refuse_unreadable_frames(config.frames, config.max_pixels)


def _planned(config: Any, trl: Mapping[str, Any]) -> str:
    gpus = config.gpus * config.nodes - config.rollout_gpus
    if gpus < 1:
        raise UsageError(
            f"--rollout-gpus {config.rollout_gpus} leaves none of {config.gpus * config.nodes} GPUs"
            " to learn; give fewer, or more --gpus"
        )
    if not config.sft:
        prompts_per_generation(TRL_DEFAULTS | dict(trl), gpus)
    return plan_of(
        config,
        trl,
        gpus=gpus,
        rollout_gpus=config.rollout_gpus,
        gpu_memory_gb=config.gpu_memory_gb,
        wrappings=tuple(dict.fromkeys(config.wrapping)),
        text_tokens=config.prompt_text_tokens,
        as_json=config.json,
    )


def print_plan(config: RlOptions | SftConfig, trl: Mapping[str, Any]) -> int:
    """What --dry-run prints, for as many processes as were launched and the GPU that is here;
    without one, a GPU of 80 GB is assumed. Raises UsageError."""
    if process_number() == 0:
        import torch

        memory_gb = DEFAULT_GPU_MEMORY_GB
        if torch.cuda.is_available():
            memory_gb = round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1)
        print(plan_of(config, trl, gpus=num_processes(), gpu_memory_gb=memory_gb))
    return EXIT_OK


def plan_of(
    config: Any,
    trl: Mapping[str, Any],
    *,
    gpus: int,
    rollout_gpus: int = 0,
    gpu_memory_gb: float = DEFAULT_GPU_MEMORY_GB,
    wrappings: Sequence[str] = _WRAPPINGS,
    text_tokens: int = PROMPT_TEXT_TOKENS,
    as_json: bool = False,
) -> str:
    """The plan of a run with these options (`RlOptions` or `SftConfig`) and those of TRL that were
    given, as text. `gpus` learn, `rollout_gpus` draw beside them. Raises UsageError."""
    # torch and transformers: a model is built without weights to count them
    from train.planning.job import rl_job, sft_job
    from train.planning.memory import GB
    from train.planning.model_sizes import model_sizes
    from train.planning.plan import Cluster, plan
    from train.planning.plan_table import plan_text

    sizes = model_sizes(config.model, config.lora_targets)
    if isinstance(config, RlOptions):
        job = rl_job(
            sizes,
            config,
            TRL_DEFAULTS | dict(trl),
            beta=algorithm_of(config).beta,
            text_tokens=text_tokens,
            processes=gpus,
        )
    else:
        job = sft_job(
            sizes,
            config,
            {"bf16": config.bf16 is not False} | dict(trl),
            rows=config.per_device_train_batch_size,
            longest=config.max_length or SftConfig.model_fields["max_length"].default,
            checkpoints=config.gradient_checkpointing is not False,
            text_tokens=text_tokens,
        )
    cluster = Cluster(gpus, gpu_memory_gb * GB, rollout_gpus)
    made = plan(job, cluster, wrappings)
    return json.dumps(made.as_json(), indent=2) if as_json else plan_text(made)


if __name__ == "__main__":
    run_command(PROG, main)
