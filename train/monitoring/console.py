"""What a training run prints: one line a step, or on a terminal a table that grows in its place.

    with StepConsole(RL_COLUMNS) as console:
        trainer = VideoGRPOTrainer(..., callbacks=[console])
        console.replace_bars_of(trainer)
        trainer.train()

A step's other numbers are in `metrics.jsonl` (RL) or in the report at the end (SFT).
"""

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.live import Live

from cli.config import say
from cli.console import duration, output_console, plain_table
from train.trainers.trl_imports import TrainerCallback

_SHOWN_STEPS = 15  # in the table of a terminal
_OWN_BARS = ("ProgressCallback", "PrinterCallback")  # of transformers


@dataclass(frozen=True)
class Column:
    """A number of each step: its title, the keys that may hold it (the first there counts), and
    its format."""

    title: str
    keys: tuple[str, ...]
    form: str

    def text(self, metrics: Mapping[str, Any]) -> str | None:
        """The step's number in words; None where the step has none."""
        value = next((metrics[key] for key in self.keys if metrics.get(key) is not None), None)
        return None if value is None else self.form.format(float(value))


RL_COLUMNS = (
    Column("perception", ("rewards/perception/total",), "{:.3f}"),
    Column("reasoning", ("rewards/reasoning/total",), "{:.3f}"),
    Column("accuracy", ("rewards/reasoning/accuracy",), "{:.1%}"),
    Column("tokens", ("length/completion",), "{:.0f}"),
    Column("KL", ("kl",), "{:.4f}"),
    Column("flat", ("groups/flat_both", "groups/flat_reasoning"), "{:.0%}"),
    Column("judge wait", ("judge/seconds_waited",), "{:.1f} s"),
)
SFT_COLUMNS = (
    Column("loss", ("loss",), "{:.4f}"),
    Column("token accuracy", ("mean_token_accuracy",), "{:.1%}"),
    Column("gradient", ("grad_norm",), "{:.2f}"),
    Column("learning rate", ("learning_rate",), "{:.2e}"),
)


class StepConsole(TrainerCallback):  # type: ignore[misc]
    """Prints each logged step of the first process, on stderr; as a context, it closes its table.

    `is_live` chooses the table instead of lines; by default where stderr is a terminal.
    """

    def __init__(self, columns: Sequence[Column], *, is_live: bool | None = None) -> None:
        self._columns = columns
        self._is_live = sys.stderr.isatty() if is_live is None else is_live
        self._live: Live | None = None
        self._rows: deque[tuple[str, ...]] = deque(maxlen=_SHOWN_STEPS)
        self._begun = self._last = 0.0  # seconds of the monotonic clock
        self._first_step = self._last_step = 0

    def replace_bars_of(self, trainer: Any) -> None:
        """Take the place of the trainer's own bar and its printed dictionaries."""
        if trainer.args.disable_tqdm:
            self._is_live = False
        for callback in [*trainer.callback_handler.callbacks]:
            if type(callback).__name__ in _OWN_BARS:
                trainer.remove_callback(callback)

    def __enter__(self) -> "StepConsole":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Called by transformers; a resumed run begins at its checkpoint's step."""
        self._begun = self._last = time.monotonic()
        self._first_step = self._last_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Called by transformers with each log; the summary at the end of training is no step."""
        metrics: Mapping[str, Any] = given.get("logs") or {}
        if "loss" not in metrics or not state.is_world_process_zero:
            return
        now, step = time.monotonic(), state.global_step
        per_step = (now - self._last) / max(step - self._last_step, 1)
        mean = (now - self._begun) / max(step - self._first_step, 1)
        self._last, self._last_step = now, step
        left = duration(mean * (state.max_steps - step)) if step < state.max_steps else "done"
        texts = {each.title: each.text(metrics) for each in self._columns}
        place = f"{step:>{len(str(state.max_steps))}}/{state.max_steps}"
        if self._is_live:
            numbers = [text or "–" for text in texts.values()]
            self._show((place, *numbers, f"{per_step:.1f} s", left))
            return
        numbers = [f"{title} {text}" for title, text in texts.items() if text is not None]
        end = left if step == state.max_steps else f"{left} left"
        say("  ".join([f"step {place}", *numbers, f"{per_step:.1f} s a step", end]))

    def _show(self, row: tuple[str, ...]) -> None:
        self._rows.append(row)
        titles = ("step", *(each.title for each in self._columns), "time", "left")
        table = plain_table(titles, self._rows, num_texts=0)
        if self._live is None:
            self._live = Live(console=output_console(stderr=True), auto_refresh=False)
            self._live.start()
        self._live.update(table, refresh=True)
