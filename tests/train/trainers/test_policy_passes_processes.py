"""Groups in parts on two processes teach what whole ones teach on one: DDP and FSDP2, by gloo."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pass_runs import PassRun
from helpers.replays import rl_world
from helpers.rl_settings import SIZE
from helpers.sharded import assert_sharded, lift_accelerates_refusal, spawn, whole
from torch import Tensor
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(600)]

ALGORITHMS = ("grpo", "pa-grpo", "pa-dapo+appo")
FSDP = {"fsdp": True, "fsdp_config": {"fsdp_version": 2, "cpu_ram_efficient_loading": False}}
ON_TWO = {"per_device_train_batch_size": SIZE, "ddp_backend": "gloo"}


def exchanged(counted: list[int], bucket: GradBucket) -> Future[Tensor]:
    """DDP's own sum over processes, counted."""
    if bucket.is_last():
        counted.append(bucket.index())
    return allreduce_hook(torch.distributed.group.WORLD, bucket)


def learn(rank: int, root: Path, wrapping: str) -> None:
    """Runs of two steps, a group in each process, two completions at a time."""
    sharding: dict[str, Any] = {}
    if wrapping == "fsdp2":
        lift_accelerates_refusal()
        sharding = FSDP
    with (world := rl_world(root / "world")).loader:
        for algo in ALGORITHMS:
            exchanges: list[int] = []

            def count(exchanges: list[int] = exchanges) -> None:
                if wrapping == "ddp":
                    run.trainer.model_wrapped.register_comm_hook(exchanges, exchanged)  # noqa: B023

            given = {"before_first_step": count}
            options = {**ON_TWO, **sharding}
            run = PassRun(world, root / f"{wrapping}-{algo}", algo, 2, given=given, **options)
            run.trainer.train()
            if wrapping == "fsdp2":
                assert_sharded(run.trainer.model)
            else:
                assert len(exchanges) == 2, "gradients are summed once a step, not in every pass"
            weights = {name: whole(v) for name, v in run.trainer.model.state_dict().items()}
            torch.save(weights, root / f"{wrapping}-{algo}-{rank}.pt")


@pytest.mark.parametrize("wrapping", ["ddp", "fsdp2"])
def test_two_processes_learn_from_parts_what_one_learns_from_groups(
    tmp_path: Path, wrapping: str
) -> None:
    """1e-6 beside changes of more than 1e-3: float32, sums in another order."""
    with (world := rl_world(tmp_path / "world")).loader:
        before = {name: value.clone() for name, value in world.model().state_dict().items()}
        alone = {
            algo: PassRun(world, tmp_path / f"alone-{algo}", algo, None).train().weights
            for algo in ALGORITHMS
        }
    spawn(learn, tmp_path, wrapping)
    for algo, expected in alone.items():
        assert max(float((expected[n] - v).abs().max()) for n, v in before.items()) > 1e-3
        for rank in (0, 1):
            found = torch.load(tmp_path / f"{wrapping}-{algo}-{rank}.pt")
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                assert (found[name] - value).abs().max() < 1e-6, (algo, rank, name)
