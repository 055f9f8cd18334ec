"""Small question files over written clips, and `train.evaluate` runs of tiny models on them."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from helpers.training_world import tiny_model_folder, write_clip, write_still

from train.evaluate import main

OPTIONS = ["A. red", "B. blue", "C. green"]
NUM_CLIPS = 4


def write_world(folder: Path, num_questions: int = 8) -> Path:
    """Four clips, a still, and questions about them in turn (the last one about the still)."""
    for number in range(NUM_CLIPS):
        write_clip(folder / f"clip_{number}.mp4", seed=number)
    write_still(folder / "still.png")
    rows = []
    for number in range(num_questions):
        is_last = number == num_questions - 1
        path = "still.png" if is_last else f"clip_{number % NUM_CLIPS}.mp4"
        rows.append(
            {
                "problem_id": f"q{number}",
                "problem": f"Question {number}: which colour is first?",
                "options": OPTIONS,
                "solution": "ABC"[number % 3],
                "problem_type": "multiple choice",
                "data_source": f"source {number % 2}",
                "media": [{"kind": "image" if is_last else "video", "path": path}],
            }
        )
    return write_questions(folder / "questions.jsonl", rows)


def write_questions(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A question file of our own format."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a question file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def arguments(family: str, questions: Path, out: Path, *more: str) -> list[str]:
    """Options of a small, quick evaluation."""
    return [
        "--model", str(tiny_model_folder(family)), "--questions", str(questions),
        "--media-root", str(questions.parent), "--out", str(out), "--frames", "uniform:4",
        "--max-pixels", str(56 * 56), "--max-new-tokens", "12", "--batch-size", "3",
        "--frame-cache", str(out.parent / "frames"), "--device", "cpu", *more,
    ]  # fmt: skip


def command(*options: str) -> list[str]:
    """The command as a user starts it."""
    return [sys.executable, "-m", "train.evaluate", *options]


def environment() -> dict[str, str]:
    """One thread, nothing from the hub, caches beside the test."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def evaluate(*options: str) -> int:
    """The command in this process: its exit status."""
    return main(list(options))


def answers_of(out: Path) -> list[dict[str, Any]]:
    """The rows of predictions.parquet."""
    return pq.read_table(out / "predictions.parquet").to_pylist()


def outputs_of(out: Path) -> dict[str, str]:
    """Raw replies by problem id, in the file's order."""
    return {row["problem_id"]: row["output"] for row in answers_of(out)}


def report_of(out: Path) -> dict[str, Any]:
    """report.json."""
    found: dict[str, Any] = json.loads((out / "report.json").read_text("utf-8"))
    return found
