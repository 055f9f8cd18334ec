"""`python -m train.rl` on a small world with a tiny random model: seconds for a run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from helpers.training_world import tiny_model_folder

from sandbox.clips import main as render


def render_questions(folder: Path) -> Path:
    """A world of six clips with sixteen questions under `folder`."""
    options = ["--clips", "6", "--stills", "0", "--questions", "16", "--preset", "tiny"]
    assert render(["--out", str(folder), *options]) == 0
    return folder


def rl_command(world: Path, out: Path, *more: str, algo: str) -> list[str]:
    """Two groups of three short completions a step, a random model, and no judge."""
    return [
        *(sys.executable, "-m", "train.rl", "--algo", algo),
        *("--model", str(tiny_model_folder("qwen2.5-vl")), "--output-dir", str(out)),
        *("--questions", str(world / "questions.json"), "--media-root", str(world)),
        *("--length-weight", "0", "--frame-cache", str(world / "cache")),
        *("--frames", "uniform:6", "--max-pixels", "3136", "--max-completion-length", "16"),
        *("--num-generations", "3", "--per-device-train-batch-size", "6"),
        *("--learning-rate", "1e-3", "--pages-every", "1", "--no-gradient-checkpointing"),
        *more,
    ]


def run_rl(words: list[str], folder: Path, repository: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, where a user's own files lie."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    return subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def rollouts_of_step(out: Path, step: int) -> list[dict[str, Any]]:
    """The records of a step's rollouts, over its groups."""
    lines = (out / "rollouts" / f"step-{step:06d}.jsonl").read_text("utf-8").splitlines()
    return [rollout for line in lines for rollout in json.loads(line)["rollouts"]]
