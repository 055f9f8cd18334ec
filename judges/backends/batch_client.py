"""Batches: gathering their requests, submitting each once and only once, waiting for the end.

A submission that may have got through although no answer came is looked up in the server's list
before it is made again: the list tells how many requests a batch has, its results tell which. A
look that fails says nothing about the batch: it is repeated, and given up it leaves the batch open.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from judges.backends.base import (
    AccessError,
    BatchBackend,
    BatchInfo,
    BatchResult,
    CallError,
    ChatRequest,
    FinalError,
    Reply,
    RetryableError,
    UnreadableReplyError,
)
from judges.backends.budget import Reservation, StopRequested
from judges.backends.call_records import CallFailure
from judges.backends.calls import CallUnderWay
from judges.backends.retrying import CallHistory, CallLimits, retry_policy

if TYPE_CHECKING:
    from schemas.ledger.ledger import Ledger

_T = TypeVar("_T")
_CLOCK_SKEW_SECONDS = 3600.0
_FIRST_LOOK_SECONDS = 1.0
# How long a submission without an answer may take to appear in the server's list.
_LISTING_SECONDS = 5.0

# Servers keep the results of a batch for 29 days: what is not there later will never be.
_KEPT_SECONDS = 30 * 24 * 3600.0
# How often the results are read where some are missing or unreadable.
_READINGS = 3

Outcome = Reply | CallFailure


class BatchGoneError(CallError):
    """The server does not have a batch any more, nor its results, and never will again."""


@dataclass(eq=False)
class PendingRequest:
    """A caller that waits for one request's result; None as the result means: request it again."""

    call: CallUnderWay
    end: "asyncio.Future[Outcome | None]"
    reservation: Reservation | None = None
    num_bytes: int = 0
    is_queued: bool = False
    worst_case_usd: float | None = None

    @classmethod
    def of_nobody(cls, key: str, limits: CallLimits, worst_case_usd: float) -> "PendingRequest":
        """A stand-in for a request of an earlier run that no caller waits for."""
        call = CallUnderWay(key, ChatRequest((), max_tokens=0), (0, 0), limits)
        end: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        return cls(call, end, worst_case_usd=worst_case_usd)

    def answer(self, outcome: Outcome | None) -> None:
        """Hand the result over, if the caller still waits."""
        if not self.end.done():
            self.end.set_result(outcome)

    def fail(self, error: BaseException) -> None:
        """Hand an error over, if the caller still waits."""
        if not self.end.done():
            self.end.set_exception(error)

    def release(self, *, is_billed: bool) -> None:
        """End the reservation without a result: at its worst case, or at nothing."""
        if self.reservation is not None:
            self.reservation.charge(self.reservation.amount_usd if is_billed else 0.0)


@dataclass(eq=False)
class Batch:
    """Requests of one intent, and the callers that wait for them.

    Of an earlier run's batch: `committed` is what it may cost, `stored` the (call key, request id)
    of results that are recorded already.
    """

    intent_id: str
    custom_ids: tuple[str, ...]
    created_at: float
    batch_id: str | None = None
    requests: dict[str, PendingRequest] = field(default_factory=dict)
    committed: Reservation | None = None
    stored: frozenset[tuple[str, str]] = frozenset()

    @property
    def mean_worst_case_usd(self) -> float:
        """What one request of an earlier run's batch may cost: the batch's worst case, shared."""
        return self.committed.amount_usd / len(self.custom_ids) if self.committed else 0.0

    def join(self, call: CallUnderWay) -> PendingRequest:
        """Wait for a request that was submitted already; its former caller is gone."""
        before = self.requests.get(call.key)
        end: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        request = PendingRequest(call, end, before.reservation if before is not None else None)
        self.requests[call.key] = request
        return request


class RequestQueue:
    """Hands its requests to `on_ready` when it is full, or when no new one comes for a while."""

    def __init__(
        self,
        max_requests: int,
        max_bytes: int,
        linger_seconds: float,
        on_ready: Callable[[list[PendingRequest]], None],
    ) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._linger_seconds = linger_seconds
        self._on_ready = on_ready
        self._requests: list[PendingRequest] = []
        self._num_bytes = 0
        self._lingering: asyncio.TimerHandle | None = None

    def add(self, request: PendingRequest) -> None:
        """Queue one more request."""
        if self._num_bytes + request.num_bytes > self._max_bytes:
            self._ready()
        request.is_queued = True
        self._requests.append(request)
        self._num_bytes += request.num_bytes
        if self._lingering is not None:
            self._lingering.cancel()
        if len(self._requests) >= self._max_requests:
            self._ready()
        else:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(self._linger_seconds, self._ready)

    def remove(self, request: PendingRequest) -> None:
        """Take out a request that was cancelled."""
        self._requests.remove(request)
        self._num_bytes -= request.num_bytes
        request.is_queued = False

    def take(self) -> list[PendingRequest]:
        """Empty the queue."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        requests, self._requests, self._num_bytes = self._requests, [], 0
        for request in requests:
            request.is_queued = False
        return requests

    def _ready(self) -> None:
        if requests := self.take():
            self._on_ready(requests)


@dataclass(frozen=True)
class EndedBatch:
    """A batch with its results by `custom_id`."""

    batch_id: str
    results: dict[str, Reply | CallError]


class BatchClient:
    """Every method retries as calls do, and raises StopRequested when the server stays unreachable.

    After `leave` all waiting ends with StopRequested; batches go on at the server.
    """

    def __init__(
        self, backend: BatchBackend, ledger: "Ledger", limits: CallLimits, poll_seconds: float
    ) -> None:
        self._backend = backend
        self._ledger = ledger
        self._limits = limits
        self._poll_seconds = poll_seconds
        self._leaving = asyncio.Event()
        self._running: set[str] = set()

    def leave(self) -> None:
        """Stop waiting."""
        self._leaving.set()

    async def submit(self, requests: list[tuple[str, ChatRequest]], created_at: float) -> str:
        """The id of a batch of exactly these requests, made now or by an attempt thought lost.

        A full queue at the server (429) is waited for as long as batches of ours are running.
        Raises FinalError only where no attempt can have got through.
        """
        custom_ids = {custom_id for custom_id, _ in requests}
        may_be_there = False

        async def attempt() -> str:
            nonlocal may_be_there
            try:
                return (await self._backend.submit(requests)).batch_id
            except (RetryableError, UnreadableReplyError) as error:
                if isinstance(error, RetryableError) and error.overloaded:
                    raise
                may_be_there = True
                lost: CallError = error
            except FinalError as error:
                if not may_be_there:
                    raise
                lost = error
            await self._sleep(min(_LISTING_SECONDS, self._poll_seconds))
            if (ended := await self._find_lost(custom_ids, created_at)) is not None:
                return ended.batch_id
            raise lost if isinstance(lost, RetryableError) else RetryableError(str(lost)) from lost

        batch_id = await self._patiently(attempt, "a batch cannot be submitted", self._is_busy)
        self._running.add(batch_id)
        return batch_id

    async def _find_lost(self, custom_ids: set[str], created_at: float) -> "EndedBatch | None":
        try:
            return await self.find(custom_ids, created_at)
        except AccessError as error:
            raise StopRequested(f"whether a batch was taken is not known: {error}") from error

    async def wait(
        self, batch_id: str, created_at: float, wanted: Collection[str] = ()
    ) -> EndedBatch:
        """The results of a batch, as soon as it has ended.

        They are read again where one that is `wanted` is missing or cannot be read; where no line
        can be read, the look has failed. Raises BatchGoneError where the server has not kept them,
        and never will.
        """
        self._running.add(batch_id)
        try:
            return await self._ended(batch_id, created_at, wanted)
        finally:
            self._running.discard(batch_id)

    async def _ended(
        self, batch_id: str, created_at: float, wanted: Collection[str] = ()
    ) -> EndedBatch:
        look_again_seconds = min(_FIRST_LOOK_SECONDS, self._poll_seconds)
        while not (await self._state(batch_id, created_at)).ended:
            await self._sleep(look_again_seconds)
            look_again_seconds = min(self._poll_seconds, 1.5 * look_again_seconds)
        return EndedBatch(batch_id, await self._results(batch_id, created_at, wanted))

    async def _state(self, batch_id: str, created_at: float) -> BatchInfo:
        """How far a batch is; one that the server does not find is looked up in its list."""

        async def attempt() -> BatchInfo:
            try:
                return await self._backend.retrieve(batch_id)
            except AccessError:
                raise
            except FinalError:
                listed = await self._backend.list_batches(created_at - _CLOCK_SKEW_SECONDS)
                for info in listed:
                    if info.batch_id == batch_id:
                        return info
                raise

        return await self._look(attempt, created_at)

    async def _results(
        self, batch_id: str, created_at: float, wanted: Collection[str]
    ) -> dict[str, Reply | CallError]:
        async def attempt() -> list[BatchResult]:
            results = await self._backend.results(batch_id)
            if wanted and not results:
                raise UnreadableReplyError(f"the results of batch {batch_id} cannot be read")
            return results

        found: dict[str, Reply | CallError] = {}
        for reading in range(_READINGS):
            if reading:
                await self._sleep(min(_LISTING_SECONDS, self._poll_seconds))
            results = await self._look(attempt, created_at)
            for result in results:
                if _is_better(result.outcome, found.get(result.custom_id)):
                    found[result.custom_id] = result.outcome
            if all(_is_known(found.get(custom_id)) for custom_id in wanted):
                break
        return found

    async def find(self, custom_ids: Collection[str], created_at: float) -> EndedBatch | None:
        """The batch of exactly these requests that the ledger does not know, once it has ended.

        Raises StopRequested where it is not known whether a batch is that one.
        """
        after = created_at - _CLOCK_SKEW_SECONDS
        listed = await self._look(lambda: self._backend.list_batches(after), created_at)
        known = self._running | await asyncio.to_thread(self._stored_batch_ids)
        candidates = [
            info
            for info in listed
            if info.batch_id not in known and info.num_requests in (len(custom_ids), -1)
        ]
        for info in sorted(candidates, key=_ended_first):
            # looked at, not ours yet: another lost submission may be looking for it, too
            ended = await self._ended(info.batch_id, created_at)
            if not ended.results:
                raise StopRequested(
                    f"batch {info.batch_id} at the server may be one of ours, and its results "
                    "cannot be read"
                )
            if ended.results.keys() <= set(custom_ids):
                return ended
        return None

    def _stored_batch_ids(self) -> set[str]:
        rows = self._ledger.query("SELECT batch_id FROM batches WHERE batch_id IS NOT NULL")
        return {batch_id for (batch_id,) in rows}

    def _is_busy(self) -> bool:
        return bool(self._running)

    async def _look(self, attempt: Callable[[], Awaitable[_T]], created_at: float) -> _T:
        """Read at the server. A refused account ends it; all else that fails is tried again."""
        last_error: CallError | None = None

        async def patient() -> _T:
            nonlocal last_error
            try:
                return await attempt()
            except AccessError:
                raise
            except (FinalError, UnreadableReplyError) as error:
                last_error = error
                raise RetryableError(str(error)) from error
            except RetryableError:
                last_error = None
                raise

        try:
            return await self._patiently(patient)
        except StopRequested as stop:
            is_old = time.time() - created_at > _KEPT_SECONDS
            if last_error is None or not is_old or self._leaving.is_set():
                raise
            raise BatchGoneError(str(stop)) from stop

    async def _patiently(
        self,
        attempt: Callable[[], Awaitable[_T]],
        problem: str = "the batches at the server cannot be read",
        is_waiting_worth_it: Callable[[], bool] = lambda: False,
    ) -> _T:
        history = CallHistory(self._limits)

        async def counted() -> _T:
            try:
                return await attempt()
            except RetryableError as error:
                history.note(error)
                if error.overloaded and is_waiting_worth_it():
                    history.is_over = False
                raise

        try:
            result: _T = await retry_policy(history, self._sleep)(counted)
        except RetryableError as error:
            raise StopRequested(f"{problem}: {history.explain(error)}") from error
        return result

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0 and not self._leaving.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), seconds)
        if self._leaving.is_set():
            raise StopRequested("a stop ended the wait for batches")


def _is_known(outcome: Reply | CallError | None) -> bool:
    return outcome is not None and not isinstance(outcome, UnreadableReplyError)


def _is_better(outcome: Reply | CallError, before: Reply | CallError | None) -> bool:
    """The first reply stays: a later reading, or a second line for one request, replaces none."""
    return not _is_known(before) or (isinstance(outcome, Reply) and not isinstance(before, Reply))


def _ended_first(info: BatchInfo) -> tuple[bool, float]:
    return not info.ended, info.created_at
