"""The processes that train together: which one this is, and sums over all of them.

One process alone needs no launcher and no process group: every function here then does without. The
launcher (`accelerate launch`, `torchrun`) puts their number into the environment, which is all that
the checks of options read; torch is imported only by what exchanges numbers.
"""

import os
from collections.abc import Sequence


def num_processes() -> int:
    """How many processes train together, as their launcher set it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def sum_over_processes(values: Sequence[float]) -> list[float]:
    """Each number summed over all processes. Every process must call it equally often."""
    if not _has_group():
        return list(values)
    import torch

    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    numbers = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(numbers)
    total: list[float] = numbers.tolist()
    return total


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process. Every process must call it equally often."""
    return sum_over_processes([float(flag)])[0] > 0


def gather_rows(row: Sequence[float]) -> list[list[float]]:
    """The row of each process, in order; all rows have the same length."""
    if not _has_group():
        return [list(row)]
    import torch

    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    width = len(row)
    place = [0.0] * (rank * width) + list(row) + [0.0] * ((size - rank - 1) * width)
    numbers = sum_over_processes(place)
    return [numbers[first : first + width] for first in range(0, size * width, width)]


def is_first_process() -> bool:
    """Whether this is the process that writes files."""
    if not _has_group():
        return True
    import torch

    return torch.distributed.get_rank() == 0


def wait_for_all_processes() -> None:
    """Return when every process has called this."""
    if _has_group():
        import torch

        torch.distributed.barrier()


def _has_group() -> bool:
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized()
