"""The one way to call a backend: each call is paid once, within limits and budget, and recorded.

Cache, merging with an identical call in flight, slot, budget, attempt, ledger; the last four again
for each retry. Waiting for a retry holds neither a slot nor money.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from judges.backends.base import Backend, FinalError, Reply, RetryableError
from judges.backends.budget import Budget, BudgetExhausted, Reservation, StopRequested
from judges.backends.call_layer import CallLayer, CallUnderWay
from judges.backends.call_records import CallFailure, CallResult, total_tokens
from judges.backends.call_stats import CallStats
from judges.backends.limiter import Limiter, Slot
from judges.backends.prices import Prices
from judges.backends.retrying import CallLimits, asks_too_much

if TYPE_CHECKING:
    from schemas.ledger import Ledger

__all__ = [
    "BudgetExhausted",
    "CallFailure",
    "CallLimits",
    "CallResult",
    "CallStats",
    "Calls",
    "StopRequested",
]


class Calls(CallLayer):
    """Live calls of one backend. After `stop`, attempts in flight finish and are stored."""

    def __init__(
        self,
        backend: Backend,
        ledger: "Ledger",
        *,
        limits: CallLimits,
        prices: Prices,
        budget: Budget,
        run_id: str,
    ) -> None:
        super().__init__(
            backend,
            ledger,
            limits=limits,
            prices=prices,
            budget=budget,
            run_id=run_id,
            is_batch=False,
            concurrency=limits.max_concurrency,
        )
        self._complete = backend.complete
        self._limiter = Limiter(
            limits.max_concurrency,
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
        )

    def _on_stop(self) -> None:
        self._limiter.stop(self._stop_reason)

    async def _attempt(self, call: CallUnderWay) -> Reply | CallFailure:
        slot = await self._limiter.acquire(sum(call.worst_case_tokens))
        try:
            worst_case_usd = self._recorder.worst_case_usd(call.worst_case_tokens)
            reservation = await self._budget.reserve(worst_case_usd)
            if self._stopping.is_set():
                reservation.settle(0.0)
                raise StopRequested(self._stop_reason)
            call.history.attempts += 1
            self.stats.attempts += 1
            self.stats.in_flight += 1
            try:
                return await self._send(call, slot, reservation)
            finally:
                self.stats.in_flight -= 1
        finally:
            self._limiter.release(slot)
            self.stats.concurrency = self._limiter.concurrency

    async def _send(
        self, call: CallUnderWay, slot: Slot, reservation: Reservation
    ) -> Reply | CallFailure:
        billed_usd = reservation.amount_usd
        started = time.monotonic()
        try:
            reply = await self._complete(call.request)
            billed_usd = self._recorder.cost_usd(reply.usage) or 0.0
        except (RetryableError, FinalError, asyncio.CancelledError) as error:
            if isinstance(error, RetryableError):
                self._back_off(slot, error)
            seconds = time.monotonic() - started
            billed_usd = self._take_error(call, error, reservation.amount_usd, seconds)
            raise
        finally:
            reservation.settle(billed_usd)
        self._limiter.succeeded()
        slot.tokens_used = total_tokens(reply.usage)
        return self._take_reply(call, reply, time.monotonic() - started)

    def _back_off(self, slot: Slot, error: RetryableError) -> None:
        """What one call learns of an overload holds for the whole backend."""
        if error.overloaded:
            self.stats.rate_limited += 1
            self._limiter.overloaded(slot)
        if error.retry_after_seconds is not None and not asks_too_much(error, self._limits):
            self._limiter.pause(error.retry_after_seconds)
