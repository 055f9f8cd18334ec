"""Batches that are prepared while the model computes, and the order of rows that foretells them."""

import threading
import time
from collections.abc import Sequence

import pytest
import torch

from train.data.sft_collator import BatchesAhead


class Preparations:
    """Prepares batches of their own numbers and remembers who asked."""

    def __init__(self) -> None:
        self.in_thread: list[tuple[int, ...]] = []
        self.in_main: list[tuple[int, ...]] = []

    def __call__(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        is_main = threading.current_thread() is threading.main_thread()
        (self.in_main if is_main else self.in_thread).append(tuple(numbers))
        return {"rows": torch.tensor(numbers)}


def take(ahead: BatchesAhead, *numbers: int) -> list[int]:
    taken: list[int] = ahead([{"row": number} for number in numbers])["rows"].tolist()
    return taken


def settled(prepared: Preparations, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(prepared.in_thread) < count and time.monotonic() < deadline:
        time.sleep(0.001)


def test_the_batches_that_come_next_are_prepared_meanwhile() -> None:
    prepared = Preparations()
    ahead = BatchesAhead(prepared, batch_size=2, num_ahead=2, num_processes=2)
    # This process takes batches 0, 2, 4 of the epoch: (5, 3), (6, 0), (9, 8).
    ahead.expect([5, 3, 1, 2, 6, 0, 7, 4, 9, 8])
    assert take(ahead, 5, 3) == [5, 3]
    settled(prepared, 2)
    assert prepared.in_main == [(5, 3)]
    assert prepared.in_thread == [(6, 0), (9, 8)]
    assert take(ahead, 6, 0) == [6, 0]
    assert take(ahead, 9, 8) == [9, 8]
    assert prepared.in_main == [(5, 3)]
    ahead.close()


def test_a_wrong_guess_costs_time_only() -> None:
    prepared = Preparations()
    ahead = BatchesAhead(prepared, batch_size=2, num_ahead=2)
    ahead.expect([0, 1, 2, 3, 4, 5, 6, 7])
    assert take(ahead, 0, 1) == [0, 1]
    assert take(ahead, 4, 5) == [4, 5]  # a resumed epoch jumps
    assert take(ahead, 6, 7) == [6, 7]
    assert take(ahead, 90, 91) == [90, 91]  # rows of another dataset
    ahead.close()


def test_an_error_in_the_thread_is_the_trainers() -> None:
    def prepare(numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        if 1 in numbers:
            raise ValueError("row 1")
        return {"rows": torch.tensor(numbers)}

    ahead = BatchesAhead(prepare, batch_size=1, num_ahead=1)
    ahead.expect([0, 1])
    take(ahead, 0)
    with pytest.raises(ValueError, match="row 1"):
        take(ahead, 1)
    ahead.close()


def test_the_order_of_rows_is_decided_by_seed_and_epoch_and_told() -> None:
    from train.trainers.sft_trainer import ShuffledRows

    told: list[Sequence[int]] = []
    rows = ShuffledRows(50, 3, told.append)
    first = list(rows)
    assert list(rows) == first  # asked again, as for a resumed epoch
    assert sorted(first) == list(range(50))
    rows.set_epoch(1)
    second = list(rows)
    assert second != first
    assert told == [first, first, second]
    later = ShuffledRows(50, 3, told.append)
    later.set_epoch(1)
    assert list(later) == second
    assert list(ShuffledRows(50, 4, told.append)) != first
