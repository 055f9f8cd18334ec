"""Checkpoints: the order of rows after a resume, saving and loading, cards, clean stops.

Which checkpoint a run goes on from is decided in `train.trainers.checkpoint_files`.
"""

import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import torch

from cli.config import UsageError
from cli.output_folder import full_disk_is_told
from judges.backends.model_folders import BrokenWeightsError, not_finite
from train.modeling.loading import load_weights
from train.modeling.lora import refuse_unfit_adapter
from train.modeling.numerics import NotFiniteError
from train.modeling.sharding import own_part, unwrapped, whole
from train.trainers.checkpoint_files import checkpoints
from train.trainers.distributed import any_process, sum_over_processes
from train.trainers.trl_imports import RepeatSampler, TrainerCallback


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


def after_divergence(error: NotFiniteError, folder: Path) -> str:
    """What a run that has diverged ends with: a sentence that names its last good checkpoint."""
    kept = checkpoints(folder)
    last = f"{kept[0]} is from before that" if kept else "no checkpoint had been written"
    return (
        f"{error}: training has diverged; {last}. With these options it would diverge again: begin"
        " anew in another --output-dir with a lower --learning-rate or --max-grad-norm"
    )


class CommonOverrides:
    """What our trainers change alike in TRL's; a mixin in front of them.

    Saved folders get our model card, never the stock text that TRL writes into the run folder and
    peft beside an adapter. Weights are loaded under the names that they were saved with. Training
    stops with NotFiniteError at the first loss, gradient or weight that is not finite. Nothing is
    sent to anybody.
    """

    write_card: Callable[[Path], None] | None = None
    """Writes the README.md of a folder with weights; None leaves such folders without one."""

    def create_model_card(
        self, model_name: str | None = None, dataset_name: str | None = None, tags: Any = None
    ) -> None:
        """Called by TRL for the run folder: a card is written where weights are saved instead."""

    def training_step(self, *args: Any, **options: Any) -> Any:
        """A micro-batch. What its loss is, is looked at once per optimizer step."""
        loss = super().training_step(*args, **options)  # type: ignore[misc]
        is_finite = loss.isfinite().all()
        self._is_loss_finite = is_finite & getattr(self, "_is_loss_finite", is_finite)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called before each optimizer step: refuses to take one that would spoil the weights."""
        trainer: Any = self
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        if isinstance(norm, torch.Tensor):
            norm = whole(norm)
        # Under float16 gradients that overflow are usual: the scaler leaves such a step out.
        has_norm = norm is not None and not trainer.args.fp16
        is_norm_bad = has_norm and not math.isfinite(float(norm))
        is_loss_bad = not bool(self._is_loss_finite)
        del self._is_loss_finite
        bad_loss, bad_norm = sum_over_processes([float(is_loss_bad), float(is_norm_bad)])
        step = trainer.state.global_step + 1
        if bad_loss:
            raise NotFiniteError(f"the loss of step {step} is not finite")
        if bad_norm:
            raise NotFiniteError(f"the gradients of step {step} are not finite")
        return norm

    def _maybe_log_save_evaluate(self, *args: Any, **options: Any) -> None:
        """Called after each optimizer step: nothing is saved of weights that are spoiled."""
        trainer: Any = self
        self._refuse_spoiled_weights(trainer.model)
        super()._maybe_log_save_evaluate(*args, **options)  # type: ignore[misc]

    def _refuse_spoiled_weights(self, model: Any) -> None:
        trainer: Any = self
        weights = model.named_parameters()
        learning = ((name, own_part(own)) for name, own in weights if own.requires_grad)
        if any_process(bool(bad := not_finite(learning))):
            where = f", such as {bad[0]}" if bad else ""
            raise NotFiniteError(
                f"the weights are not finite after step {trainer.state.global_step}{where}"
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trainer: Any = self
        folder = Path(trainer.args.output_dir)
        with full_disk_is_told(folder / f"checkpoint-{trainer.state.global_step}"):
            super()._save_checkpoint(model, trial)  # type: ignore[misc]

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        trainer: Any = self
        folder = Path(output_dir or trainer.args.output_dir)
        if state_dict is not None:  # gathered from processes, each tensor by itself
            tied = unwrapped(trainer.model).all_tied_weights_keys or {}
            state_dict |= {
                copy: state_dict[name] for copy, name in tied.items() if copy in state_dict
            }
        with full_disk_is_told(folder):
            super()._save(output_dir, state_dict)  # type: ignore[misc]
        (folder / "README.md").unlink(missing_ok=True)
        if self.write_card is not None:
            self.write_card(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        trainer: Any = self
        is_sharded = trainer.is_fsdp_enabled  # DeepSpeed loads by itself, or nothing is spread yet
        if is_sharded or hasattr(trainer.model, "peft_config"):
            if not is_sharded:
                try:
                    refuse_unfit_adapter(model or trainer.model, Path(resume_from_checkpoint))
                except BrokenWeightsError as error:
                    raise UsageError(str(error)) from error
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        else:
            load_weights(model or trainer.model, Path(resume_from_checkpoint))

    def _send_telemetry(self) -> None:
        """Nothing is sent anywhere."""


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
        if current_thread() is main_thread():  # elsewhere Python sets no handlers
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
