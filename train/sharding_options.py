"""What asks for weights spread over processes, and whether it can be had.

`--fsdp`, `--fsdp-config` and `accelerate launch --use_fsdp` all mean FSDP2 here, `--deepspeed` and
`accelerate launch --use_deepspeed` DeepSpeed's ZeRO-2 or ZeRO-3. What `accelerate launch` is given,
by its options or its config file, becomes variables of the processes' environment. Nothing imports
torch.
"""

import json
from collections.abc import Mapping, MutableMapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cli.config import UsageError

_YES = {"1", "true", "t", "yes", "y", "on"}  # as accelerate reads its variables
_MESHES = ("DP_SHARD", "TP", "CP", "SP")
_CONFIG_FILE = "ACCELERATE_DEEPSPEED_CONFIG_FILE"
# Settings of DeepSpeed that round weights or gradients, or spread them in yet another way.
_OTHER_ZERO = (
    "mics_shard_size",
    "zero_hpz_partition_size",
    "zero_quantized_gradients",
    "zero_quantized_nontrainable_weights",
    "zero_quantized_weights",
)


def asks_for_fsdp(
    trl: Mapping[str, Any], environment: Mapping[str, str], *, num_processes: int
) -> bool:
    """Whether weights are to be spread by FSDP2. Raises UsageError for what cannot be had."""
    _refuse_other_sharding(trl, environment)
    refuse_other_deepspeed(trl, environment, num_processes=num_processes)
    by_option = bool(trl.get("fsdp") or trl.get("fsdp_config"))
    if by_option:
        asked, settings = "--fsdp", _settings_of(trl)
        version = str(settings.get("version", 2))
    elif _is_set(environment, "ACCELERATE_USE_FSDP"):
        asked = "accelerate launch --use_fsdp"
        prefix = "FSDP_"
        settings = {
            name.removeprefix(prefix).lower(): value
            for name, value in environment.items()
            if name.startswith(prefix)
        }
        version = str(settings.get("version", 1))
    else:
        return False
    if version != "2":
        raise UsageError(
            f"{asked} with FSDP {version}: only version 2 is supported, whose weights can be"
            ' gathered for drawing; say --fsdp_version 2 to accelerate launch ("fsdp_version": 2 in'
            " a config file)"
        )
    _refuse_settings(asked, trl, settings)
    if num_processes < 2:
        raise UsageError(
            f"{asked} spreads weights over processes, and there is one; start several (accelerate"
            " launch --num_processes 8), or leave it out"
        )
    return True


def _refuse_settings(asked: str, trl: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    offload = any(_is_yes(settings.get(name)) for name in ("cpu_offload", "offload_params"))
    if offload or "offload" in str(trl.get("fsdp") or "").split():
        raise UsageError(
            f"{asked} with weights offloaded to the CPU: drawing needs them on the GPU at every"
            " token; leave the offload out, and take more GPUs or --lora-rank"
        )
    if _is_yes(settings.get("activation_checkpointing")):
        raise UsageError(
            f"{asked} with activation_checkpointing: give --gradient-checkpointing instead, which"
            " is on by default on a GPU"
        )
    if _is_yes(settings.get("xla")):
        raise UsageError(f"{asked} with xla: only torch's FSDP2 is supported")


def _settings_of(trl: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of --fsdp-config by their names without a prefix: a JSON file, or as they are.

    Raises UsageError.
    """
    given = trl.get("fsdp_config") or {}
    if isinstance(given, str):
        try:
            given = json.loads(Path(given).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--fsdp-config {given} cannot be read ({error}); give a JSON file, such as one"
                ' with {"fsdp_version": 2}'
            ) from None
    if not isinstance(given, dict):
        raise UsageError(f"--fsdp-config must hold settings by name, got {type(given).__name__}")
    return {name.removeprefix("fsdp_"): value for name, value in given.items()}


def _refuse_other_sharding(trl: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    asked = ["--parallelism-config"] if trl.get("parallelism_config") else []
    if _is_set(environment, "ACCELERATE_USE_MEGATRON_LM"):
        asked.append("Megatron-LM of accelerate launch")
    if _is_set(environment, "ACCELERATE_USE_PARALLELISM_CONFIG"):
        asked += [
            f"{name.lower()}_size of accelerate's parallelism_config"
            for name in _MESHES
            if environment.get(f"PARALLELISM_CONFIG_{name}_SIZE", "1") not in ("", "1")
        ]
    if asked:
        raise UsageError(
            f"{asked[0]} spreads weights over processes in a way that is not supported; use FSDP2"
            " (accelerate launch --use_fsdp --fsdp_version 2), ZeRO or DDP"
        )


def take_deepspeed_option(given: dict[str, Any], environment: MutableMapping[str, str]) -> None:
    """Say `--deepspeed` as accelerate launch does, before TRL's arguments are made of `given`."""
    file = given.pop("deepspeed", None)
    if file is not None:
        environment.update({"ACCELERATE_USE_DEEPSPEED": "true", _CONFIG_FILE: str(file)})


def refuse_other_deepspeed(
    trl: Mapping[str, Any], environment: Mapping[str, str], *, num_processes: int
) -> None:
    """Raise UsageError where DeepSpeed is asked for in a way that cannot be had."""
    file = trl.get("deepspeed")
    if file is None and not _is_set(environment, "ACCELERATE_USE_DEEPSPEED"):
        return
    asked = "accelerate launch --use_deepspeed" if file is None else "--deepspeed"
    if file is None and environment.get(_CONFIG_FILE, "none") != "none":
        file = environment[_CONFIG_FILE]
    settings = _by_environment(environment) if file is None else _read_settings(asked, file)
    _refuse_deepspeed_settings(asked, settings, is_fp16=bool(trl.get("fp16")))
    if num_processes < 2:
        raise UsageError(
            f"{asked} spreads a run over processes, and there is one; start several (accelerate"
            " launch --num_processes 8), or leave it out"
        )
    if find_spec("deepspeed") is None:
        raise UsageError(
            f"{asked} needs DeepSpeed, which is not installed: pip install deepspeed, or take"
            " FSDP2 (accelerate launch --use_fsdp --fsdp_version 2), which needs nothing"
        )


def _by_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """What the options of accelerate launch ask of DeepSpeed, as its config file would say it."""
    prefix = "ACCELERATE_DEEPSPEED_"
    return {
        "zero_optimization": {
            "stage": environment.get(f"{prefix}ZERO_STAGE", "2"),
            **{
                f"offload_{what}": {
                    "device": environment.get(f"{prefix}OFFLOAD_{what.upper()}_DEVICE", "none")
                }
                for what in ("param", "optimizer")
            },
        }
    }


def _read_settings(asked: str, file: Any) -> dict[str, Any]:
    try:
        settings = json.loads(Path(file).read_text("utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{asked}: the settings {file} cannot be read ({error}); give a JSON file of"
            ' DeepSpeed\'s, such as one with {"zero_optimization": {"stage": 3}}'
        ) from None
    if not isinstance(settings, dict) or not isinstance(settings.get("zero_optimization"), dict):
        raise UsageError(
            f"{asked}: {file} must hold DeepSpeed's settings, zero_optimization among them, such as"
            ' {"zero_optimization": {"stage": 3}}'
        )
    return settings


def _refuse_deepspeed_settings(asked: str, settings: Mapping[str, Any], *, is_fp16: bool) -> None:
    zero = settings["zero_optimization"]
    if str(zero.get("stage")) not in ("2", "3"):
        raise UsageError(
            f"{asked} with ZeRO stage {zero.get('stage')}: stages 2 and 3 are supported; below them"
            " leave DeepSpeed out"
        )
    for what in ("offload_param", "offload_optimizer"):
        device = (zero.get(what) or {}).get("device", "none")
        if device != "none":
            raise UsageError(
                f"{asked} with {what} to {device}: only what stays on the GPUs is supported; leave"
                " it out, and take more GPUs or --lora-rank"
            )
    for what in ("optimizer", "scheduler"):
        if settings.get(what):
            raise UsageError(
                f"{asked} with {what} in DeepSpeed's settings: leave it out, and give the options"
                " of this command (--optim, --learning-rate, --lr-scheduler-type)"
            )
    other = [
        name for name in _OTHER_ZERO if str(zero.get(name)) not in ("None", "False", "-1", "1")
    ]
    if other:
        raise UsageError(
            f"{asked} with {other[0]}: weights and gradients must be those of one process; leave it"
            " out"
        )
    if is_fp16 or _is_yes((settings.get("fp16") or {}).get("enabled")):
        raise UsageError(f"{asked} in float16 is not supported; give --bf16")


def _is_set(environment: Mapping[str, str], name: str) -> bool:
    return _is_yes(environment.get(name))


def _is_yes(value: Any) -> bool:
    return str(value).lower() in _YES
