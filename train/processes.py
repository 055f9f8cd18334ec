"""Sums over the processes that train together; one process alone needs none of it."""

from collections.abc import Sequence

import torch


def sum_over_processes(values: Sequence[float]) -> list[float]:
    """Each number added up over all processes. Every process must call it equally often."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(values)
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    numbers = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(numbers)
    total: list[float] = numbers.tolist()
    return total


def is_first_process() -> bool:
    """Whether this is the process that writes files."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return True
    return torch.distributed.get_rank() == 0


def wait_for_all_processes() -> None:
    """Go on when every process has come here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
