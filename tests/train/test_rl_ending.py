"""What `train.rl` saves at its end."""

from pathlib import Path

import pytest
import torch
from helpers.replays import rl_world
from helpers.rl_settings import settings
from helpers.training_world import tiny_model_folder
from safetensors.torch import load_file

from cli.config import read_config
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.modeling.loading import load_policy
from train.monitoring.model_card import ModelCard
from train.rl_ending import MODEL_FOLDER, save_model
from train.rl_options import TRL_DEFAULTS, RlConfig
from train.trainers.grpo_trainer import VideoGRPOTrainer

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize(
    ("wanted", "expected"), [("auto", torch.bfloat16), ("float32", torch.float32)]
)
def test_the_model_is_saved_in_the_format_that_it_came_in(
    tmp_path: Path, wanted: str, expected: torch.dtype
) -> None:
    base = tmp_path / "base"
    load_policy(tiny_model_folder("qwen2.5-vl"), dtype="bfloat16", device="cpu").save_pretrained(
        base
    )
    out, world, spec = tmp_path / "out", rl_world(tmp_path / "clips", num=2), parse_algo("grpo")
    words = ["--model", str(base), "--output-dir", str(out), "--algo", spec.name]
    words += ["--questions", "q.json", "--media-root", str(tmp_path), "--save-dtype", wanted]
    config = read_config(RlConfig, words, prog="train.rl", description="")
    trainer = VideoGRPOTrainer(
        load_policy(base, dtype="float32", device="cpu"),
        settings(out, spec.name),
        world.rows,
        processor=world.processor,
        template=world.template,
        credit=CreditAssignment(spec, scale=True),
        rewarder=world.rewards(),
    )
    save_model(trainer, config, world.processor, ModelCard.__new__(ModelCard))
    world.loader.close()
    saved = load_file(out / MODEL_FOLDER / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {expected}


def test_two_checkpoints_are_kept() -> None:
    """All checkpoints of a published run are 1.9 TB."""
    assert TRL_DEFAULTS["save_total_limit"] == 2
