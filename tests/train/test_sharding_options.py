"""What asks for weights spread over processes is recognised, and refused where it cannot be had."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.config import UsageError
from train.sharding_options import asks_for_fsdp

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
        (
            {},
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            "DeepSpeed ZeRO-3 of accelerate launch",
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
    zero_2 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
    assert not asks({}, zero_2, num_processes=1)
