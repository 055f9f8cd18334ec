"""`python -m train.rl` as a command: it learns, tells what it did, and goes on after a kill."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch
from helpers.tiny_rl import read_metrics
from helpers.training_world import tiny_model_folder
from safetensors.torch import load_file

from sandbox.clips import main as render
from train.modeling.loading import load_policy, load_processor

STEPS, SAVE = 6, 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    options = ["--clips", "6", "--stills", "0", "--questions", "16", "--preset", "tiny"]
    assert render(["--out", str(folder), *options]) == 0
    return folder


def command(world: Path, out: Path, *more: str, algo: str = "pa-grpo+appo") -> list[str]:
    """Two groups of three short completions a step, a random model, the oracle as judge."""
    return [
        *(sys.executable, "-m", "train.rl", "--algo", algo),
        *("--model", str(tiny_model_folder("qwen2.5-vl")), "--output-dir", str(out)),
        *("--questions", str(world / "questions.json"), "--media-root", str(world)),
        *("--judge", "oracle:0", "--length-weight", "0", "--frame-cache", str(world / "cache")),
        *("--frames", "uniform:6", "--max-pixels", "3136", "--max-completion-length", "16"),
        *("--num-generations", "3", "--per-device-train-batch-size", "6"),
        *("--max-steps", str(STEPS), "--save-steps", str(SAVE), "--learning-rate", "1e-3"),
        *("--appo-tokens-per-frame", "4", "--pages-every", "2", "--no-gradient-checkpointing"),
        *more,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, capture_output=True, text=True, check=False, env=environment(), timeout=280
    )


def steps_of(out: Path) -> list[float | None]:
    return [line["step"] for line in read_metrics(out / "metrics.jsonl")]


@pytest.mark.slow
@pytest.mark.heavy
def test_a_run_tells_its_steps_and_leaves_a_model(world: Path, tmp_path: Path) -> None:
    done = run(*command(world, tmp_path, "--max-steps", "2", "--report-to", "tensorboard"))
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line for line in done.stderr.splitlines() if not re.match(r"[a-z0-9-]+: ", line)]
    assert [line[:10] for line in said] == ["step 1/2  ", "step 2/2  "], "a line a step, no more"
    assert "judge wait" in said[0]
    ended = done.stdout.splitlines()
    assert ended[0].startswith(f"the model is in {tmp_path / 'model'}, the report in ")
    assert ended[1].startswith("the judge oracle:0: ")
    assert ended[2].split(": ")[1].startswith("python -m train.evaluate --model ")
    assert len(ended) == 3
    report = json.loads((tmp_path / "report.json").read_text())
    assert [step for step, _ in report["curves"]["entropy"]] == [1, 2]
    index = (tmp_path / "pages" / "index.html").read_text()
    assert [f"step-00000{step}.html" in index for step in (1, 2, 3)] == [False, True, False]
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2]
    for key in ("loss", "kl", "rewards/reasoning/accuracy", "rewards/perception/format"):
        assert lines[0][key] is not None
    assert lines[0]["appo/weight"] == 1.0, "a random model is never right"
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert (tmp_path / "model" / "processor_config.json").is_file()
    assert "Rollouts of step 2" in (tmp_path / "pages" / "step-000002.html").read_text()
    records = (tmp_path / "rollouts" / "step-000002.jsonl").read_text().splitlines()
    assert len(json.loads(records[0])["rollouts"]) == 3
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    cards = {path.parent.name: path.read_text("utf-8") for path in tmp_path.rglob("README.md")}
    assert cards.keys() == {"model", "checkpoint-2"}
    assert not any("time machine" in card for card in cards.values())
    for stated in ("reinforcement learning (pa-grpo+appo)", "oracle:0", "2602.23823"):
        assert stated in cards["model"]
    (code,) = re.findall(r"```python\n(.*?)```", cards["model"], re.DOTALL)
    clip = sorted((world / "videos").glob("*.mp4"))[0]
    said: dict[str, Any] = {}
    exec(code.replace("clip.mp4", str(clip)), said)
    assert said["inputs"]["pixel_values_videos"].isfinite().all()
    with duckdb.connect(str(tmp_path / "judge-0.duckdb"), read_only=True) as ledger:
        assert ledger.execute("select count(*) from runs").fetchone() == (1,)
    again = run(*command(world, tmp_path, "--max-steps", "2", "--report-to", "tensorboard"))
    assert again.returncode == 0
    assert "training has ended already" in again.stderr
    other = run(*command(world, tmp_path, "--max-steps", "4", "--report-to", "tensorboard"))
    assert other.returncode == 2
    assert "--max-steps was 2, is now 4" in other.stderr


@pytest.mark.slow
@pytest.mark.heavy
def test_a_terminal_gets_a_table_that_grows_in_its_place(world: Path, tmp_path: Path) -> None:
    """`script` gives the command a terminal."""
    words = command(world, tmp_path / "out", "--max-steps", "2", "--pages-every", "0")
    done = run("script", "--quiet", "--return", "--command", shlex.join(words), "/dev/null")
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count("\x1b[2K") > 1, "the table of step 1 is erased for that of step 2"
    table = done.stdout.rpartition("judge wait")[2]
    assert "1/2" in table
    assert "2/2" in table
    assert "'loss'" not in done.stdout


@pytest.mark.heavy
@pytest.mark.slow
def test_lora_leaves_an_ordinary_model_that_was_trained(world: Path, tmp_path: Path) -> None:
    """And its adapter, from which nothing can start that needs a reference of its own."""
    # A random model earns nothing; entropy is what moves it.
    options = ("--lora-rank", "4", "--max-steps", "2", "--entropy-coef", "1")
    done = run(*command(world, tmp_path, *options, algo="pa-grpo"))
    assert done.returncode == 0, done.stderr[-3000:]
    model = tmp_path / "model"
    trained, start = (
        load_policy(folder, dtype="float32").state_dict()
        for folder in (model, tiny_model_folder("qwen2.5-vl"))
    )
    assert {*trained} == {*start}
    moved = {name for name in start if not torch.equal(trained[name], start[name])}
    assert moved
    assert all("language_model" in name for name in moved)
    assert (model / "prompt.md").is_file()
    adapter = load_policy(tmp_path / "adapter", dtype="float32").state_dict()
    for name in start:  # merged twice, in another order of additions
        torch.testing.assert_close(adapter[name], trained[name], atol=1e-6, rtol=1e-5)
    assert load_processor(tmp_path / "adapter").tokenizer is not None
    words = command(world, tmp_path / "next", "--model", str(tmp_path / "adapter"), algo="grpo")
    refused = run(*words)
    assert refused.returncode == 2
    assert "merge it into a whole model first" in refused.stderr


def interrupted(words: list[str], out: Path, number: signal.Signals, at: int) -> int:
    """The exit status of a run that is sent a signal once it has told step `at`."""
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    deadline = time.monotonic() + 240
    while at not in (steps_of(out) if (out / "metrics.jsonl").exists() else []):
        assert process.poll() is None, "it ended before the signal"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    return process.wait(timeout=240)


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_of_accelerate_train_together(world: Path, tmp_path: Path) -> None:
    """On CPUs, over gloo: a group each, a ledger each, one model."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    words = command(world, tmp_path, "--use-cpu", "--ddp-backend", "gloo")
    options = ["--max-steps", "2", "--per-device-train-batch-size", "3"]
    done = run(*launch, "--num_processes", "2", *words[1:], *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert steps_of(tmp_path) == [1, 2]
    for name in ("judge-0.duckdb", "judge-1.duckdb", "checkpoint-2/rng_state_1.pth"):
        assert (tmp_path / name).is_file(), name
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert lines[1]["epoch"] == 0.25, "two questions a step, of 16"
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_after_a_kill_or_ctrl_c_the_same_command_ends_in_the_same_weights(
    world: Path, tmp_path: Path
) -> None:
    """To the bit, on a CPU in float32; steps after the checkpoint are done and told again."""
    whole = tmp_path / "whole"
    assert run(*command(world, whole)).returncode == 0
    expected = load_file(whole / "model" / "model.safetensors")
    for name, number, status in (
        ("killed", signal.SIGKILL, -signal.SIGKILL),
        ("stopped", signal.SIGINT, 3),
    ):
        out = tmp_path / name
        words = command(world, out)
        assert interrupted(words, out, number, at=3) == status
        if name == "stopped":
            assert (out / "checkpoint-4" / "trainer_state.json").is_file()
        done = run(*words)
        assert done.returncode == 0, done.stderr[-3000:]
        assert steps_of(out) == list(range(1, STEPS + 1))
        found = load_file(out / "model" / "model.safetensors")
        assert found.keys() == expected.keys()
        assert all(found[key].equal(value) for key, value in expected.items()), name
        told = [read_metrics(folder / "metrics.jsonl") for folder in (out, whole)]
        for key in ("loss", "grad_norm", "rewards/reasoning/total", "length/completion"):
            assert [line[key] for line in told[0]] == [line[key] for line in told[1]]
