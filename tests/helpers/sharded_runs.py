"""Small runs of the RL trainer whose weights are spread over processes, and what they learn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.replays import RlWorld
from helpers.rl_settings import settings
from helpers.sharded import whole
from torch import Tensor

from cli.config import Config
from train.algorithms.appo import AppoConfig
from train.algorithms.appo_weighting import AppoWeighting
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import AlgoSpec, parse_algo
from train.algorithms.token_weighting import TokenWeighting, TokenWeights, WeightingInputs
from train.modeling.families import QWEN2_5_VL
from train.modeling.lora import lora_config
from train.trainers.grpo_trainer import VideoGRPOTrainer

SIZE = 3


@dataclass(frozen=True)
class Case:
    algo: str
    family: str = "qwen2.5-vl"
    tied: bool = True
    lora: bool = False
    freeze: bool = True
    reads_head: bool = False
    kind: str = "video"
    trl: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "grpo": Case("grpo"),
    "tower trains, gradients are clipped": Case(
        "pa-grpo", freeze=False, trl={"max_grad_norm": 0.05, "gradient_checkpointing": True}
    ),
    "weighted tokens": Case("pa-dapo+appo", trl={"num_iterations": 2}),
    "weighting that reads the head": Case("grpo", reads_head=True),
    "head of its own": Case("pa-dapo+appo", family="qwen3-vl", tied=False),
    "adapter against its base": Case("pa-grpo+appo", lora=True, trl={"beta": 0.04}),
    "reference": Case("grpo", trl={"beta": 0.04}),
    "towers that are called as often as media need": Case("grpo", freeze=False, kind="mixed"),
    "accumulated": Case(
        "pa-grpo", family="qwen3-vl", trl={"gradient_accumulation_steps": 2, "max_grad_norm": 0.05}
    ),
}


class LargestProbability(TokenWeighting):
    """Tokens that were predicted with certainty learn more."""

    name = "largest"
    options = Config

    def weights(self, given: WeightingInputs) -> TokenWeights:
        scores = given.logprobs.hidden_states @ given.lm_head.weight.T
        return TokenWeights(1 + scores.softmax(dim=-1).amax(dim=-1))


def weighting_of(case: Case, spec: AlgoSpec) -> TokenWeighting | None:
    if case.reads_head:
        return LargestProbability(Config())
    return AppoWeighting.of(AppoConfig(tokens_per_frame=4)) if spec.weighting else None


def trainer(
    case: Case, world: RlWorld, folder: Path, *, processes: int, **more: Any
) -> VideoGRPOTrainer:
    spec = parse_algo(case.algo)
    if case.reads_head:
        spec = replace(spec, weighting=LargestProbability.name)
    torch.manual_seed(0)  # a fresh adapter
    model = world.model()
    if not case.tied:
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(1.5 * model.lm_head.weight.detach())
    model.model.visual.requires_grad_(not case.freeze)
    options = {
        "per_device_train_batch_size": SIZE * 2 // processes,
        "max_steps": 2,
        "learning_rate": 1.0,
        "max_completion_length": 12,
        **case.trl,
        **more,
    }
    return VideoGRPOTrainer(
        model,
        settings(folder, case.algo, **options),
        world.rows,
        processor=world.processor,
        template=world.template,
        credit=CreditAssignment(
            spec,
            scale=True,
            weighting=weighting_of(case, spec),
        ),
        rewarder=world.rewards(),
        peft_config=lora_config(4, QWEN2_5_VL) if case.lora else None,
    )


def weights(one: VideoGRPOTrainer) -> dict[str, Tensor]:
    """Copies; every process calls this."""
    return {name: whole(value) for name, value in one.model.state_dict(keep_vars=True).items()}


def learned(
    case: Case,
    world: RlWorld,
    folder: Path,
    *,
    processes: int,
    check: Callable[[VideoGRPOTrainer], None] = lambda _: None,
    **more: Any,
) -> dict[str, Any]:
    """Weights before and after a run, and its log. `check` sees the trainer at its end."""
    one = trainer(case, world, folder, processes=processes, **more)
    before = weights(one)
    one.train()
    check(one)
    return {"before": before, "after": weights(one), "log": one.state.log_history}


def refuse_other_learning(found: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> None:
    """Weights and logs equal: 1e-6 beside changes of more than 1e-3, float32 sums in another
    order."""
    changes = [wanted["after"][n] - value for n, value in wanted["before"].items()]
    assert max(float(change.abs().max()) for change in changes) > 1e-3, name
    for weight, value in wanted["after"].items():
        difference = float((found["after"][weight] - value).abs().max())
        assert difference < 1e-6, (name, weight, difference)
    for one, other in zip(found["log"], wanted["log"], strict=True):
        for key in {"loss", "grad_norm", "kl"} & {*other}:
            assert one[key] == pytest.approx(other[key], rel=1e-5, abs=1e-6), (name, key)
