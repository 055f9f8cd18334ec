"""Training that diverges stops at the first number that is not finite, in SFT and in RL."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.replays import RlWorld, rl_world
from helpers.rl_settings import settings
from helpers.training_world import small_world, tiny_model_folder

from train import sft
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.modeling.numerics import NotFiniteError
from train.trainers.checkpoint_files import damage_of, last_whole_checkpoint
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.sft_trainer import VideoSFTTrainer

pytestmark = pytest.mark.heavy


def sft_words(folder: Path, *more: str) -> list[str]:
    media, dataset = small_world(folder, num_rows=4)
    return [
        *("--model", str(tiny_model_folder("qwen2.5-vl")), "--dataset", str(dataset)),
        *("--media-root", str(media), "--output-dir", str(folder / "out")),
        *("--frame-cache", str(folder / "cache"), "--held-out-rows", "0", "--batch-size", "2"),
        *("--max-steps", "6", "--save-steps", "1", "--logging-steps", "1", *more),
    ]


def test_sft_that_diverges_ends_with_3_and_saves_nothing_that_is_spoiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers logs a loss of NaN as 0, so a model of NaN looked perfect."""
    words = sft_words(tmp_path, "--learning-rate", "1e18", "--max-grad-norm", "0")
    assert sft.main(words) == 3
    out = tmp_path / "out"
    said = capsys.readouterr().err
    assert "of step 2 is not finite: training has diverged" in said
    assert f"{out / 'checkpoint-1'} is from before that" in said
    assert not (out / "report.md").exists()
    assert not (out / "model.safetensors").exists()
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-1"]
    assert damage_of(out / "checkpoint-1") == ""


def test_infinite_gradients_of_one_step_end_sft(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = VideoSFTTrainer.training_step

    def spoiled(self: Any, *given: Any, **options: Any) -> Any:
        loss = step(self, *given, **options)
        if self.state.global_step == 2:
            next(self.model.parameters()).grad.view(-1)[0] = math.inf
        return loss

    monkeypatch.setattr(VideoSFTTrainer, "training_step", spoiled)
    assert sft.main(sft_words(tmp_path, "--save-total-limit", "1")) == 3
    said = capsys.readouterr().err
    assert "the gradients of step 3 are not finite" in said
    last = last_whole_checkpoint(tmp_path / "out")
    assert last is not None
    assert last.name == "checkpoint-2"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> RlWorld:
    return rl_world(tmp_path_factory.mktemp("clips"), num=3)


def rl_trainer(world: RlWorld, folder: Path, **more: Any) -> VideoGRPOTrainer:
    spec = parse_algo("grpo")
    given = {"per_device_train_batch_size": 3, "max_steps": 4, "max_completion_length": 6}
    given |= {"optim": "adamw_torch", "save_strategy": "steps", "save_steps": 1}
    return VideoGRPOTrainer(
        world.model(),
        settings(folder, spec.name, **given | more),
        world.rows,
        processor=world.processor,
        template=world.template,
        credit=CreditAssignment(spec, scale=True),
        rewarder=world.rewards(),
    )


def test_rl_that_diverges_stops_before_it_draws_from_nan(clips: RlWorld, tmp_path: Path) -> None:
    """Scores that are NaN chose a token that no vocabulary has."""
    one = rl_trainer(clips, tmp_path, learning_rate=1e30, max_grad_norm=0.0)
    with pytest.raises(NotFiniteError, match=r"scores of the next token are not finite|not finite"):
        one.train()
    assert all(damage_of(path) == "" for path in tmp_path.glob("checkpoint-*"))


def test_rl_refuses_weights_that_a_step_has_spoiled(clips: RlWorld, tmp_path: Path) -> None:
    one = rl_trainer(clips, tmp_path)

    def spoil(optimizer: Any, *_: Any) -> None:
        if one.state.global_step == 1:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].view(-1)[0] = math.nan

    one.create_optimizer()
    one.optimizer.register_step_post_hook(spoil)
    with pytest.raises(NotFiniteError, match="the weights are not finite after step 2, such as"):
        one.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]
