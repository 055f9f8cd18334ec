"""Counters of a call layer, for the live display."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from judges.backends.base import Usage

_WINDOW_SECONDS = 60


@dataclass
class CallStats:
    """What one call layer has done in this process.

    `calls` are calls that ended in a reply or a failure, `cached` those answered from the ledger,
    `merged` those that shared an identical call in flight, `attempts` requests that were sent.
    `cost_usd` leaves out what has no known price (`is_cost_known`).
    """

    concurrency: int
    is_cost_known: bool = True
    calls: int = 0
    failures: int = 0
    cached: int = 0
    merged: int = 0
    attempts: int = 0
    retries: int = 0
    rate_limited: int = 0
    in_flight: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float = 0.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _started: float = field(init=False, repr=False)
    _ends: deque[list[int]] = field(default_factory=deque, repr=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def count_usage(self, usage: Usage, cost_usd: float | None) -> None:
        """Add what an attempt used and cost."""
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cache_read_tokens += usage.cache_read_tokens
        self.cache_write_tokens += usage.cache_write_tokens
        self.cost_usd += cost_usd or 0.0

    def count_end(self, *, is_failure: bool) -> None:
        """A call has ended."""
        self.calls += 1
        self.failures += is_failure
        second = int(self.clock())
        if self._ends and self._ends[-1][0] == second:
            self._ends[-1][1] += 1
        else:
            self._ends.append([second, 1])
            self._forget_old(second)

    @property
    def calls_per_minute(self) -> float:
        """Calls that ended in the last minute, or since the start if that was later, per minute."""
        now = self.clock()
        self._forget_old(int(now))
        span = min(float(_WINDOW_SECONDS), max(1.0, now - self._started))
        return sum(count for _, count in self._ends) * 60 / span

    def _forget_old(self, second: int) -> None:
        while self._ends and self._ends[0][0] <= second - _WINDOW_SECONDS:
            self._ends.popleft()

    def as_json(self) -> dict[str, Any]:
        """For `progress.json`; `cost_usd` is null where a price is not known."""
        return {
            "calls": self.calls,
            "failures": self.failures,
            "cached": self.cached,
            "merged": self.merged,
            "attempts": self.attempts,
            "retries": self.retries,
            "rate_limited": self.rate_limited,
            "in_flight": self.in_flight,
            "concurrency": self.concurrency,
            "calls_per_minute": round(self.calls_per_minute, 1),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "cost_usd": self.cost_usd if self.is_cost_known else None,
        }
