"""Two processes with a group each learn what one process with both groups learns."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.process_groups import leave_process_group
from helpers.replays import RlWorld, rl_world
from helpers.rl_settings import settings

from train.algorithms.appo import AppoConfig
from train.algorithms.appo_weighting import AppoWeighting
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.step_report import StepReport

SIZE = 3
ALGORITHMS = ("pa-grpo", "pa-dapo+appo")


def learn(rank: int, num_processes: int, port: int, root: Path) -> None:
    """One process of runs of two steps, saved: weights, and what it drew and was told."""
    torch.set_num_threads(1)
    if num_processes > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(num_processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    world = rl_world(root / "world")
    # Closed by an error too: decoders that live on would keep its process, and the other, waiting.
    with world.loader:
        for algo in ALGORITHMS:
            found = learned(world, root / f"run-{num_processes}-{algo}", algo, rank, num_processes)
            torch.save(found, root / f"{num_processes}-{algo}-{rank}.pt")
    if num_processes > 1:
        leave_process_group()


def learned(
    world: RlWorld, folder: Path, algo: str, rank: int, num_processes: int
) -> dict[str, Any]:
    spec = parse_algo(algo)
    told: list[dict[str, Any]] = []

    def observe(report: StepReport) -> dict[str, float]:
        told.append(
            {
                "step": report.step,
                "questions": [scored.group.question.row for scored in report.groups],
                "rows": report.gather([float(rank), 1.0]),
            }
        )
        return {}

    replay = world.replay(SIZE)
    trainer = VideoGRPOTrainer(
        world.model(),
        settings(
            folder,
            algo,
            per_device_train_batch_size=SIZE * 2 // num_processes,
            max_steps=2,
            learning_rate=1.0,
            num_iterations=2,
            ddp_backend="gloo" if num_processes > 1 else None,
        ),
        world.rows,
        processor=world.processor,
        template=world.template,
        credit=CreditAssignment(
            spec,
            scale=True,
            weighting=AppoWeighting.of(AppoConfig(tokens_per_frame=4)) if spec.weighting else None,
        ),
        rewarder=world.rewards(),
        rollout_source=replay,
        observe=observe,
    )
    trainer.train()
    return {
        "told": told,
        "seeds": replay.seeds,
        "loss": trainer.state.log_history[0].get("loss"),
        "weights": {name: value.clone() for name, value in trainer.model.state_dict().items()},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.heavy
@pytest.mark.slow
def test_two_processes_with_a_group_each_learn_as_one_with_both(tmp_path: Path) -> None:
    """Completions are of unequal length, so a loss that each process divides by its own tokens
    would show. 1e-6 beside changes of about 1e-2: float32, sums in another order."""
    before = rl_world(tmp_path / "world").model().state_dict()
    torch.multiprocessing.spawn(learn, args=(2, free_port(), tmp_path), nprocs=2)
    learn(0, 1, 0, tmp_path)
    for algo in ALGORITHMS:
        alone = torch.load(tmp_path / f"1-{algo}-0.pt")
        parts = [torch.load(tmp_path / f"2-{algo}-{rank}.pt") for rank in (0, 1)]
        changes = [alone["weights"][name] - value for name, value in before.items()]
        assert max(float(change.abs().max()) for change in changes) > 1e-3
        for name, value in alone["weights"].items():
            for part in parts:
                assert (part["weights"][name] - value).abs().max() < 1e-6, (algo, name)
        assert parts[0]["seeds"] + parts[1]["seeds"] == alone["seeds"]
        assert parts[0]["loss"] == pytest.approx(alone["loss"], abs=1e-6)
        for step, told in enumerate(alone["told"]):
            assert told["step"] == step + 1
            split = [part["told"][step] for part in parts]
            assert split[0]["questions"] + split[1]["questions"] == told["questions"]
            assert split[0]["rows"] == split[1]["rows"] == [[0.0, 1.0], [1.0, 1.0]]
