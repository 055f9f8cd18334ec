"""What makes a resumed training run the same run: order of rows, whole checkpoints, clean stops."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from train.processes import any_process
from train.trl_library import RepeatSampler, TrainerCallback


class EpochSampler:
    """TRL's order of rows, also in a run that resumes in a later epoch.

    TRL draws one permutation per epoch from one generator, whose state no checkpoint holds: a
    resumed run would begin again with the first epoch's order. Here the permutations of the epochs
    before `epoch()` (asked at the start of each epoch) are drawn and thrown away.
    """

    def __init__(self, sampler: RepeatSampler, *, epoch: Callable[[], int]) -> None:
        self._sampler, self._epoch = sampler, epoch

    def __iter__(self) -> Iterator[int]:
        if self._sampler.shuffle:
            self._sampler.generator.manual_seed(self._sampler.seed)
            for _ in range(self._epoch()):
                torch.randperm(self._sampler.num_samples, generator=self._sampler.generator)
        yield from self._sampler

    def __len__(self) -> int:
        return len(self._sampler)


def last_whole_checkpoint(folder: Path, *, num_processes: int = 1) -> Path | None:
    """The newest `checkpoint-N` under `folder` that was written to its end; None if there is none.

    The trainer's state is written last, so a folder without a readable one was cut off by a kill.
    """
    found = [
        (int(path.name.removeprefix("checkpoint-")), path)
        for path in folder.glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdecimal() and is_whole(path, num_processes)
    ]
    return max(found)[1] if found else None


def is_whole(checkpoint: Path, num_processes: int) -> bool:
    """Whether a checkpoint was written to its end by so many processes."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    names = (
        ["rng_state.pth"]
        if num_processes == 1
        else [f"rng_state_{rank}.pth" for rank in range(num_processes)]
    )
    return all((checkpoint / name).is_file() for name in names)


def load_weights(model: Any, checkpoint: Path) -> None:
    """Put the weights of a checkpoint into `model`, a transformers model without wrappers.

    transformers' Trainer (5.17) reads a checkpoint by the model's own names, but writes Qwen2.5-VL
    under those of the hub: it would go on, with a warning, from the weights that `model` has.
    """
    saved = type(model).from_pretrained(checkpoint, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())


class StopAtBoundary(TrainerCallback):  # type: ignore[misc]
    """Ctrl-C (or SIGTERM) saves at the next generation boundary and ends training.

    Also puts off a checkpoint that is due inside a generation to its end. A second Ctrl-C ends at
    once. Use it in a `with` statement around `trainer.train()`; `trainer` is set before that.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self.trainer: Any = None
        self._is_save_due = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopAtBoundary":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.is_requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_requested = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called after each optimizer step, before the trainer saves."""
        if state.global_step >= state.max_steps:
            return
        self._is_save_due |= control.should_save
        control.should_save = False
        if not self.trainer.is_at_generation_boundary:
            return
        stops = self.is_requested = any_process(self.is_requested)
        control.should_training_stop |= stops
        control.should_save = self._is_save_due or stops
        self._is_save_due = False
