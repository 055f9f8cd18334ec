"""Settings of a small GRPO run, and what its model had to learn from."""

from pathlib import Path
from typing import Any

from torch import Tensor
from trl import GRPOConfig

from train.algorithms.registry import parse_algo
from train.trainers.trl_imports import TrainerCallback

SIZE, PER_STEP = 3, 2  # rollouts of a group, groups of an update


def settings(folder: Path, algo: str, **more: Any) -> GRPOConfig:
    spec = parse_algo(algo)
    return GRPOConfig(
        **{
            "output_dir": str(folder),
            "loss_type": spec.loss_type,
            "beta": spec.beta,
            "epsilon": spec.epsilon,
            "epsilon_high": spec.epsilon_high,
            "scale_rewards": "group" if spec.scale else "none",
            "num_generations": SIZE,
            "per_device_train_batch_size": SIZE * PER_STEP,
            "max_completion_length": 64,
            "max_steps": 1,
            "learning_rate": 0.1,
            "max_grad_norm": 0.0,
            "optim": "sgd",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "bf16": False,
            "use_cpu": True,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
        }
        | more
    )


class Gradients(TrainerCallback):  # type: ignore[misc]
    """What the model has to learn from, before the optimizer moves."""

    def __init__(self) -> None:
        self.of: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.of = {n: p.grad.clone() for n, p in given["model"].named_parameters()}
