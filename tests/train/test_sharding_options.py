"""What asks for weights spread over processes is recognised, and refused where it cannot be had."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.config import UsageError
from train.sharding_options import (
    asks_for_fsdp,
    refuse_other_deepspeed,
    take_deepspeed_option,
)

LAUNCHED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "false"}


def asks(trl: dict[str, Any], environment: dict[str, str], num_processes: int = 2) -> bool:
    return asks_for_fsdp(trl, environment, num_processes=num_processes)


@pytest.mark.parametrize(
    ("trl", "environment"),
    [
        ({"fsdp": True}, {}),
        ({"fsdp": "full_shard auto_wrap"}, {}),
        ({"fsdp_config": {"fsdp_version": 2}}, {}),
        ({"fsdp": True, "fsdp_config": {"version": 2, "cpu_offload": False}}, {}),
        ({"fsdp": None}, LAUNCHED),
        ({}, LAUNCHED | {"ACCELERATE_USE_FSDP": "1"}),
    ],
)
def test_fsdp_2_is_recognised_however_it_is_asked_for(
    trl: dict[str, Any], environment: dict[str, str]
) -> None:
    assert asks(trl, environment)
    with pytest.raises(UsageError, match="spreads weights over processes, and there is one"):
        asks(trl, environment, num_processes=1)


@pytest.mark.parametrize(
    ("trl", "environment", "words"),
    [
        ({"fsdp": True, "fsdp_config": {"version": 1}}, {}, "--fsdp with FSDP 1: only version 2"),
        ({}, {"ACCELERATE_USE_FSDP": "true"}, "--use_fsdp with FSDP 1.*say --fsdp_version 2"),
        ({}, LAUNCHED | {"FSDP_VERSION": "1"}, "--use_fsdp with FSDP 1"),
        ({"fsdp": "full_shard offload"}, {}, "offloaded to the CPU"),
        ({"fsdp_config": {"offload_params": True}}, {}, "offloaded to the CPU"),
        ({}, LAUNCHED | {"FSDP_OFFLOAD_PARAMS": "true"}, "offloaded to the CPU"),
        ({}, LAUNCHED | {"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "--gradient-checkpointing"),
        ({"fsdp_config": {"xla": True}}, {}, "only torch's FSDP2"),
        ({"fsdp_config": "lost.json"}, {}, "--fsdp-config lost.json cannot be read"),
        ({"fsdp_config": [2]}, {}, "must hold settings by name, got list"),
        ({"parallelism_config": {"dp_shard_size": 2}}, {}, "--parallelism-config spreads weights"),
        ({}, {"ACCELERATE_USE_MEGATRON_LM": "True"}, "Megatron-LM of accelerate launch"),
        (
            {},
            {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2"},
            "tp_size of accelerate's parallelism_config",
        ),
    ],
)
def test_other_ways_are_refused_with_what_to_do(
    trl: dict[str, Any], environment: dict[str, str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        asks(trl, environment)


def test_settings_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "fsdp.json"
    file.write_text(json.dumps({"fsdp_version": 2, "fsdp_offload_params": "true"}))
    with pytest.raises(UsageError, match="offloaded to the CPU"):
        asks({"fsdp_config": str(file)}, {})
    file.write_text(json.dumps({"fsdp_version": 2}))
    assert asks({"fsdp_config": str(file)}, {})


def test_whole_weights_ask_for_nothing() -> None:
    assert not asks({"fsdp": None}, {"ACCELERATE_USE_FSDP": "false", "FSDP_VERSION": "1"})
    plain = {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_CP_SIZE": "1"}
    assert not asks({}, plain | {"PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2"})
    refuse_other_deepspeed({}, {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, num_processes=1)


ZERO = {"ACCELERATE_USE_DEEPSPEED": "true"}
PREFIX = "ACCELERATE_DEEPSPEED_"


@pytest.mark.parametrize(
    ("trl", "environment", "words"),
    [
        ({}, {f"{PREFIX}ZERO_STAGE": "1"}, "--use_deepspeed with ZeRO stage 1: stages 2 and 3"),
        ({}, {f"{PREFIX}OFFLOAD_PARAM_DEVICE": "cpu"}, "offload_param to cpu"),
        ({}, {f"{PREFIX}OFFLOAD_OPTIMIZER_DEVICE": "nvme"}, "offload_optimizer to nvme"),
        ({"fp16": True}, {}, "--use_deepspeed in float16 is not supported; give --bf16"),
        ({"deepspeed": "lost.json"}, {}, "--deepspeed: the settings lost.json cannot be read"),
        ({}, {f"{PREFIX}CONFIG_FILE": "lost.json"}, "--use_deepspeed: the settings lost.json"),
    ],
)
def test_what_deepspeed_is_not_asked_for_is_refused(
    trl: dict[str, Any], environment: dict[str, str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        refuse_other_deepspeed(trl, ZERO | environment, num_processes=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([3], "must hold DeepSpeed's settings"),
        ({"stage": 3}, "zero_optimization among them"),
        ({"zero_optimization": {}}, "with ZeRO stage None"),
        ({"optimizer": {"type": "AdamW"}}, "with optimizer in DeepSpeed's settings"),
        ({"scheduler": {"type": "WarmupLR"}}, "with scheduler in"),
        ({"fp16": {"enabled": True}}, "in float16"),
        ({"zero_optimization": {"stage": 3, "zero_quantized_weights": True}}, "quantized_weights"),
        ({"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 4}}, "hpz_partition_size"),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}},
            "offload_param to cpu",
        ),
    ],
)
def test_deepspeeds_own_settings_are_read(tmp_path: Path, settings: Any, words: str) -> None:
    file = tmp_path / "zero.json"
    if isinstance(settings, dict) and "stage" not in settings:
        settings = {"zero_optimization": {"stage": 3}} | settings
    file.write_text(json.dumps(settings))
    with pytest.raises(UsageError, match=words):
        refuse_other_deepspeed({"deepspeed": str(file)}, {}, num_processes=2)


def test_deepspeed_needs_several_processes_and_to_be_installed() -> None:
    """It is no dependency of this project: the environment of the tests has none."""
    stage_3 = ZERO | {f"{PREFIX}ZERO_STAGE": "3", f"{PREFIX}OFFLOAD_PARAM_DEVICE": "none"}
    with pytest.raises(UsageError, match="spreads a run over processes, and there is one"):
        refuse_other_deepspeed({}, stage_3, num_processes=1)
    with pytest.raises(UsageError, match="which is not installed: pip install deepspeed"):
        refuse_other_deepspeed({}, stage_3, num_processes=2)
    with pytest.raises(UsageError, match="which is not installed"):
        asks({}, stage_3)


def test_the_option_is_said_as_accelerate_launch_says_it() -> None:
    given: dict[str, Any] = {"deepspeed": "zero3.json", "beta": 0.1}
    environment: dict[str, str] = {}
    take_deepspeed_option(given, environment)
    assert given == {"beta": 0.1}
    assert environment == ZERO | {f"{PREFIX}CONFIG_FILE": "zero3.json"}
    take_deepspeed_option({"deepspeed": None}, untouched := {})
    assert not untouched
