"""What a person sees of a run: a bar or log lines while it goes on, tables of counts at its end.

Counts only: whether the verdicts are right is the report's matter.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli.console import plain_table
from judges.audits.records import REAL, AuditVerdict, Verdict
from judges.backends.calls import CallStats

_PLAIN_LINE_SECONDS = 10.0


class RunProgress:
    """Counts the verdicts of one judge."""

    def __init__(self, console: Console, judge: str, total: int, stats: CallStats) -> None:
        self._console = console
        self._judge = judge
        self._total = total
        self._stats = stats
        self._done = 0
        self._unscored = 0
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(judge, total=total, figures="")

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._bar.stop()
        if not self._console.is_terminal:
            self._print_line()

    def count(self, *, is_unscored: bool) -> None:
        """Count one verdict."""
        self._done += 1
        self._unscored += is_unscored
        self._bar.update(self._task, completed=self._done, figures=self._figures())
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= _PLAIN_LINE_SECONDS:
            self._last_line = now
            self._print_line()

    def _figures(self) -> str:
        stats = self._stats
        dollars = f", ${stats.cost_usd:,.4f}" if stats.is_cost_known else ""
        return (
            f"{self._unscored} unscored, {stats.calls} calls, {stats.cached} from the cache"
            f"{dollars}"
        )

    def _print_line(self) -> None:
        line = f"{self._judge}: {self._done:,} of {self._total:,}, {self._figures()}"
        self._console.print(line, soft_wrap=True)


def summary_tables(verdicts: Sequence[AuditVerdict]) -> list[Table]:
    """One table per judge, one line in it per prompt and way of asking."""
    judges = sorted({verdict.judge for verdict in verdicts})
    return [_table(judge, [one for one in verdicts if one.judge == judge]) for judge in judges]


def _table(judge: str, verdicts: Sequence[AuditVerdict]) -> Table:
    groups: dict[tuple[str, str], list[AuditVerdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.variant, _way(verdict)].append(verdict)
    rows = []
    for (variant, way), group in sorted(groups.items()):
        counts = Counter(verdict.verdict for verdict in group)
        rows.append(
            (
                variant,
                way,
                *(f"{counts[word]:,}" for word in get_args(Verdict)),
                _per_thousand([verdict.cost_usd for verdict in group], 2),
                _per_thousand([verdict.seconds for verdict in group], 0),
            )
        )
    return plain_table(
        ("prompt", "asked", "yes", "no", "unscored", "$ / 1,000", "s / 1,000"),
        rows,
        num_texts=2,
        title=f"{judge}: verdicts in the sample, not weighted",
    )


def _way(verdict: AuditVerdict) -> str:
    if verdict.probe != REAL:
        return f"probe {verdict.probe}"
    if verdict.permutation:
        return "order of options" if verdict.permutation % 2 else "letters of options"
    return "as published"


def _per_thousand(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "not known"
    return f"{1000 * sum(known) / len(known):,.{digits}f}"
