"""The shared pass under distributed data parallelism: two processes, a group each."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.process_groups import leave_process_group
from helpers.tiny_models import FAMILIES, group, tiny_model
from trl.trainer.utils import add_fused_lm_head

from train.modeling.packed_forward import group_logprobs


def trained_copy(family: str) -> Any:
    model = tiny_model(family).train()
    model.gradient_checkpointing_enable()
    return model


def learn(rank: int, folder: Path) -> None:
    """One process: the averaged gradients of both families, saved by the first."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    for family in FAMILIES:
        gradients = gradients_of(family, rank)
        if rank == 0:
            torch.save(gradients, folder / f"{family}.pt")
    leave_process_group()


def gradients_of(family: str, rank: int) -> dict[str, torch.Tensor]:
    """This process' group through the wrapped model: gradients averaged over the processes."""
    model = trained_copy(family)
    add_fused_lm_head(model)  # as TRL's trainers do
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    own = group(family, rank, (5, 1, 9) if rank == 0 else (4, 8))
    (score,) = group_logprobs(wrapped, [own], frame_layers=2)
    score.logprobs.sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.heavy
@pytest.mark.slow
def test_two_processes_with_a_group_each_learn_as_one_with_both(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(learn, args=(tmp_path,), nprocs=2)
    for family in FAMILIES:
        model = trained_copy(family)
        scores = group_logprobs(model, [group(family, 0, (5, 1, 9)), group(family, 1, (4, 8))])
        loss = sum((score.logprobs.sum() for score in scores), torch.zeros(())) / 2
        loss.backward()
        averaged = torch.load(tmp_path / f"{family}.pt")
        for name, parameter in model.named_parameters():
            largest = parameter.grad.abs().max()
            # 1e-5: float32, two rows of other lengths
            assert (averaged[name] - parameter.grad).abs().max() <= 1e-5 * largest, name
        model.zero_grad()
        model.eval().gradient_checkpointing_disable()
