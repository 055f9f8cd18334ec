"""The trainer's own ways: adapters, both families, a tower that trains, a judge that is gone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.replays import FixedRewards, Known, RlWorld, rl_world
from helpers.rl_settings import Gradients, settings

from schemas.questions import VideoQuestion
from train.algorithms.appo import AppoConfig
from train.algorithms.appo_weighting import AppoWeighting
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.data.frame_loader import FrameLoader
from train.modeling.families import QWEN2_5_VL
from train.modeling.lora import lora_config
from train.rewards.judge_health import JudgeUnavailableError, JudgeUse
from train.rollouts.types import RolloutGroup
from train.trainers.checkpoint_files import last_whole_checkpoint
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.step_report import StepReport

pytestmark = pytest.mark.heavy

SIZE = 3


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> RlWorld:
    return rl_world(tmp_path_factory.mktemp("clips"), num=4)


def trainer(
    world: RlWorld,
    folder: Path,
    *,
    algo: str = "pa-grpo+appo",
    replayed: bool = True,
    model: Any = None,
    rewarder: Any = None,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> VideoGRPOTrainer:
    spec = parse_algo(algo)
    if replayed:
        more.setdefault("rollout_source", world.replay(SIZE))
    given = {"per_device_train_batch_size": SIZE, "max_steps": 2, "max_completion_length": 24}
    return VideoGRPOTrainer(
        model or world.model(),
        settings(folder, spec.name, **given | dict(options or {})),
        world.rows,
        processor=world.processor,
        template=world.template,
        credit=CreditAssignment(
            spec,
            scale=spec.scale,
            weighting=AppoWeighting.of(AppoConfig(tokens_per_frame=4)) if spec.weighting else None,
        ),
        rewarder=rewarder or world.rewards(),
        **more,
    )


def test_an_adapter_learns_against_the_model_without_it(clips: RlWorld, tmp_path: Path) -> None:
    """The first step's KL is exactly 0; the second's would be too if the adapter took part in the
    reference."""
    one = trainer(
        clips,
        tmp_path,
        peft_config=lora_config(4, QWEN2_5_VL),
        options={"learning_rate": 20.0, "seed": 0},
    )
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    one.train()
    first, second = (entry["kl"] for entry in one.state.log_history[:2])
    assert first == 0
    assert second > 1e-6
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, before[name]) or "lora_" in name
    learned = [n for n, v in one.model.state_dict().items() if not torch.equal(v, before[n])]
    assert learned
    assert not any("visual" in name for name in learned)


@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl"])
def test_shared_prompts_learn_what_copies_learn(tmp_path: Path, family: str, freeze: bool) -> None:
    """With the tower frozen (encoded once for all passes) and trained, with old log-probs, both
    families: 2e-5 of the largest gradient, float32."""
    world = rl_world(tmp_path, num=2, family=family)
    found = {}
    for share_prompts in (True, False):
        model, seen = world.model(), Gradients()
        model.model.visual.requires_grad_(not freeze)
        seen.on_pre_optimizer_step = lambda args, state, control, seen=seen, **given: (  # type: ignore[method-assign]
            seen.of.update(
                {n: p.grad.clone() for n, p in given["model"].named_parameters() if p.requires_grad}
            )
        )
        trainer(
            world,
            tmp_path / str(share_prompts),
            model=model,
            share_prompts=share_prompts,
            callbacks=[seen],
            options={
                "num_iterations": 2,
                "per_device_train_batch_size": 2 * SIZE,
                "learning_rate": 0.1,
            },
        ).train()
        found[share_prompts] = seen.of
    largest = max(float(gradient.abs().max()) for gradient in found[False].values())
    assert any("visual" in name for name in found[True]) is not freeze
    for name, gradient in found[False].items():
        assert (found[True][name] - gradient).abs().max() < 2e-5 * largest, name
    world.loader.close()


class Gone:
    """A reward source whose judge is there for some steps only."""

    def __init__(self, rewards: FixedRewards, steps: int) -> None:
        self.rewards, self.steps = rewards, steps

    def ask_ahead(self, question: VideoQuestion, text: str) -> bool:
        return True

    def start(self, groups: Sequence[RolloutGroup]) -> Any:
        if self.steps == 0:
            return self
        self.steps -= 1
        return Known([self.rewards._of(group) for group in groups])

    def wait(self) -> Any:
        raise JudgeUnavailableError("nobody answers")


def test_a_judge_that_is_gone_leaves_a_checkpoint_to_go_on_from(
    clips: RlWorld, tmp_path: Path
) -> None:
    """The stopped run, resumed when the judge is back, ends where an untroubled one ends."""
    options = {"max_steps": 4, "optim": "adamw_torch", "learning_rate": 1e-2}
    options |= {"save_strategy": "steps", "save_steps": 4}
    whole = trainer(clips, tmp_path / "whole", options=options, replayed=False)
    whole.train()
    folder = tmp_path / "stopped"
    rewards = Gone(clips.rewards(), steps=2)
    stopped = trainer(clips, folder, options=options, replayed=False, rewarder=rewards)
    with pytest.raises(JudgeUnavailableError):
        stopped.train()
    stopped.save_whole_step()
    checkpoint = last_whole_checkpoint(folder)
    assert checkpoint == folder / "checkpoint-2"
    resumed = trainer(clips, folder, options=options, replayed=False)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    expected = whole.model.state_dict()
    assert all(
        torch.equal(value, expected[name]) for name, value in resumed.model.state_dict().items()
    )


def test_every_step_is_told_once_with_the_groups_it_learned_from(
    clips: RlWorld, tmp_path: Path
) -> None:
    """Two micro-batches a step, two steps from each generation."""
    told: list[StepReport] = []

    def observe(report: StepReport) -> dict[str, float]:
        told.append(report)
        return {"mine": float(report.step)}

    options = {"gradient_accumulation_steps": 2, "num_iterations": 2, "max_steps": 4}
    one = trainer(clips, tmp_path, observe=observe, options=options)
    one.train()
    rows = [[scored.group.question.row for scored in report.groups] for report in told]
    assert [report.step for report in told] == [1, 2, 3, 4]
    assert rows[0] == rows[1]
    assert rows[2] == rows[3]
    assert sorted(rows[0] + rows[2]) == [0, 1, 2, 3]
    assert [report.judge is None for report in told] == [False, True, False, True]
    assert told[0].seconds["sampling"] > 0 == told[1].seconds["sampling"]
    for report in told:
        for scored in report.groups:
            assert scored.group.prompt == {}
            assert scored.weights is not None
            assert scored.advantages.shape == scored.weights.shape
    assert [entry["mine"] for entry in one.state.log_history[:4]] == [1, 2, 3, 4]


def test_generations_of_one_step_are_told_of_together(clips: RlWorld, tmp_path: Path) -> None:
    class Counting(FixedRewards):
        def start(self, groups: Sequence[RolloutGroup]) -> Any:
            known = super().start(groups)
            return Known(known.rewards, JudgeUse(asked=2, missing=1, seconds_waited=0.5))

    told: list[StepReport] = []

    def observe(report: StepReport) -> dict[str, float]:
        told.append(report)
        return {}

    options = {"gradient_accumulation_steps": 2, "steps_per_generation": 1}
    rewarder = Counting(clips.rewards().totals)
    trainer(clips, tmp_path, rewarder=rewarder, observe=observe, options=options).train()
    assert [len(report.groups) for report in told] == [2, 2]
    assert [report.judge for report in told] == [
        JudgeUse(asked=4, missing=2, seconds_waited=1.0)
    ] * 2


def test_a_drawn_placeholder_of_a_frame_is_a_word_like_any_other(
    clips: RlWorld, tmp_path: Path
) -> None:
    """No frame belongs to a video token in a completion."""
    video = clips.processor.video_token_id

    def draw(model: Any, prompts: Sequence[Any], **given: Any) -> list[list[torch.Tensor]]:
        return [[torch.tensor([50, video, 51]), torch.tensor([50, 2]), torch.tensor([video, 2])]]

    for share_prompts in (True, False):
        told: list[StepReport] = []
        one = trainer(
            clips,
            tmp_path / str(share_prompts),
            rollout_source=draw,
            share_prompts=share_prompts,
            observe=lambda report, told=told: told.append(report) or {},
            options={"max_steps": 1},
        )
        one.train()
        (scored,) = told[0].groups
        assert [each.is_truncated for each in scored.group.rollouts] == [True, False, False]
        assert 0 < one.state.log_history[0]["grad_norm"] < math.inf


def test_truncated_completions_are_left_out_of_the_loss_where_asked(
    clips: RlWorld, tmp_path: Path
) -> None:
    def draw(model: Any, prompts: Sequence[Any], **given: Any) -> list[list[torch.Tensor]]:
        return [[torch.tensor([50 + i, 51, 52]) for i in range(SIZE)] for _ in prompts]

    losses = {}
    for masked in (True, False):
        seen = Gradients()
        trainer(
            clips,
            tmp_path / str(masked),
            algo="dapo",
            rollout_source=draw,
            callbacks=[seen],
            options={"mask_truncated_completions": masked, "max_steps": 1},
        ).train()
        losses[masked] = max(float(gradient.abs().max()) for gradient in seen.of.values())
    assert losses[True] == 0 < losses[False]


def test_batches_that_cut_groups_and_evaluation_are_refused(clips: RlWorld, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a micro-batch holds whole groups"):
        trainer(
            clips,
            tmp_path,
            options={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
        )
    one = trainer(clips, tmp_path)
    one.model.eval()
    with pytest.raises(ValueError, match=r"score checkpoints by train\.evaluate"):
        one._prepare_inputs([])


def test_a_row_that_stands_in_is_drawn_apart_from_its_own_group(
    tmp_path: Path,
) -> None:
    """Row 0 cannot be read, row 1 is taken instead, and is asked for in the same generation: with
    one seed for both, the same completions came twice into a step."""
    (tmp_path / "clips").mkdir()
    world = rl_world(tmp_path / "clips", num=2)
    replay = world.replay(SIZE)
    (tmp_path / "clips" / "0.mp4").write_bytes(b"no video")
    world = RlWorld(
        world.root,
        world.questions,
        FrameLoader(world.root, spec=world.loader.spec, cache_dir=None),
        world.processor,
        world.family,
    )
    trainer(
        world,
        tmp_path / "out",
        replayed=False,
        rollout_source=replay,
        options={"per_device_train_batch_size": 2 * SIZE, "max_steps": 1},
    ).train()
    world.loader.close()
    assert len(replay.seeds) == 2
    assert len(set(replay.seeds)) == 2
