"""`accelerate launch` of `train.sft` with FSDP2: killed and resumed, the same model to the bit."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.launched_runs import finish, kill_after, launched, same_weights
from helpers.training_world import small_world, tiny_model_folder

from train.recipes import FOLDER
from train.trainers.checkpoint_files import last_whole_checkpoint

STEPS, KILLED_AFTER = 3, 1
MARK = 12345.0


def options(world: Path, out: Path, *more: str) -> list[str]:
    """Three steps of four rows over two processes, a checkpoint after each; AdamW."""
    return [
        "--model", str(tiny_model_folder("qwen2.5-vl")), "--dataset", str(world / "cot"),
        "--media-root", str(world / "media"), "--output-dir", str(out),
        "--frame-cache", str(world / "cache"), "--held-out-rows", "0", "--batch-size", "4",
        "--learning-rate", "1e-3", "--max-steps", str(STEPS), "--save-steps", "1",
        "--logging-steps", "1", "--use-cpu", "--ddp-backend", "gloo", *more,
    ]  # fmt: skip


def mark_first_loss(checkpoint: Path | None) -> None:
    """A run that begins anew ends with the same weights: this is how it would be noticed."""
    assert checkpoint is not None
    state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    state["log_history"][0]["loss"] = MARK
    (checkpoint / "trainer_state.json").write_text(json.dumps(state), "utf-8")


def losses(out: Path) -> list[float]:
    curve = json.loads((out / "report.json").read_text("utf-8"))["curves"]["loss"]
    return [loss for _, loss in curve]


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "more",
    [
        pytest.param((), id="all weights", marks=pytest.mark.slow),
        pytest.param(("--lora-rank", "2"), id="adapter", marks=pytest.mark.campaign),
    ],
)
def test_a_killed_run_goes_on_to_the_bit(
    tmp_path: Path, repository: Path, more: tuple[str, ...]
) -> None:
    """By the launch file of the recipes. The rows end within the second epoch."""
    small_world(tmp_path, num_rows=8)
    launch = yaml.safe_load((FOLDER / "accelerate" / "fsdp2_8gpu.yaml").read_text("utf-8"))
    launch |= {"use_cpu": True, "mixed_precision": "no", "num_processes": 2}
    (tmp_path / "cpu.yaml").write_text(yaml.safe_dump(launch))
    log, whole, cut = tmp_path / "log.txt", tmp_path / "whole", tmp_path / "cut"

    def words(out: Path) -> list[str]:
        start = launched("sft", "--config_file", str(tmp_path / "cpu.yaml"))
        return [*start, *options(tmp_path, out, *more)]

    finish(words(whole), repository, log)
    kill_after(cut / f"checkpoint-{KILLED_AFTER}", words(cut), repository, log)
    assert not (cut / "report.json").exists()
    mark_first_loss(last_whole_checkpoint(cut, num_processes=2))
    finish(words(cut), repository, log)
    for saved in ["model.safetensors", *(["adapter/adapter_model.safetensors"] if more else [])]:
        assert same_weights(whole / saved, cut / saved)
    assert losses(cut) == [MARK, *losses(whole)[1:]]
    assert len(losses(whole)) == STEPS
