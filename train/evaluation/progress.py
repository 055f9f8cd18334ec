"""What a person sees while answers are made: a bar in a terminal, lines in a log file."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_LINE_SECONDS = 10.0


class AnswerProgress:
    """Counts answers, `done` of which an earlier run made. Use it in a `with` statement."""

    def __init__(self, total: int, done: int) -> None:
        self._console = Console(file=sys.stderr)
        self._total, self._before, self._done, self._errors = total, done, done, 0
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("answers"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("answers", total=total, completed=done, told="")
        if done:
            say(f"{done:,} of {total:,} answers are there already")

    def __enter__(self) -> "AnswerProgress":
        self._bar.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._bar.stop()
        if not self._console.is_terminal:
            self._print_line()

    def advance(self, answers: int, errors: int) -> None:
        """Count answers, `errors` of which could not be made."""
        self._done += answers
        self._errors += errors
        self._bar.update(self._task, completed=self._done, told=self._told())
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= _PLAIN_LINE_SECONDS:
            self._last_line = now
            self._print_line()

    def _told(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        return f"{60 * (self._done - self._before) / seconds:,.1f} a minute, {self._errors} errors"

    def _print_line(self) -> None:
        line = f"answers: {self._done:,} of {self._total:,}, {self._told()}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def say(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr, flush=True)
