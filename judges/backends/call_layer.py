"""What live and batched calls share: the cache, merging of identical calls, stopping, the end.

A subclass makes one attempt at a time; which attempts follow is decided in `retrying`.
"""

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from judges.backends.base import (
    AccessError,
    Backend,
    ChatRequest,
    FinalError,
    Reply,
    RetryableError,
    call_key,
)
from judges.backends.budget import Budget, StopRequested
from judges.backends.call_records import (
    RETRIED_STATUSES,
    CallFailure,
    CallRecorder,
    CallResult,
    failure,
    one_line,
    reply_detail,
    reply_status,
)
from judges.backends.call_stats import CallStats
from judges.backends.prices import Prices
from judges.backends.retrying import BadReplyError, CallHistory, CallLimits, retry_policy

if TYPE_CHECKING:
    from schemas.ledger import Ledger


class CallUnderWay:
    """One call: what is asked, what an attempt can cost at most, what has happened so far."""

    def __init__(
        self, key: str, request: ChatRequest, tokens: tuple[int, int], limits: CallLimits
    ) -> None:
        self.key = key
        self.request = request
        self.worst_case_tokens = tokens
        self.history = CallHistory(limits)


class CallLayer(ABC):
    """`call` raises nothing but StopRequested: whatever a server does is an outcome.

    Raises ValueError when there is a budget and the model's price is not known.
    """

    def __init__(
        self,
        backend: Backend,
        ledger: "Ledger",
        *,
        limits: CallLimits,
        prices: Prices,
        budget: Budget,
        run_id: str,
        is_batch: bool,
        concurrency: int,
    ) -> None:
        self._info = backend.info
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
        self._failures_in_row = 0

    def stop(self, because: str = "a stop was asked for") -> None:
        """Start nothing new: who waits for a start or a retry gets StopRequested."""
        if not self._stopping.is_set():
            self._stop_reason = because
            self._stopping.set()
            self._on_stop()

    async def call(self, request: ChatRequest) -> CallResult:
        """The reply to `request`, or why there is none."""
        key = call_key(self._info, request)
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
                return replace(end, from_cache=True)

    @abstractmethod
    async def _attempt(self, call: CallUnderWay) -> Reply | CallFailure:
        """One attempt, recorded. Raises a CallError where it gave no reply, or StopRequested."""

    @abstractmethod
    def _on_stop(self) -> None:
        """Wake whoever waits for a start."""

    async def _lead(self, key: str, request: ChatRequest) -> CallResult:
        """Make the call, and share its end with everybody who asks the same meanwhile."""
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
        except BadReplyError as error:
            outcome = failure(error.status, str(error))
        except RetryableError as error:
            outcome = failure("failed", one_line(call.history.explain(error)))
            self._note_failure(outcome.detail)
        except AccessError as error:
            self.stop(one_line(error))
            raise StopRequested(self._stop_reason) from error
        except FinalError as error:
            outcome = failure("rejected", one_line(error))
            self._note_failure(outcome.detail)
        self.stats.count_end(is_failure=isinstance(outcome, CallFailure))
        return CallResult(key, outcome, from_cache=False)

    def _take_reply(self, call: CallUnderWay, reply: Reply, seconds: float) -> Reply | CallFailure:
        """Record a reply that came; raises BadReplyError where it is empty or cut off."""
        self._failures_in_row = 0
        status = reply_status(reply)
        detail = reply_detail(status, call.request.max_tokens, reply)
        bad_reply = BadReplyError(status, detail) if status in RETRIED_STATUSES else None
        if bad_reply is not None:
            call.history.note(bad_reply)
        self._recorder.add_reply(
            call.key,
            call.request,
            call.history.attempts,
            reply,
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
        status, detail, maybe_billed, is_final = "failed", one_line(error), True, False
        if isinstance(error, RetryableError):
            call.history.note(error)
            maybe_billed, is_final = error.maybe_billed, call.history.is_over
            detail = one_line(call.history.explain(error)) if is_final else detail
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

    def _note_failure(self, detail: str) -> None:
        """A call failed for good. Many in a row are the backend's fault, not the requests'."""
        self._failures_in_row += 1
        if self._failures_in_row >= self._limits.max_failures_in_row:
            self.stop(
                f"{self._failures_in_row} calls in a row failed at {self._info.spec}, "
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
