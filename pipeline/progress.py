"""Progress of a running build, on the terminal and in `OUT/progress.json` for `pipeline.status`.

Only one process can open the ledger, so other processes read this file instead. It is replaced
atomically about once a second.
"""

import json
import os
import time
from collections import Counter, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from cli.console import duration, output_console
from judges.backends.calls import CallStats
from schemas.questions import VideoQuestion
from schemas.samples import CoTSample, Reason, Rejection, Step
from schemas.serialization import one_line, write_text

PROGRESS_FILE = "progress.json"
_RATE_WINDOW_SECONDS = 60.0
_PLAIN_LINE_SECONDS = 10.0
_NEWEST_ROWS = 12  # in progress.json, for whoever watches
_SHOWN_CHARACTERS = 70
_LINE_CHARACTERS = 160

FunnelKey = tuple[
    str, str, str, str
]  # step ("accepted" included), reason, data source, problem type


class Progress:
    """Counts outcomes, writes `progress.json`, and prints a table (terminal) or lines (log)."""

    def __init__(
        self,
        out: Path,
        *,
        total: int,
        funnel: Counter[FunnelKey],
        stats: dict[str, CallStats],
        run_id: str,
        console: Console | None = None,
        blind_marks: Counter[str] | None = None,
    ) -> None:
        self._path = out / PROGRESS_FILE
        self._total = total
        self._funnel = funnel
        self._stats = stats
        self._run_id = run_id
        self._blind_marks = blind_marks
        self._started = time.monotonic()
        self._finished_at: deque[float] = deque()
        self._newest: deque[dict[str, Any]] = deque(maxlen=_NEWEST_ROWS)
        self._console = console or output_console(stderr=True)
        self._live: Live | None = None
        self._last_line = 0.0
        self.state = "running"
        self.note = ""

    @property
    def is_complete(self) -> bool:
        """Whether every question has its outcome."""
        return self._funnel.total() == self._total

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live = Live(self._table(), console=self._console, refresh_per_second=4)
            self._live.start()
        self.refresh()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            # Ctrl-C and cancellation are not failures.
            self.state = "failed" if isinstance(error, Exception) else "stopped"
        self.refresh()
        if self._live is not None:
            self._live.stop()

    def outcome(self, question: VideoQuestion, outcome: CoTSample | Rejection) -> None:
        """Count one finished question."""
        step, reason = (
            (outcome.step.value, outcome.reason.value)
            if isinstance(outcome, Rejection)
            else ("accepted", "")
        )
        self._funnel[step, reason, question.data_source, question.problem_type.value] += 1
        self._finished_at.append(time.monotonic())
        self._newest.append(
            {
                "row": question.row,
                "question_id": question.question_id,
                "question": one_line(question.problem)[:_SHOWN_CHARACTERS],
                "outcome": step,
                "reason": reason,
                "detail": outcome.detail if isinstance(outcome, Rejection) else "",
            }
        )

    def refresh(self) -> None:
        """Write `progress.json` and redraw."""
        write_text(self._path, json.dumps(self.snapshot(), indent=1) + "\n")
        if self._live is not None:
            self._live.update(self._table())
            return
        now = time.monotonic()
        if now - self._last_line >= _PLAIN_LINE_SECONDS or self.state != "running":
            self._last_line = now
            self._console.print(headline(self.snapshot()), soft_wrap=True)

    def snapshot(self) -> dict[str, Any]:
        """Everything in `progress.json`."""
        finished = self._funnel.total()
        rate = self._rows_per_second()
        left = self._total - finished
        return {
            "state": self.state,
            "note": self.note,
            "pid": os.getpid(),
            "run_id": self._run_id,
            "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._started, 1),
            "questions": self._total,
            "settled": finished,
            "accepted": sum(n for (step, *_), n in self._funnel.items() if step == "accepted"),
            "eta_seconds": round(left / rate) if rate and left else None,
            **({} if self._blind_marks is None else {"blind": dict(self._blind_marks)}),
            "newest": list(self._newest),
            "calls": {name: stats.as_json() for name, stats in self._stats.items()},
            "funnel": [
                {
                    "step": step,
                    "reason": reason,
                    "data_source": source,
                    "problem_type": problem_type,
                    "count": count,
                }
                for (step, reason, source, problem_type), count in sorted(self._funnel.items())
            ],
        }

    def _rows_per_second(self) -> float:
        now = time.monotonic()
        while self._finished_at and now - self._finished_at[0] > _RATE_WINDOW_SECONDS:
            self._finished_at.popleft()
        span = min(_RATE_WINDOW_SECONDS, now - self._started)
        return len(self._finished_at) / span if span else 0.0

    def _table(self) -> Group:
        return funnel_table(self.snapshot())


def headline(snapshot: dict[str, Any]) -> str:
    """One line: state, questions kept and rejected, calls, cost, time left."""
    calls = snapshot["calls"].values()
    per_minute = sum(call["calls_per_minute"] for call in calls)
    parts = [
        f"{snapshot['state']}: {snapshot['settled']:,} of {snapshot['questions']:,} finished",
        f"{snapshot['accepted']:,} kept",
        f"{snapshot['settled'] - snapshot['accepted']:,} rejected",
        f"{per_minute:,.0f} calls/min",
        *_dollars(snapshot),
    ]
    if retries := sum(call["retries"] for call in calls):
        parts.append(f"{retries:,} calls tried again")
    if snapshot["state"] == "running" and snapshot["eta_seconds"] is not None:
        parts.append(f"{duration(snapshot['eta_seconds'])} left")
    if snapshot["note"]:
        parts.append(snapshot["note"])
    return ", ".join(parts)


def funnel_table(snapshot: dict[str, Any]) -> Group:
    """The headline, then the funnel by step and reason."""
    table = Table()
    table.add_column("step")
    table.add_column("reason")
    table.add_column("questions", justify="right")
    table.add_column("share", justify="right")
    counts: Counter[tuple[str, str]] = Counter()
    for row in snapshot["funnel"]:
        counts[row["step"], row["reason"]] += row["count"]
    whole = max(1, snapshot["questions"])
    for step in Step:
        for reason in Reason:
            if count := counts[step.value, reason.value]:
                table.add_row(step.value, reason.value, f"{count:,}", f"{count / whole:.1%}")
    accepted = counts["accepted", ""]
    table.add_row("accepted", "", f"{accepted:,}", f"{accepted / whole:.1%}", style="bold")
    left = snapshot["questions"] - snapshot["settled"]
    if left:
        table.add_row("open", "", f"{left:,}", f"{left / whole:.1%}", style="dim")
    parts: list[RenderableType] = [headline(snapshot), table]
    if "blind" in snapshot:
        parts.append(blind_line(snapshot["blind"]))
    return Group(*parts)


def row_line(row: Mapping[str, Any]) -> str:
    """A finished question in one line: what became of it, and why."""
    why = f" ({row['reason']}: {one_line(row['detail'])})" if row["reason"] else ""
    return f"row {row['row']}: {row['outcome']}{why}: {row['question']}"[:_LINE_CHARACTERS]


def blind_line(marks: Mapping[str, int]) -> str:
    """What the text reader found about the questions so far."""
    asked = sum(marks.values())
    line = f"without the video {marks.get('answerable', 0):,} of {asked:,} questions are answered"
    if unscored := marks.get("unscored", 0):
        line += f"; for {unscored:,} the replies decide nothing"
    return line


def _dollars(snapshot: dict[str, Any]) -> list[str]:
    """What is known of the cost. Which prices are not known is said once, when a build begins."""
    costs = [call["cost_usd"] for call in snapshot["calls"].values()]
    known = [cost for cost in costs if cost is not None]
    if not known:
        return []
    rest = " without calls of unknown price" if len(known) < len(costs) else ""
    return [f"${sum(known):,.4f}{rest}"]
