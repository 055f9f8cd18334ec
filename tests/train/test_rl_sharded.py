"""`accelerate launch --use_fsdp` of `train.rl`: killed and resumed, saved whole and merged."""

import json
import sys
from pathlib import Path

import pytest
import torch
from helpers.launched_runs import (
    accelerate,
    finish,
    kill_after,
    launched,
    same_weights,
    start,
)
from helpers.tiny_rl import read_metrics, render_questions, rl_command, run_rl
from helpers.training_world import tiny_model_folder
from safetensors.torch import load_file

from train.modeling.loading import load_policy

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(1500)]

STEPS = 3
MARK = 12345.0
CONFIG = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_cpu_ram_efficient_loading: true
  fsdp_state_dict_type: FULL_STATE_DICT
mixed_precision: 'no'
num_machines: 1
num_processes: 2
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_questions(tmp_path_factory.mktemp("world"))


def options(world: Path, out: Path, *more: str, model: Path) -> list[str]:
    """Of `train.rl`, from a model that is stored in bfloat16."""
    words = rl_command(world, out, "--max-steps", str(STEPS), "--save-steps", "1", algo="grpo")
    # A random model earns nothing; entropy is what moves it.
    words += ["--entropy-coef", "1", "--learning-rate", "1e-2", "--use-cpu", "--model", str(model)]
    return [*words[3:], *more]


def mark_first_step(metrics: Path) -> None:
    """A run that begins anew writes this line anew, and ends with the same weights all the same."""
    first, *more = read_metrics(metrics)
    lines = [json.dumps(each) for each in (first | {"loss": MARK}, *more)]
    metrics.write_text("\n".join(lines) + "\n", "utf-8")


@pytest.mark.parametrize(
    "kind",
    [
        "whole model in parts",
        pytest.param("adapter in one file", marks=pytest.mark.campaign),
    ],
)
def test_a_killed_run_goes_on_to_the_bit_and_leaves_an_ordinary_model(
    world: Path, tmp_path: Path, repository: Path, kind: str
) -> None:
    base, log = tmp_path / "base", tmp_path / "log.txt"
    start_model = load_policy(tiny_model_folder("qwen2.5-vl"), dtype="bfloat16", device="cpu")
    start_model.save_pretrained(base)
    for path in tiny_model_folder("qwen2.5-vl").iterdir():
        if not (base / path.name).exists():
            (base / path.name).write_bytes(path.read_bytes())
    if kind == "whole model in parts":
        launch, more = ("--use_fsdp", "--fsdp_version", "2", "--num_processes", "2"), ()
    else:
        config = tmp_path / "accelerate.yaml"
        config.write_text(CONFIG)
        launch, more = ("--config_file", str(config)), ("--lora-rank", "4")
    per_process = ("--ddp-backend", "gloo", "--per-device-train-batch-size", "3")
    whole, cut, alone = tmp_path / "whole", tmp_path / "cut", tmp_path / "alone"
    finish(
        [*launched("rl", *launch), *options(world, whole, *per_process, *more, model=base)],
        repository,
        log,
    )
    words = options(world, cut, *per_process, *more, model=base)
    kill_after(cut / "checkpoint-1", [*launched("rl", *launch), *words], repository, log)
    mark_first_step(cut / "metrics.jsonl")
    finish([*launched("rl", *launch), *words], repository, log)
    steps = read_metrics(cut / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert [step["loss"] == MARK for step in steps] == [True, False, False]
    saved = whole / "model" / "model.safetensors"
    assert same_weights(saved, cut / "model" / "model.safetensors")
    for folder in (cut / "model", cut / "adapter"):
        for path in folder.glob("*.safetensors"):
            path.unlink()
    assert "training has ended already" in finish(
        [*launched("rl", *launch), *words], repository, log
    )
    assert same_weights(saved, cut / "model" / "model.safetensors")
    done = run_rl(
        [sys.executable, "-m", "train.rl", *options(world, alone, *more, model=base)],
        tmp_path,
        repository,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    trained, wanted = load_policy(whole / "model"), load_policy(alone / "model")
    assert trained.dtype == wanted.dtype == torch.bfloat16
    config_of = [(path / "model" / "config.json").read_text("utf-8") for path in (whole, alone)]
    assert config_of[0] == config_of[1]
    assert {*load_file(saved)} == {*load_file(alone / "model" / "model.safetensors")}
    moved = 0
    start_weights, own = start_model.state_dict(), trained.state_dict()
    for name, value in wanted.state_dict().items():
        moved += not torch.equal(value, start_weights[name])
        # bfloat16 rounds what AdamW moved apart by some 1e-5
        torch.testing.assert_close(own[name], value, atol=1e-3, rtol=1e-2, msg=name)
    assert moved


def test_every_process_has_the_reference(world: Path, tmp_path: Path, repository: Path) -> None:
    """accelerate launch lets the first process alone read weights, and copies the policy's only."""
    out, log = tmp_path / "out", tmp_path / "log.txt"
    launch = launched("rl", "--use_fsdp", "--fsdp_version", "2", "--num_processes", "2")
    more = ("--ddp-backend", "gloo", "--per-device-train-batch-size", "3", "--max-steps", "2")
    words = options(world, out, *more, "--beta", "0.1", model=tiny_model_folder("qwen2.5-vl"))
    finish([*launch, *words], repository, log)
    first, second = read_metrics(out / "metrics.jsonl")
    assert abs(first["kl"]) < 1e-6, "nothing has been learned yet"
    assert 1e-6 < second["kl"] < 1


@pytest.mark.parametrize(
    ("launch", "more", "words"),
    [
        (("--use_fsdp",), (), "say --fsdp_version 2"),
        (("--multi_gpu",), ("--fsdp",), "accelerate made MULTI_CPU of it"),
    ],
)
def test_what_would_not_be_sharded_is_refused(
    world: Path,
    tmp_path: Path,
    repository: Path,
    launch: tuple[str, ...],
    more: tuple[str, ...],
    words: str,
) -> None:
    out, log = tmp_path / "out", tmp_path / "log.txt"
    given = options(
        world, out, "--ddp-backend", "gloo", *more, model=tiny_model_folder("qwen2.5-vl")
    )
    command = [*accelerate(*launch, "--num_processes", "2"), "-m", "train.rl", *given]
    process = start(command, repository, log)
    assert process.wait(timeout=300) != 0
    assert words in log.read_text("utf-8")
    assert not out.exists()
