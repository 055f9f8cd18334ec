"""Progress of answers: a bar in a terminal, lines in a log file.

with AnswerProgress(len(questions), done=len(log)) as progress:
    progress.advance(answers=8, errors=1)
"""

import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.config import say
from cli.console import output_console

_PLAIN_LINE_SECONDS = 10.0


class AnswerProgress:
    """Counts answers, `done` of which an earlier run made. Use it in a `with` statement."""

    def __init__(self, total: int, done: int) -> None:
        self._console = output_console(stderr=True)
        self._total, self._before, self._done, self._errors = total, done, done, 0
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("answers"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("answers", total=total, completed=done, rate="")
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
        self._bar.update(self._task, completed=self._done, rate=self._rate())
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= _PLAIN_LINE_SECONDS:
            self._last_line = now
            self._print_line()

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        return f"{60 * (self._done - self._before) / seconds:,.1f} a minute, {self._errors} errors"

    def _print_line(self) -> None:
        line = f"answers: {self._done:,} of {self._total:,}, {self._rate()}"
        self._console.print(line, soft_wrap=True)
