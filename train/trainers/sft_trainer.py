"""`trl.SFTTrainer` on rows that our collator prepares.

Overridden: the order of rows (ours, so that it is known ahead), fetching a step's batches (timed,
to report how long training waited for data), the log (with that time), how weights are spread over
processes (`train.trainers.sharded`), and what `train.trainers.checkpoints.CommonOverrides` changes
in all our trainers.
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils.data import Sampler

from train.data.sft_collator import BatchesAhead
from train.trainers.checkpoints import CommonOverrides
from train.trainers.distributed import sum_over_processes
from train.trainers.sharded import after_preparation, plan_sharding
from train.trainers.trl_imports import Dataset, SFTTrainer, TrainerCallback


def row_numbers(numbers: Sequence[int]) -> Any:
    """A dataset of row numbers: the collator knows the rows."""
    return Dataset.from_dict({"row": list(numbers)})


class ShuffledRows(Sampler[int]):
    """Places 0 to `num_rows` - 1 in an order that seed and epoch alone decide, in all processes."""

    def __init__(self, num_rows: int, seed: int, on_order: Callable[[Sequence[int]], None]) -> None:
        self._num_rows = num_rows
        self._seed = seed
        self._epoch = 0
        self._on_order = on_order

    def set_epoch(self, epoch: int) -> None:
        """Called by trainers before an epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._num_rows

    def __iter__(self) -> Iterator[int]:
        draw = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(self._num_rows, generator=draw).tolist()
        self._on_order(order)
        return iter(order)


class VideoSFTTrainer(CommonOverrides, SFTTrainer):  # type: ignore[misc]  # untyped in TRL
    """`rows_ahead` is the data collator. The loss is averaged over all trained tokens of a step,
    however it is split into micro-batches and processes. `write_card`: see `CommonOverrides`.
    """

    def __init__(
        self,
        *,
        rows_ahead: BatchesAhead,
        write_card: Callable[[Path], None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data_collator=rows_ahead, **options)
        self.write_card = write_card
        # Qwen-VL models do not take the count themselves; SFTTrainer's loss, which is used, does.
        self.model_accepts_loss_kwargs = True
        self._rows_ahead = rows_ahead
        self._waited_until_log = 0.0
        self._logged_at = time.perf_counter()
        self.total_waited_seconds = 0.0

    def create_accelerator_and_postprocess(self) -> None:
        """Called once by transformers: layers of the tower are not gathered one by one, where a
        process with pictures and videos would wait for one with videos alone."""
        super().create_accelerator_and_postprocess()
        plan_sharding(self)

    def _prepare_for_training(self, *args: Any) -> Any:
        prepared = super()._prepare_for_training(*args)
        after_preparation(self)
        return prepared

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        return ShuffledRows(len(dataset), seed, self._rows_ahead.expect)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The micro-batches of the next step."""
        started = time.perf_counter()
        fetched = super().get_batch_samples(*args, **kwargs)
        self.total_waited_seconds += time.perf_counter() - started
        return fetched

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With `data_wait_share`: how much of the time since the last log no data was there."""
        now = time.perf_counter()
        if "loss" in logs:
            waited = self.total_waited_seconds - self._waited_until_log
            logs["data_wait_share"] = waited / max(now - self._logged_at, 1e-9)
            self._waited_until_log, self._logged_at = self.total_waited_seconds, now
        super().log(logs, start_time)


class StopOnSignal(TrainerCallback):  # type: ignore[misc]  # untyped in transformers
    """`Ctrl-C` or SIGTERM: finish the step, save a checkpoint, stop. A second one stops at once.

    With several processes, all stop after the step in which one of them got the signal.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before = {
            name: signal.signal(name, self._on_signal) for name in (signal.SIGINT, signal.SIGTERM)
        }

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called after each optimiser step."""
        (num_asked,) = sum_over_processes([self.is_asked])
        self.is_asked = num_asked > 0
        if self.is_asked:
            control.should_save = control.should_training_stop = True

    def restore(self) -> None:
        """Give the signals back."""
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
