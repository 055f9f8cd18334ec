"""A run that is cut off and goes on from its last checkpoint ends in the same weights."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.replays import RlWorld, rl_world
from helpers.rl_settings import settings
from helpers.training_world import tiny_model_folder

from media.sampling import FrameSpec
from sandbox.clips import main as render
from schemas.annotations.reader import read_questions
from schemas.questions import VideoQuestion
from train.algorithms.appo import AppoConfig
from train.algorithms.appo_weighting import AppoWeighting
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.data.frame_loader import FrameLoader
from train.modeling.loading import load_processor
from train.rewards.group_rewarder import GroupRewarder
from train.rewards.judge_client import JudgeClient
from train.rewards.segment_rewards import RewardConfig
from train.trainers.checkpoint_files import last_whole_checkpoint
from train.trainers.checkpoints import EpochSampler
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.step_report import StepReport
from train.trainers.trl_imports import RepeatSampler

pytestmark = pytest.mark.heavy

SIZE = 3


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> RlWorld:
    return rl_world(tmp_path_factory.mktemp("clips"), num=3)


def trainer(
    world: RlWorld,
    folder: Path,
    *,
    draws: bool = True,
    rewarder: Any = None,
    observe: Any = None,
    **more: Any,
) -> VideoGRPOTrainer:
    """AdamW, a group a step; with sampled completions, unless they are replayed."""
    spec = parse_algo("pa-grpo+appo")
    given: dict[str, Any] = {} if draws else {"rollout_source": world.replay(SIZE)}
    return VideoGRPOTrainer(
        world.model(),
        settings(
            folder,
            spec.name,
            **{
                "per_device_train_batch_size": SIZE,
                "max_steps": 8,
                "optim": "adamw_torch",
                "learning_rate": 1e-2,
                "save_strategy": "steps",
                "save_steps": 2,
                "max_completion_length": 12,
                "max_grad_norm": 1.0,
            }
            | more,
        ),
        world.rows,
        processor=world.processor,
        template=world.template,
        credit=CreditAssignment(
            spec, scale=True, weighting=AppoWeighting.of(AppoConfig(tokens_per_frame=4))
        ),
        rewarder=rewarder or world.rewards(),
        observe=observe,
        **given,
    )


def weights(one: VideoGRPOTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in one.model.state_dict().items()}


@pytest.mark.parametrize("iterations", [1, 2])
def test_resumed_weights_are_the_uninterrupted_ones_to_the_bit(
    clips: RlWorld, tmp_path: Path, iterations: int
) -> None:
    """Over an epoch's end: with three questions and a question a step, step 4 begins the second
    epoch; with two iterations a step later."""
    whole = trainer(clips, tmp_path / "whole", num_iterations=iterations)
    start = weights(whole)
    whole.train()
    for stop in (2, 6):
        folder = tmp_path / f"cut-{stop}"
        folder.mkdir()
        (tmp_path / "whole" / f"checkpoint-{stop}").rename(folder / f"checkpoint-{stop}")
        found = last_whole_checkpoint(folder)
        assert found is not None
        resumed = trainer(clips, folder, num_iterations=iterations)
        resumed.train(resume_from_checkpoint=str(found))
        assert resumed.state.global_step == whole.state.global_step == 8
        for name, value in weights(whole).items():
            assert torch.equal(weights(resumed)[name], value), name
    assert any(not torch.equal(weights(whole)[name], value) for name, value in start.items())


def test_a_resumed_run_has_its_verdicts_from_the_ledger(tmp_path: Path) -> None:
    """The oracle is asked about each observation once; after a resume about none again."""
    root = tmp_path / "world"
    rendered = ["--clips", "3", "--stills", "0", "--questions", "3", "--preset", "tiny"]
    assert render(["--out", str(root), *rendered]) == 0
    questions = [
        row for row in read_questions(root / "questions.json") if isinstance(row, VideoQuestion)
    ]
    loader = FrameLoader(root, spec=FrameSpec("uniform:6", 56 * 56), cache_dir=None)
    processor = load_processor(tiny_model_folder("qwen2.5-vl"))
    world = RlWorld(root, questions, loader, processor, "qwen2.5-vl")
    told: list[StepReport] = []

    def learned(checkpoint: Path | None) -> VideoGRPOTrainer:
        told.clear()
        ledger = tmp_path / "judge-0.duckdb"
        with JudgeClient("oracle:0", ledger_path=ledger, media_root=root) as judge:
            one = trainer(
                world,
                tmp_path / "run",
                draws=False,
                rewarder=GroupRewarder(world.template, RewardConfig(length_weight=0), judge),
                observe=lambda report: told.append(report) or {},
                max_steps=4,
            )
            one.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return one

    whole = learned(None)
    uses = [report.judge for report in told]
    assert sum(use.stats.calls for use in uses if use) > 0
    resumed = learned(tmp_path / "run" / "checkpoint-2")
    uses = [report.judge for report in told]
    assert [report.step for report in told] == [3, 4]
    assert sum(use.asked for use in uses if use) > 0
    assert sum(use.stats.calls for use in uses if use) == 0
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value), name
    loader.close()


def test_a_checkpoint_that_was_cut_off_is_passed_over(clips: RlWorld, tmp_path: Path) -> None:
    one = trainer(clips, tmp_path, draws=False, max_steps=4)
    one.train()
    newest = last_whole_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "checkpoint-4"
    state = newest / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:-20])
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert last_whole_checkpoint(tmp_path, num_processes=2) is None


def test_every_epoch_has_its_own_order_also_after_a_resume() -> None:
    def sampler() -> RepeatSampler:
        return RepeatSampler(range(7), mini_repeat_count=2, batch_size=1, shuffle=True, seed=3)

    plain = sampler()
    orders = [list(plain) for _ in range(3)]
    assert orders[0] != orders[1]
    for epoch in (0, 1, 2):
        resumed = EpochSampler(sampler(), epoch=partial(int, epoch))
        assert list(resumed) == orders[epoch]
        assert len(resumed) == len(plain)


def test_no_checkpoint_falls_inside_a_generation(clips: RlWorld, tmp_path: Path) -> None:
    one = trainer(clips, tmp_path, draws=False, max_steps=3, save_steps=1, num_iterations=2)
    with pytest.raises(RuntimeError, match="inside a generation"):
        one.train()
