"""When a call is tried again, and after how long. No other layer retries."""

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from judges.backends.base import CallError, RetryableError


@dataclass(frozen=True)
class CallLimits:
    """Limits of a call layer. `max_attempts` counts the first attempt, so 9 is 8 retries.

    Errors and bad replies are counted apart. An empty or truncated reply is asked for again with
    the same request (sampling gives another one), so `max_bad_replies` 3 is at most two more.
    A server that asks for a longer wait than `retry_after_max_seconds` fails the call at once.
    After `max_failures_in_row` failed calls without a reply between them the layer stops, and after
    `max_alike_in_row` that failed in the same words: a dead server or a model that was taken off
    must not turn every question into a failure.
    """

    max_concurrency: int = 16
    max_attempts: int = 9
    max_bad_replies: int = 3
    retry_base_seconds: float = 0.5
    retry_cap_seconds: float = 60.0
    retry_after_max_seconds: float = 600.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_failures_in_row: int = 100
    max_alike_in_row: int = 10

    def __post_init__(self) -> None:
        for name in (
            "max_concurrency",
            "max_attempts",
            "max_bad_replies",
            "max_failures_in_row",
            "max_alike_in_row",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give at least 1, or leave it out")

    def seconds_of_silence(self, timeout_seconds: float) -> float:
        """How long calls wait at most, in all, for a server that takes them and never replies."""
        waits = sum(
            min(self.retry_cap_seconds, self.retry_base_seconds * 2.0**number)
            for number in range(self.max_attempts - 1)
        )
        # The layer stops after this number of failures alike, which calls in flight make together.
        rounds = math.ceil(self.max_alike_in_row / self.max_concurrency)
        return rounds * (self.max_attempts * timeout_seconds + waits)


class BadReplyError(CallError):
    """A reply came and was billed, but it is empty or cut off."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass
class CallHistory:
    """What has happened to one call so far."""

    limits: CallLimits
    attempts: int = 0
    errors: int = 0
    bad_replies: int = 0
    is_over: bool = field(default=False, init=False)

    def note(self, error: RetryableError | BadReplyError) -> None:
        """Count a failed attempt; `is_over` says whether it was the last."""
        if isinstance(error, BadReplyError):
            self.bad_replies += 1
            self.is_over = self.bad_replies >= self.limits.max_bad_replies
        else:
            self.errors += 1
            self.is_over = self.errors >= self.limits.max_attempts or asks_too_much(
                error, self.limits
            )

    def explain(self, error: RetryableError) -> str:
        """One sentence on a call that is given up."""
        if asks_too_much(error, self.limits):
            return (
                f"the server asks to wait {error.retry_after_seconds:g} s, longer than the "
                f"{self.limits.retry_after_max_seconds:g} s that a call waits at most: {error}"
            )
        return f"given up after {self.errors} failed attempts: {error}"


def asks_too_much(error: RetryableError, limits: CallLimits) -> bool:
    """Whether the server's Retry-After is beyond what a call waits."""
    wish = error.retry_after_seconds
    return wish is not None and wish > limits.retry_after_max_seconds


def wait_seconds(error: RetryableError, num_errors: int, limits: CallLimits) -> float:
    """Exponential from the base to the cap, times a jitter of 0.5 to 1; never below Retry-After."""
    backoff = min(limits.retry_cap_seconds, limits.retry_base_seconds * 2.0 ** (num_errors - 1))
    jittered = backoff * random.uniform(0.5, 1.0)
    return max(jittered, error.retry_after_seconds or 0.0)


def retry_policy(history: CallHistory, sleep: Callable[[float], Awaitable[None]]) -> AsyncRetrying:
    """Tenacity's loop around one call, steered by its history."""

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RetryableError):
            return wait_seconds(error, history.errors, history.limits)
        return 0.0

    return AsyncRetrying(
        retry=retry_if_exception_type((RetryableError, BadReplyError)),
        stop=lambda state: history.is_over,
        wait=wait,
        sleep=sleep,
        reraise=True,
    )
