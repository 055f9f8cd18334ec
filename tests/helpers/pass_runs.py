"""Small runs of RL in passes of some completions: what they learn, and what they hold meanwhile."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.live_bytes import LiveBytes
from helpers.replays import RlWorld
from helpers.rl_settings import SIZE, settings
from torch import Tensor

from train.algorithms.appo import AppoConfig
from train.algorithms.appo_weighting import AppoWeighting
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import AlgoSpec, parse_algo
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.step_report import StepReport
from train.trainers.trl_imports import TrainerCallback


def weighting_of(spec: AlgoSpec) -> AppoWeighting | None:
    """APPO with few tokens for each frame, where the algorithm weights tokens."""
    return AppoWeighting.of(AppoConfig(tokens_per_frame=4)) if spec.weighting else None


class FirstGradients(TrainerCallback):  # type: ignore[misc]
    """What the model learns from in the first step."""

    def __init__(self) -> None:
        self.of: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if not self.of:
            self.of = {
                name: parameter.grad.clone()
                for name, parameter in given["model"].named_parameters()
                if parameter.grad is not None
            }


class PassRun:
    """A run whose passes hold at most `per_pass` completions; two steps of SGD unless told."""

    def __init__(
        self,
        world: RlWorld,
        folder: Path,
        algo: str,
        per_pass: int | None,
        *,
        freeze: bool = True,
        model: Any = None,
        given: dict[str, Any] | None = None,
        **trl: Any,
    ) -> None:
        spec, self.gradients = parse_algo(algo), FirstGradients()
        self.model = model or world.model()
        self.model.model.visual.requires_grad_(not freeze)
        self.reports: list[StepReport] = []
        self.widths: list[int] = []
        """Of rows that were forwarded to be learned from."""
        self.looks = 0
        """Forwards without gradient."""
        self.prompts: list[int] = []
        """Of each forward, how many it holds."""
        self.tower_runs = 0
        self.model.register_forward_pre_hook(self._look, with_kwargs=True)
        self.model.model.visual.register_forward_pre_hook(self._look_at_tower)
        self.trainer = VideoGRPOTrainer(
            self.model,
            settings(folder, algo, **{"learning_rate": 1.0, "max_steps": 2, **trl}),
            world.rows,
            processor=world.processor,
            template=world.template,
            credit=CreditAssignment(spec, scale=spec.scale, weighting=weighting_of(spec)),
            rewarder=world.rewards(),
            completions_per_pass=per_pass,
            observe=self._observe,
            callbacks=[self.gradients],
            **{"rollout_source": world.replay(SIZE), **(given or {})},
        )

    def train(self, **options: Any) -> "PassRun":
        """Train, and keep nothing of the trainer but its numbers."""
        self.trainer.train(**options)
        self.weights = {name: v.clone() for name, v in self.trainer.model.state_dict().items()}
        self.log = self.trainer.state.log_history
        return self

    def peak_bytes(self) -> int:
        """Train, and count the most bytes of tensors alive in a pass, its own weights excepted."""
        existing = [*self.model.parameters(), *self.model.buffers()]
        with LiveBytes(*existing) as live:
            self.trainer.train()
        return live.peak

    def _observe(self, report: StepReport) -> dict[str, float]:
        self.reports.append(report)
        return {}

    def _look(self, _: Any, __: Any, given: dict[str, Any]) -> None:
        if (layout := given.get("packed_layout")) is not None:
            self.prompts.append(len(layout.groups))
        if torch.is_grad_enabled():
            self.widths.append(given["input_ids"].shape[1])
        else:
            self.looks += 1

    def _look_at_tower(self, *_: Any) -> None:
        self.tower_runs += 1


def assert_same(parts: PassRun, whole: PassRun) -> None:
    """1e-6 beside gradients of more than 1e-2, for weights times the rate at which they learn:
    float32, sums in another order."""
    rate = max(1.0, whole.trainer.args.learning_rate)
    assert parts.gradients.of.keys() == whole.gradients.of.keys()
    assert max(float(gradient.abs().max()) for gradient in whole.gradients.of.values()) > 1e-2
    for name, gradient in whole.gradients.of.items():
        assert (parts.gradients.of[name] - gradient).abs().max() < 1e-6, name
    for name, value in whole.weights.items():
        assert (parts.weights[name] - value).abs().max() < 1e-6 * rate, name
    steps = [[entry for entry in run.log if "loss" in entry] for run in (parts, whole)]
    for one, other in zip(*steps, strict=True):
        assert one.keys() == other.keys()
        for key in set(other) - {"step_time", "epoch"}:
            assert one[key] == pytest.approx(other[key], rel=1e-4, abs=1e-6), key
    for told, expected in zip(parts.reports, whole.reports, strict=True):
        rows = [[scored.group.question.row for scored in each.groups] for each in (told, expected)]
        assert rows[0] == rows[1]
        for scored, wanted in zip(told.groups, expected.groups, strict=True):
            for name in ("advantages", "weights", "frame_attention", "crucial_frames"):
                mine, theirs = getattr(scored, name), getattr(wanted, name)
                assert (mine is None) == (theirs is None), name
                if theirs is not None:
                    assert (mine.float() - theirs.float()).abs().max() < 1e-5, name
