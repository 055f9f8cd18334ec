"""Groups that are forwarded in parts teach what whole ones teach, with less memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.replays import RlWorld, rl_world
from helpers.rl_settings import SIZE, Gradients, settings
from torch import Tensor

from train.algorithms.appo import AppoConfig
from train.algorithms.appo_weighting import AppoWeighting
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.step_report import StepReport

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RlWorld]:
    world = rl_world(tmp_path_factory.mktemp("clips"), num=4)
    with world.loader:
        yield world


class Learned:
    """A run of two steps: gradients before the first, weights behind the last, and its log."""

    def __init__(
        self,
        world: RlWorld,
        folder: Path,
        algo: str,
        per_pass: int | None,
        *,
        freeze: bool = True,
        **more: Any,
    ) -> None:
        spec, seen = parse_algo(algo), Gradients()
        model = world.model()
        model.model.visual.requires_grad_(not freeze)
        self.first: dict[str, Tensor] = {}
        self.told: list[StepReport] = []
        self.widths: list[int] = []
        self.tower_runs = 0

        def first_gradients(args: Any, state: Any, control: Any, **given: Any) -> None:
            if not self.first:
                self.first = {
                    name: parameter.grad.clone()
                    for name, parameter in given["model"].named_parameters()
                    if parameter.grad is not None
                }

        seen.on_pre_optimizer_step = first_gradients  # type: ignore[method-assign]

        def observe(report: StepReport) -> dict[str, float]:
            self.told.append(report)
            return {}

        trainer = VideoGRPOTrainer(
            model,
            settings(folder, algo, **{"learning_rate": 1.0, "max_steps": 2, **more}),
            world.rows,
            processor=world.processor,
            template=world.template,
            credit=CreditAssignment(spec, scale=spec.scale, weighting=weighting(spec)),
            rewarder=world.rewards(),
            rollout_source=world.replay(SIZE),
            completions_per_pass=per_pass,
            observe=observe,
            callbacks=[seen],
        )

        def look(_: Any, __: Any, given: dict[str, Any]) -> None:
            if torch.is_grad_enabled():
                self.widths.append(given["input_ids"].shape[1])

        def tower(*_: Any) -> None:
            self.tower_runs += 1

        model.register_forward_pre_hook(look, with_kwargs=True)
        model.model.visual.register_forward_pre_hook(tower)
        trainer.train()
        self.weights = {name: value.clone() for name, value in model.state_dict().items()}
        self.log = trainer.state.log_history


def weighting(spec: Any) -> Any:
    return AppoWeighting.of(AppoConfig(tokens_per_frame=4)) if spec.weighting else None


def assert_same(parts: Learned, whole: Learned) -> None:
    """1e-6 beside gradients of more than 1e-2: float32, sums in another order."""
    assert parts.first.keys() == whole.first.keys()
    assert max(float(gradient.abs().max()) for gradient in whole.first.values()) > 1e-2
    for name, gradient in whole.first.items():
        assert (parts.first[name] - gradient).abs().max() < 1e-6, name
    for name, value in whole.weights.items():
        assert (parts.weights[name] - value).abs().max() < 1e-6, name
    for one, other in zip(parts.log[:2], whole.log[:2], strict=True):
        assert one.keys() == other.keys()
        for key in set(other) - {"step_time", "epoch"}:
            assert one[key] == pytest.approx(other[key], rel=1e-4, abs=1e-6), key
    for told, expected in zip(parts.told, whole.told, strict=True):
        rows = [[scored.group.question.row for scored in each.groups] for each in (told, expected)]
        assert rows[0] == rows[1]
        for scored, wanted in zip(told.groups, expected.groups, strict=True):
            for name in ("advantages", "weights", "frame_attention", "crucial_frames"):
                mine, theirs = getattr(scored, name), getattr(wanted, name)
                assert (mine is None) == (theirs is None), name
                if theirs is not None:
                    assert (mine.float() - theirs.float()).abs().max() < 1e-5, name


CASES = {
    "grpo": ("grpo", {}),
    "a part of each segment's advantage": ("pa-grpo", {"beta": 0.04}),
    "weights of a group": ("pa-dapo+appo", {}),
    "updates between sampling and learning": ("pa-dapo+appo", {"num_iterations": 2}),
    "accumulated": (
        "pa-dapo+appo",
        {"per_device_train_batch_size": SIZE, "gradient_accumulation_steps": 2},
    ),
    "learned from twice in a step": (
        "pa-grpo+appo",
        {"gradient_accumulation_steps": 2, "steps_per_generation": 1, "num_iterations": 2},
    ),
    "a mean over a micro-batch's tokens": ("grpo", {"loss_type": "bnpo", "beta": 0.1}),
    "a reward of entropy": ("dapo", {"entropy_coef": 0.1}),
    "tokens of high entropy": ("dapo", {"top_entropy_quantile": 0.4}),
    "entropy that is held": (
        "grpo",
        {
            "use_adaptive_entropy": True,
            "entropy_coef": 0.2,
            "entropy_target": 100.0,
            "gradient_accumulation_steps": 2,
            "per_device_train_batch_size": SIZE,
        },
    ),
    "ratios of whole completions": ("grpo", {"importance_sampling_level": "sequence"}),
    "layers computed again": ("pa-dapo+appo", {"gradient_checkpointing": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_parts_of_groups_learn_what_groups_learn(clips: RlWorld, tmp_path: Path, case: str) -> None:
    """Two groups of three completions of unequal length, two at a time: parts of two and of one."""
    algo, options = CASES[case]
    whole = Learned(clips, tmp_path / "whole", algo, None, **options)
    parts = Learned(clips, tmp_path / "parts", algo, 2, **options)
    assert_same(parts, whole)
    assert max(parts.widths) < max(whole.widths)
