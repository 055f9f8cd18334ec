"""What each of two processes holds under FSDP2, as it is planned: by gloo, in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.measured_passes import PATCHES, Setting
from helpers.sharded import shard, spawn
from helpers.tiny_models import group

from train.modeling.packed_forward import group_logprobs
from train.modeling.sharding import whole_weights
from train.planning.job import Job, Prompt
from train.planning.memory import memory

SETTING = Setting("qwen2.5-vl", tied=False)


def local_bytes(tensors: Any) -> int:
    """Of this process's parts; gradients of a layer share one storage."""
    storages = [tensor.to_local().untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def hold(rank: int, folder: Path) -> None:
    """One step, and then the weights as a sampler finds them."""
    model = SETTING.model()
    for parameter in model.parameters():
        parameter.grad = None
    model = shard(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    (scores,) = group_logprobs(model, [group(SETTING.family, rank, (20, 20))])
    scores.logprobs.sum().backward()
    optimizer.step()
    states = [s for one in optimizer.state.values() for s in one.values() if s.ndim]
    found = {
        "weights": local_bytes(model.parameters()),
        "gradients": local_bytes(parameter.grad for parameter in trained),
        "optimizer": local_bytes(states),
    }
    with torch.no_grad(), whole_weights(model):
        found["gathered"] = sum(p.untyped_storage().nbytes() for p in model.parameters())
    torch.save(found, folder / f"{rank}.pt")


@pytest.mark.heavy
@pytest.mark.slow
def test_each_process_holds_its_planned_part(tmp_path: Path) -> None:
    spawn(hold, tmp_path)
    job = Job(
        sizes=SETTING.sizes(),
        prompt=Prompt(98, PATCHES),
        group_size=2,
        tokens=20,
        groups=1,
        groups_drawn=1,
        needs_reference=False,
        trains_tower=False,
        checkpoints=False,
        is_mixed=False,
        weight_bytes=4,
        lora_rank=0,
    )
    planned = dict(memory(job, "fsdp2", 2).parts.items())
    for rank in (0, 1):
        for name, size in torch.load(tmp_path / f"{rank}.pt").items():
            assert planned[name] == pytest.approx(size, rel=0.02), (rank, name)
