"""How many calls of one backend may be in flight, and when the next may start; first come first.

Concurrency follows AIMD: it halves on overload, once per congestion event, and grows again by an
eighth of the maximum per round of successes. A server's Retry-After stops all new calls. Optional
rate limits per minute are token buckets that hold one second's worth.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from judges.backends.budget import StopRequested

Clock = Callable[[], float]

_MIN_TIMER_SECONDS = 0.001


@dataclass
class Slot:
    """Permission for one attempt in flight. `tokens_used` corrects its worst case afterwards."""

    started: float
    worst_case_tokens: int
    tokens_used: int | None = None


class _Bucket:
    """Holds one second's worth, and refills so that no minute lets more than `per_minute` through.

    The level may go below zero: a request larger than the bucket passes, and is made up for later.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self.capacity = max(1.0, per_minute / 60)
        self.per_second = (per_minute - (self.capacity - 1)) / 60
        self.level = self.capacity
        self.filled_at = now

    def seconds_until(self, amount: float, now: float) -> float:
        self._fill(now)
        missing = min(amount, self.capacity) - self.level
        return 0.0 if missing <= 1e-9 else missing / self.per_second

    def take(self, amount: float, now: float) -> None:
        self._fill(now)
        self.level = min(self.capacity, self.level - amount)

    def _fill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + (now - self.filled_at) * self.per_second)
        self.filled_at = now


class Limiter:
    """Slots for attempts. Each is given back with `release`, whatever happened."""

    def __init__(
        self,
        max_concurrency: int,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._clock = clock
        self._max = max_concurrency
        self._limit = float(max_concurrency)
        self._step = max(1.0, max_concurrency / 8)
        self._in_flight = 0
        self._waiting: deque[tuple[int, asyncio.Future[Slot]]] = deque()
        self._paused_until = -math.inf
        self._decreased_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._stopped_because: str | None = None
        now = clock()
        self._requests = _Bucket(requests_per_minute, now) if requests_per_minute else None
        self._tokens = _Bucket(tokens_per_minute, now) if tokens_per_minute else None

    @property
    def concurrency(self) -> int:
        """How many attempts may be in flight now."""
        return int(self._limit)

    @property
    def in_flight(self) -> int:
        """Attempts in flight now."""
        return self._in_flight

    async def acquire(self, tokens: int) -> Slot:
        """Wait for a slot for a request of at most `tokens`. Raises StopRequested after `stop`."""
        if self._stopped_because is not None:
            raise StopRequested(self._stopped_because)
        if not self._waiting:
            now = self._clock()
            if self._seconds_until_free(tokens, now) == 0:
                return self._grant(tokens, now)
        granted: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append((tokens, granted))
        self._serve()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.release(granted.result())
            raise

    def release(self, slot: Slot) -> None:
        """Give a slot back."""
        self._in_flight -= 1
        if self._tokens is not None and slot.tokens_used is not None:
            self._tokens.take(slot.tokens_used - slot.worst_case_tokens, self._clock())
        self._serve()

    def succeeded(self) -> None:
        """A reply came: allow a little more."""
        if self._limit < self._max:
            self._limit = min(float(self._max), self._limit + self._step / self._limit)

    def overloaded(self, slot: Slot) -> None:
        """Halve the concurrency, unless this attempt began before the last time it was halved."""
        if slot.started > self._decreased_at:
            self._decreased_at = self._clock()
            self._limit = max(1.0, self._limit / 2)

    def pause(self, seconds: float) -> None:
        """Start nothing for this many seconds."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def stop(self, because: str) -> None:
        """All waiting and all further callers get StopRequested."""
        self._stopped_because = because
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            _, granted = self._waiting.popleft()
            if not granted.done():
                granted.set_exception(StopRequested(because))

    def _grant(self, tokens: int, now: float) -> Slot:
        self._in_flight += 1
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)
        return Slot(now, tokens)

    def _seconds_until_free(self, tokens: int, now: float) -> float:
        """0: now; infinity: when a slot is given back."""
        if self._in_flight >= int(self._limit):
            return math.inf
        wait = max(0.0, self._paused_until - now)
        if self._requests is not None:
            wait = max(wait, self._requests.seconds_until(1, now))
        if self._tokens is not None:
            wait = max(wait, self._tokens.seconds_until(tokens, now))
        return wait

    def _serve(self) -> None:
        """Grant what the limits allow, and set a timer where time alone allows the next."""
        while self._waiting:
            tokens, granted = self._waiting[0]
            if granted.done():
                self._waiting.popleft()
                continue
            now = self._clock()
            wait = self._seconds_until_free(tokens, now)
            if wait == 0:
                self._waiting.popleft()
                granted.set_result(self._grant(tokens, now))
                continue
            if wait < math.inf:
                self._look_again_in(max(wait, _MIN_TIMER_SECONDS))
            return

    def _look_again_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._serve()
