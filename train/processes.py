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


def any_process(flag: bool) -> bool:
    """Whether any process says so. Every process must ask."""
    return sum_over_processes([float(flag)])[0] > 0


def gather_rows(row: Sequence[float]) -> list[list[float]]:
    """The row of each process, in order, of equally many numbers."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [list(row)]
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    width = len(row)
    place = [0.0] * (rank * width) + list(row) + [0.0] * ((size - rank - 1) * width)
    numbers = sum_over_processes(place)
    return [numbers[first : first + width] for first in range(0, size * width, width)]


def is_first_process() -> bool:
    """Whether this is the process that writes files."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return True
    return torch.distributed.get_rank() == 0


def wait_for_all_processes() -> None:
    """Go on when every process has come here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
