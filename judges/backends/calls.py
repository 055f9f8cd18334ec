"""The one way to call a backend: each call is paid once, within limits and budget, and recorded.

Cache, merging with an identical call in flight, slot, budget, attempt, ledger; the last four again
for each retry (`retrying` decides which follow). Waiting for a retry holds neither a slot nor
money. `CallLayer` is what live and batched calls share; a subclass makes one attempt at a time.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from judges.backends.base import (
    AccessError,
    Backend,
    CallError,
    ChatRequest,
    FinalError,
    Reply,
    RetryableError,
    StopReason,
    UnreadableReplyError,
    Usage,
    call_key,
    sound_reply,
)
from judges.backends.budget import Budget, BudgetExhausted, Reservation, StopRequested
from judges.backends.call_records import (
    RETRIED_STATUSES,
    CallFailure,
    CallRecorder,
    CallResult,
    CallStats,
    failure,
    failure_line,
    failure_shape,
    reply_detail,
    reply_status,
    total_tokens,
)
from judges.backends.limiter import Limiter, Slot
from judges.backends.prices import Prices
from judges.backends.retrying import (
    BadReplyError,
    CallHistory,
    CallLimits,
    asks_too_much,
    retry_policy,
)
from schemas.samples import Reason

if TYPE_CHECKING:
    from judges.backends.call_records import CallStore

__all__ = [
    "BudgetExhausted",
    "CallFailure",
    "CallLayer",
    "CallLimits",
    "CallResult",
    "CallStats",
    "CallUnderWay",
    "Calls",
    "StopRequested",
]


# No text of a language has as many characters in a token; runs of blanks have, for a while.
_CHARS_PER_TOKEN = 64
_FEW_CHARS = 65_536


class CallUnderWay:
    """One call: its request, the most tokens an attempt can take, what has happened so far."""

    def __init__(
        self, key: str, request: ChatRequest, tokens: tuple[int, int], limits: CallLimits
    ) -> None:
        self.key = key
        self.request = request
        self.worst_case_tokens = tokens
        self.history = CallHistory(limits)


class CallLayer(ABC):
    """`call` raises nothing but StopRequested: a server's failures are outcomes.

    `info` is that of the backend. Raises ValueError when there is a budget and the model's price is
    not known.
    """

    def __init__(
        self,
        backend: Backend,
        ledger: "CallStore",
        *,
        limits: CallLimits,
        prices: Prices,
        budget: Budget,
        run_id: str,
        is_batch: bool,
        concurrency: int,
    ) -> None:
        self.info = backend.info
        self._worst_case_tokens = backend.worst_case_tokens
        self._limits = limits
        self._budget = budget
        self.stats = CallStats(concurrency)
        self._recorder = CallRecorder(
            backend.info,
            ledger,
            prices=prices,
            budget=budget,
            run_id=run_id,
            stats=self.stats,
            is_batch=is_batch,
        )
        self._pending: dict[str, asyncio.Future[CallResult | StopRequested | None]] = {}
        self._stopping = asyncio.Event()
        self._stop_reason = ""
        self._failures_in_row = self._alike_in_row = 0
        self._last_failure = ""

    def stop(self, because: str = "a stop was asked for") -> None:
        """Start nothing new: callers that wait for a slot or a retry get StopRequested."""
        if not self._stopping.is_set():
            self._stop_reason = because
            self._stopping.set()
            self._on_stop()

    async def call(self, request: ChatRequest) -> CallResult:
        """The reply to `request`, or why there is none."""
        key = call_key(self.info, request)
        while True:
            cached = self._recorder.cached(key)
            if cached is not None:
                self.stats.cached += 1
                return cached
            pending = self._pending.get(key)
            if pending is None:
                return await self._lead(key, request)
            end = await asyncio.shield(pending)
            if isinstance(end, StopRequested):
                raise type(end)(*end.args)
            if end is not None:
                self.stats.merged += 1
                return end

    @abstractmethod
    async def _attempt(self, call: CallUnderWay) -> Reply | CallFailure:
        """One attempt, recorded. Raises a CallError where it gave no reply, or StopRequested."""

    @abstractmethod
    def _on_stop(self) -> None:
        """Wake the callers that wait for a slot."""

    async def _lead(self, key: str, request: ChatRequest) -> CallResult:
        """Make the call, and share its outcome with identical calls that come meanwhile."""
        pending = asyncio.get_running_loop().create_future()
        self._pending[key] = pending
        end: CallResult | StopRequested | None = None  # None: cancelled, a follower takes over
        try:
            end = await self._make(key, request)
            return end
        except StopRequested as stop:
            end = stop
            raise
        finally:
            del self._pending[key]
            pending.set_result(end)

    async def _make(self, key: str, request: ChatRequest) -> CallResult:
        call = CallUnderWay(key, request, self._worst_case_tokens(request), self._limits)
        outcome: Reply | CallFailure
        try:
            outcome = await retry_policy(call.history, self._sleep)(self._attempt, call)
            if isinstance(outcome, CallFailure) and outcome.reason is Reason.BAD_REQUEST:
                self._note_failure(outcome.detail)
        except BadReplyError as error:
            outcome = failure(error.status, str(error))
        except RetryableError as error:
            outcome = failure("failed", failure_line(call.history.explain(error)))
            self._note_failure(outcome.detail)
        except UnreadableReplyError as error:
            outcome = failure("failed", failure_line(error))
            self._note_failure(outcome.detail)
        except AccessError as error:
            self.stop(failure_line(error))
            raise StopRequested(self._stop_reason) from error
        except FinalError as error:
            outcome = failure("rejected", failure_line(error))
            self._note_failure(outcome.detail)
        self.stats.count_end(is_failure=isinstance(outcome, CallFailure))
        return CallResult(key, outcome)

    def _take_reply(
        self, call: CallUnderWay, reply: Reply, worst_case_usd: float, seconds: float
    ) -> Reply | CallFailure:
        """Record a reply that came; raises BadReplyError where it is empty or cut off."""
        status = reply_status(reply)
        if status != "rejected":
            self._failures_in_row = self._alike_in_row = 0
        detail = reply_detail(status, call.request.max_tokens, reply)
        bad_reply = BadReplyError(status, detail) if status in RETRIED_STATUSES else None
        if bad_reply is not None:
            call.history.note(bad_reply)
        self._recorder.add_reply(
            call.key,
            call.request,
            call.history.attempts,
            reply,
            worst_case_usd=worst_case_usd,
            seconds=seconds,
            is_final=bad_reply is None or call.history.is_over,
        )
        if bad_reply is not None:
            raise bad_reply
        return reply if status == "ok" else failure(status, detail)

    def _take_error(
        self, call: CallUnderWay, error: BaseException, worst_case_usd: float, seconds: float
    ) -> float:
        """Record an attempt without a reply where it ended the call or cost money; what it cost."""
        status, detail, maybe_billed, is_final = "failed", failure_line(error), True, False
        if isinstance(error, RetryableError):
            call.history.note(error)
            maybe_billed, is_final = error.maybe_billed, call.history.is_over
            detail = failure_line(call.history.explain(error)) if is_final else detail
        elif isinstance(error, UnreadableReplyError):
            is_final = True
        elif isinstance(error, FinalError):
            status, maybe_billed, is_final = "rejected", False, not isinstance(error, AccessError)
        if maybe_billed or is_final:
            self._recorder.add_error(
                call.key,
                call.request,
                call.history.attempts,
                status,
                detail,
                maybe_billed_usd=worst_case_usd if maybe_billed else None,
                seconds=seconds,
                is_final=is_final,
            )
        return worst_case_usd if maybe_billed else 0.0

    def _checked(self, reply: object, max_tokens: int) -> Reply:
        """A reply as any backend may give it, its token counts made such that they can be.

        Raises UnreadableReplyError for a text that is longer than `max_tokens` (0: not known) are.
        """
        if not isinstance(reply, Reply):  # no later call could end otherwise
            raise AccessError(
                f"complete of the backend {self.info.spec} gave a {type(reply).__name__}; "
                "expected a judges.backends.base.Reply"
            )
        expected = {"text": str, "stop": StopReason, "usage": Usage}
        expected |= dict.fromkeys(("model", "request_id", "note"), str)
        for name, kind in expected.items():
            if not isinstance(value := getattr(reply, name), kind):
                raise AccessError(
                    f"a Reply of the backend {self.info.spec} has a {name} of type "
                    f"{type(value).__name__}; expected {kind.__name__}"
                )
        most = _FEW_CHARS + _CHARS_PER_TOKEN * max_tokens
        if max_tokens and len(reply.text) > most:
            raise UnreadableReplyError(
                f"{self.info.spec} sent a text of {len(reply.text)} characters to a request of at "
                f"most {max_tokens} tokens, which have no more than {most}"
            )
        return sound_reply(reply)

    def _note_failure(self, detail: str) -> None:
        """A call failed for good. Many in a row are the backend's fault, not the requests'."""
        self._failures_in_row += 1
        is_alike = failure_shape(detail) == self._last_failure
        self._alike_in_row = self._alike_in_row + 1 if is_alike else 1
        self._last_failure = failure_shape(detail)
        if self._alike_in_row >= self._limits.max_alike_in_row:
            self.stop(
                f"the last {self._alike_in_row} calls of {self.info.spec} all failed alike, so the "
                f"others would, too: {detail}"
            )
        if self._failures_in_row >= self._limits.max_failures_in_row:
            self.stop(
                f"{self._failures_in_row} calls in a row failed at {self.info.spec}, "
                f"the last with: {detail}"
            )

    async def _sleep(self, seconds: float) -> None:
        """Tenacity's wait before a retry; a stop ends it."""
        self.stats.retries += 1
        if seconds > 0 and not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)
        if self._stopping.is_set():
            raise StopRequested(self._stop_reason)


class Calls(CallLayer):
    """Live calls of one backend. After `stop`, attempts in flight finish and are stored.

    `problem` is asked once, before the first attempt, why all calls would fail; "" where they would
    not.
    """

    def __init__(
        self,
        backend: Backend,
        ledger: "CallStore",
        *,
        limits: CallLimits,
        prices: Prices,
        budget: Budget,
        run_id: str,
        problem: Callable[[], Awaitable[str]] | None = None,
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
        self._problem = problem
        self._checking = asyncio.Lock()
        self._limiter = Limiter(
            limits.max_concurrency,
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
        )

    def _on_stop(self) -> None:
        self._limiter.stop(self._stop_reason)

    async def _make(self, key: str, request: ChatRequest) -> CallResult:
        async with self._checking:
            if self._problem is not None and not self._stopping.is_set():
                problem, self._problem = await self._problem(), None
                if problem:
                    self.stop(problem)
        if self._stopping.is_set():
            raise StopRequested(self._stop_reason)
        return await super()._make(key, request)

    async def _attempt(self, call: CallUnderWay) -> Reply | CallFailure:
        slot = await self._limiter.acquire(sum(call.worst_case_tokens))
        try:
            worst_case_usd = self._recorder.worst_case_usd(call.worst_case_tokens)
            reservation = await self._budget.reserve(worst_case_usd)
            if self._stopping.is_set():
                reservation.charge(0.0)
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
            reply = self._checked(await self._complete(call.request), call.request.max_tokens)
            billed_usd = self._recorder.cost_usd(reply.usage, reservation.amount_usd) or 0.0
        except (CallError, asyncio.CancelledError) as error:
            if isinstance(error, RetryableError):
                self._back_off(slot, error)
            seconds = time.monotonic() - started
            billed_usd = self._take_error(call, error, reservation.amount_usd, seconds)
            raise
        finally:
            reservation.charge(billed_usd)
        self._limiter.succeeded()
        if reply.usage.is_reliable:
            slot.tokens_used = total_tokens(reply.usage)
        seconds = time.monotonic() - started
        return self._take_reply(call, reply, reservation.amount_usd, seconds)

    def _back_off(self, slot: Slot, error: RetryableError) -> None:
        """An overload that one call meets slows down all calls of the backend."""
        if error.overloaded:
            self.stats.rate_limited += 1
            self._limiter.overloaded(slot)
        if error.retry_after_seconds is not None and not asks_too_much(error, self._limits):
            self._limiter.pause(error.retry_after_seconds)
