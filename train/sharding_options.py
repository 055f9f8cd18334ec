"""What asks for weights spread over processes, and whether it can be had.

`--fsdp`, `--fsdp-config` and `accelerate launch` (its options and its config file become variables
of the processes' environment) all mean FSDP2 here. Nothing imports torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.config import UsageError

_YES = {"1", "true", "t", "yes", "y", "on"}  # as accelerate reads its variables
_MESHES = ("DP_SHARD", "TP", "CP", "SP")


def asks_for_fsdp(
    trl: Mapping[str, Any], environment: Mapping[str, str], *, num_processes: int
) -> bool:
    """Whether weights are to be spread by FSDP2. Raises UsageError for what cannot be had."""
    _refuse_other_sharding(trl, environment)
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
    uses_deepspeed = _is_set(environment, "ACCELERATE_USE_DEEPSPEED")
    if uses_deepspeed and environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3":
        asked.append("DeepSpeed ZeRO-3 of accelerate launch")
    if asked:
        raise UsageError(f"{asked[0]} {NOT_SUPPORTED}")


NOT_SUPPORTED = (
    "spreads weights over processes in a way that is not supported; use FSDP2 (accelerate launch"
    " --use_fsdp --fsdp_version 2), DDP or ZeRO-2"
)


def _is_set(environment: Mapping[str, str], name: str) -> bool:
    return _is_yes(environment.get(name))


def _is_yes(value: Any) -> bool:
    return str(value).lower() in _YES
