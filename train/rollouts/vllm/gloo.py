"""Weights over gloo: the group of a trainer and the workers of a vLLM server on CPUs.

Needs torch alone: the trainer's side runs without vLLM. The default process group stays as it is.
"""

from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

_MINUTES = 5
BACKEND = "gloo"


def gloo_group(host: str, port: int, *, rank: int, size: int) -> Any:
    """The group of `size` processes that meet at `host`:`port`; rank 0 is the trainer."""
    limit = timedelta(minutes=_MINUTES)
    store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
        host, port, size, is_master=rank == 0, timeout=limit, wait_for_workers=False
    )
    named = torch.distributed.PrefixStore(  # type: ignore[attr-defined]
        "p2r-weights", store
    )
    return torch.distributed.ProcessGroupGloo(named, rank, size, limit)


def broadcast(group: Any, tensor: Tensor) -> None:
    """Fill `tensor` in every process with that of rank 0; returns when it is there."""
    options = torch.distributed.BroadcastOptions()
    options.rootRank = 0
    group.broadcast([tensor], options).wait()
