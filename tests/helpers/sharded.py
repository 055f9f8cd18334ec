"""Training processes on one machine whose weights FSDP2 spreads over them, by gloo."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from helpers.process_groups import leave_process_group
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor


def spawn(task: Callable[..., None], *arguments: Any, processes: int = 2) -> None:
    """`task(rank, *arguments)` in processes that form a group."""
    port = free_port()
    torch.multiprocessing.spawn(
        _in_group, args=(processes, port, task, arguments), nprocs=processes
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _in_group(rank: int, size: int, port: int, task: Any, arguments: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    task(rank, *arguments)
    if torch.distributed.is_initialized():
        leave_process_group()


def shard(model: Any, *, policy: MixedPrecisionPolicy | None = None) -> Any:
    """`model` over all processes: each text layer by itself, the rest with the root.

    The root, too, is given back between forward and backward: nothing is there by luck.
    """
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": policy or MixedPrecisionPolicy()}
    for layer in model.model.language_model.layers:
        fully_shard(layer, **options)
    fully_shard(model, reshard_after_forward=True, **options)
    assert_sharded(model)
    return model


def assert_sharded(model: Any) -> None:
    """accelerate makes plain data parallelism of FSDP on CPUs, without a word."""
    assert isinstance(model, FSDPModule)
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor), name


def whole(tensor: Tensor) -> Tensor:
    """A copy of a tensor, gathered where it is sharded; every process calls this."""
    if hasattr(tensor, "ds_id"):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([tensor]):
            return tensor.detach().clone()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def lift_accelerates_refusal() -> None:
    """Let accelerate (1.15) shard on CPUs: it knows FSDP on accelerators only."""
    from accelerate import state
    from accelerate.utils import DistributedType

    inner = state.AcceleratorState.__init__

    def init(self: Any, *given: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        inner(self, *given, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin
            state.PartialState._shared_state["distributed_type"] = self.distributed_type

    state.AcceleratorState.__init__ = init
