"""What a person sees while a judge is asked: a bar in a terminal, lines in a log file."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from judges.backends.calls import CallStats

_PLAIN_LINE_SECONDS = 10.0


class RunProgress:
    """Counts settled verdicts of one judge."""

    def __init__(self, console: Console, judge: str, total: int, stats: CallStats) -> None:
        self._console = console
        self._judge = judge
        self._total = total
        self._stats = stats
        self._settled = 0
        self._unscored = 0
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(judge, total=total, told="")

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._bar.stop()
        if not self._console.is_terminal:
            self._print_line()

    def settled(self, *, is_unscored: bool) -> None:
        """Count one verdict."""
        self._settled += 1
        self._unscored += is_unscored
        self._bar.update(self._task, completed=self._settled, told=self._told())
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= _PLAIN_LINE_SECONDS:
            self._last_line = now
            self._print_line()

    def _told(self) -> str:
        stats = self._stats
        dollars = f"${stats.cost_usd:,.4f}" if stats.is_cost_known else "price not known"
        return (
            f"{self._unscored} unscored, {stats.calls} calls, {stats.cached} from the cache, "
            f"{dollars}"
        )

    def _print_line(self) -> None:
        line = f"{self._judge}: {self._settled:,} of {self._total:,}, {self._told()}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
