"""RL and fine-tuning under DeepSpeed's ZeRO-2 and ZeRO-3, by the real one in `.venv-engines`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from helpers.launched_runs import finish
from helpers.replays import rl_world
from helpers.sharded import free_port
from helpers.sharded_deepspeed import ZERO_3
from helpers.sharded_runs import CASES, learned, refuse_other_learning
from helpers.tiny_rl import read_metrics, render_questions, rl_command, run_rl
from helpers.training_world import small_world, tiny_model_folder
from helpers.vllm_servers import ENGINES, need_engines

from train.modeling.loading import load_policy
from train.recipes import FOLDER
from train.recipes import ZERO_3 as LAUNCH_FILE

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
slow, campaign = pytest.mark.slow, pytest.mark.campaign

PROGRAM = Path(__file__).parents[1] / "helpers" / "sharded_deepspeed.py"


@pytest.fixture(autouse=True)
def engines() -> None:
    need_engines()


def in_two_processes(what: str, stage: int, folder: Path, *names: str) -> None:
    rl_world(folder / "world", kind="mixed").loader.close()
    paths = f"{PROGRAM.parents[2]}{os.pathsep}{PROGRAM.parents[1]}"
    done = subprocess.run(
        [str(ENGINES / "bin" / "python"), str(PROGRAM), what, str(stage), str(folder), *names],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        timeout=450,  # a hang ends before the time of a mutation does
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        pytest.param(3, [*CASES], marks=slow, id="ZeRO-3"),
        pytest.param(2, ["reference", "weighted tokens", "accumulated"], marks=slow, id="ZeRO-2"),
        pytest.param(2, [*CASES], marks=campaign, id="ZeRO-2, every case"),
    ],
)
def test_every_kind_of_run_learns_what_one_process_learns(
    tmp_path: Path, stage: int, names: list[str]
) -> None:
    """Completions are drawn, and of other lengths in each process."""
    in_two_processes("learn", stage, tmp_path, *names)
    for name in names:
        case = CASES[name]
        with (world := rl_world(tmp_path / "world", kind=case.kind, family=case.family)).loader:
            alone = learned(case, world, tmp_path / "alone" / name, processes=1)
        for rank in (0, 1):
            refuse_other_learning(torch.load(tmp_path / f"{name}-{rank}.pt"), alone, name)


@pytest.mark.parametrize("stage", [pytest.param(3, marks=slow), pytest.param(2, marks=campaign)])
def test_a_resumed_run_ends_in_the_same_weights_to_the_bit(tmp_path: Path, stage: int) -> None:
    """With all weights in training, and with an adapter; a finished run's weights are read, too."""
    in_two_processes("resume", stage, tmp_path)


@campaign
@pytest.mark.parametrize("stage", [3, 2])
def test_in_bfloat16_what_is_summed_is_in_float32(tmp_path: Path, stage: int) -> None:
    """Log-probs, frequencies of positions, copies of weights, and sums of gradients."""
    in_two_processes("in_bfloat16", stage, tmp_path)


def launched(command: str, *launch: str) -> list[str]:
    words = ["launch", "--num_processes", "2", "--main_process_port", str(free_port()), *launch]
    return [str(ENGINES / "bin" / "accelerate"), *words, str(PROGRAM), command]


def by_recipe(folder: Path) -> tuple[str, ...]:
    """Without mixed precision, which a comparison would not see through."""
    launch = yaml.safe_load((FOLDER / LAUNCH_FILE).read_text("utf-8"))
    (folder / "zero3.yaml").write_text(yaml.safe_dump(launch | {"mixed_precision": "no"}))
    return ("--config_file", str(folder / "zero3.yaml"))


def by_file(folder: Path) -> tuple[str, ...]:
    (folder / "zero3.json").write_text(json.dumps(ZERO_3))
    return ("--use_deepspeed", "--deepspeed_config_file", str(folder / "zero3.json"))


def by_option(folder: Path) -> tuple[str, ...]:
    return ("--use_deepspeed", "--zero_stage", "2")


@pytest.mark.parametrize(
    "asked", [pytest.param(by_recipe, marks=slow), pytest.param(by_option, marks=campaign)]
)
def test_rl_with_a_reference_leaves_an_ordinary_model(
    tmp_path: Path, repository: Path, asked: Callable[[Path], tuple[str, ...]]
) -> None:
    world, whole, alone = tmp_path / "world", tmp_path / "whole", tmp_path / "alone"
    render_questions(world)
    start = tiny_model_folder("qwen2.5-vl")

    def options(out: Path, *more: str) -> list[str]:
        words = rl_command(world, out, "--max-steps", "2", "--model", str(start), algo="grpo")
        # A random model earns nothing; entropy is what moves it.
        words += ["--entropy-coef", "1", "--learning-rate", "1e-1", "--optim", "sgd"]
        return [*words[3:], "--beta", "0.1", *more]

    per_process = ("--ddp-backend", "gloo", "--per-device-train-batch-size", "3")
    words = [*launched("rl", *asked(tmp_path)), *options(whole, *per_process)]
    finish(words, repository, tmp_path / "log.txt", on_cpu=False)
    first, second = read_metrics(whole / "metrics.jsonl")
    assert abs(first["kl"]) < 1e-6, "nothing has been learned yet"
    assert 1e-6 < second["kl"] < 1
    words = [sys.executable, "-m", "train.rl", *options(alone, "--use-cpu")]
    done = run_rl(words, tmp_path, repository)
    assert done.returncode == 0, done.stderr[-3000:]
    same_learning(start, whole / "model", alone / "model")


@pytest.mark.parametrize(
    "asked", [pytest.param(by_file, marks=campaign), pytest.param(by_option, marks=campaign)]
)
def test_a_fine_tuned_adapter_is_merged(
    tmp_path: Path, repository: Path, asked: Callable[[Path], tuple[str, ...]]
) -> None:
    small_world(tmp_path, num_rows=8)
    start, whole, alone = tiny_model_folder("qwen2.5-vl"), tmp_path / "whole", tmp_path / "alone"

    def options(out: Path, *more: str) -> list[str]:
        return [
            "--model", str(start), "--dataset", str(tmp_path / "cot"),
            "--media-root", str(tmp_path / "media"), "--output-dir", str(out),
            "--frame-cache", str(tmp_path / "cache"), "--held-out-rows", "0",
            "--batch-size", "4", "--lora-rank", "2", "--optim", "sgd", "--learning-rate", "1",
            "--max-steps", "2", "--logging-steps", "1", "--max-grad-norm", "0.5", *more,
        ]  # fmt: skip

    words = [*launched("sft", *asked(tmp_path)), *options(whole, "--ddp-backend", "gloo")]
    finish(words, repository, tmp_path / "log.txt", on_cpu=False)
    words = [sys.executable, "-m", "train.sft", *options(alone, "--use-cpu")]
    done = run_rl(words, tmp_path, repository)
    assert done.returncode == 0, done.stderr[-3000:]
    same_learning(start, whole, alone)


def same_learning(start: Path, found: Path, wanted: Path) -> None:
    """Models on disk: equal within 1e-5, far beyond it away from where they began."""
    begun, one, other = (load_policy(each).state_dict() for each in (start, found, wanted))
    assert max(float((other[name] - value).abs().max()) for name, value in begun.items()) > 1e-3
    for name, value in other.items():
        assert float((one[name] - value).abs().max()) < 1e-5, name
