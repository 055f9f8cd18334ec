"""Calls through a batch API: half the price, results within a day. Same interface as live calls.

Requests are gathered until a batch is full or nothing new has come for a while. The intent is
committed before a batch is submitted and names its requests: after a kill at any moment the next
run finds the batch at the server by its `custom_id`s instead of paying again. Results are stored as
they come, whether or not a caller waits for them. One attempt of a call is its place in one batch.
"""

import asyncio
import secrets
import time
from collections.abc import Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from judges.backends.base import (
    AccessError,
    BatchBackend,
    CallError,
    FinalError,
    Reply,
    UnreadableReplyError,
)
from judges.backends.batch_client import (
    Batch,
    BatchClient,
    BatchGoneError,
    Outcome,
    PendingRequest,
    RequestQueue,
)
from judges.backends.budget import Budget, StopRequested
from judges.backends.calls import CallLayer, CallUnderWay
from judges.backends.prices import Prices
from judges.backends.retrying import BadReplyError, CallLimits
from schemas.ledger.rows import BatchRow

if TYPE_CHECKING:
    from schemas.ledger.ledger import Ledger

_RESULTS_AT_A_TIME = 500


class BatchedCalls(CallLayer):
    """Batched calls of one backend.

    After `stop` nothing is submitted any more. What was submitted goes on at the server and the
    next run takes its results; with `stop(wait=True)` this run still waits for them. `aclose` ends
    all waiting: await it before the ledger is closed. `num_left_at_server` counts what was left.
    """

    def __init__(
        self,
        backend: BatchBackend,
        ledger: "Ledger",
        *,
        limits: CallLimits,
        prices: Prices,
        budget: Budget,
        run_id: str,
        max_requests: int | None = None,
        max_bytes: int | None = None,
        linger_seconds: float = 10.0,
        poll_seconds: float = 30.0,
    ) -> None:
        max_requests = min(max_requests or backend.max_batch_requests, backend.max_batch_requests)
        super().__init__(
            backend,
            ledger,
            limits=limits,
            prices=prices,
            budget=budget,
            run_id=run_id,
            is_batch=True,
            concurrency=max_requests,
        )
        self.num_left_at_server = 0
        self._request_bytes = backend.request_bytes
        self._ledger = ledger
        self._client = BatchClient(backend, ledger, limits, poll_seconds)
        max_bytes = min(max_bytes or backend.max_batch_bytes, backend.max_batch_bytes)
        self._queue = RequestQueue(max_requests, max_bytes, linger_seconds, self._submit)
        self._tasks: set[asyncio.Task[None]] = set()
        self._out: dict[str, Batch] = {}
        self._unfollowed = self._earlier_batches()
        for batch in self._unfollowed:
            self._out |= dict.fromkeys(batch.custom_ids, batch)

    def stop(self, because: str = "a stop was asked for", *, wait: bool = False) -> None:
        """Submit nothing new; unless `wait`, leave what is submitted to the next run."""
        super().stop(because)
        if not wait:
            self._client.leave()

    async def aclose(self, *, wait: bool = False) -> None:
        """Stop, and wait for every task of this layer."""
        self.stop(wait=wait)
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def _on_stop(self) -> None:
        self._turn_away(self._queue.take(), is_billed=False)

    async def _attempt(self, call: CallUnderWay) -> Outcome:
        while self._unfollowed:
            batch = self._unfollowed.pop()
            self._start(self._follow_earlier(batch), batch)
        while (out := self._out.get(call.key)) is not None:
            outcome = await out.join(call).end
            if outcome is not None:
                return outcome
        worst_case_usd = self._recorder.worst_case_usd(call.worst_case_tokens)
        reservation = await self._budget.reserve(worst_case_usd)
        if self._stopping.is_set():
            reservation.charge(0.0)
            raise StopRequested(self._stop_reason)
        end: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        request = PendingRequest(call, end, reservation, self._request_bytes(call.request))
        self._queue.add(request)
        try:
            outcome = await end
        except asyncio.CancelledError:
            if request.is_queued:
                self._queue.remove(request)
                request.release(is_billed=False)
            raise
        assert outcome is not None, "only a batch of an earlier run ends without an outcome"
        return outcome

    def _start(self, work: Coroutine[Any, Any, None], batch: Batch) -> None:
        """Run a task; if it fails unexpectedly, all callers of the batch get the error."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is not None:
                for request in batch.requests.values():
                    request.fail(error)

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    # Submitting.

    def _submit(self, requests: list[PendingRequest]) -> None:
        batch = self._new_batch({request.call.key: request for request in requests})
        self._start(self._run(batch), batch)

    def _new_batch(self, requests: dict[str, PendingRequest]) -> Batch:
        intent_id = f"intent-{secrets.token_hex(8)}"
        batch = Batch(intent_id, tuple(requests), time.time(), requests=requests)
        self._out |= dict.fromkeys(batch.custom_ids, batch)
        return batch

    async def _run(self, batch: Batch) -> None:
        """Store the intent, submit, wait."""
        if not self._stopping.is_set():
            await self._store_intent(batch)
            if self._stopping.is_set():
                self._close(batch, "abandoned")
        if self._stopping.is_set():
            self._forget(batch)
            self._turn_away(batch.requests.values(), is_billed=False)
            return
        payload = [(key, request.call.request) for key, request in batch.requests.items()]
        try:
            batch.batch_id = await self._client.submit(payload, batch.created_at)
        except StopRequested as stop:
            self._leave(batch, str(stop))
        except FinalError as error:
            await self._refused(batch, error)
        else:
            self._ledger.update_batch(batch.intent_id, status="submitted", batch_id=batch.batch_id)
            self.stats.attempts += len(payload)
            self.stats.in_flight += len(payload)
            try:
                await self._follow(batch)
            finally:
                self.stats.in_flight -= len(payload)

    async def _store_intent(self, batch: Batch) -> None:
        """On disk before anything is sent."""
        reservations = [request.reservation for request in batch.requests.values()]
        row = BatchRow(
            intent_id=batch.intent_id,
            provider=self.info.provider,
            model=self.info.model,
            endpoint=self.info.endpoint,
            created_at=datetime.fromtimestamp(batch.created_at, UTC),
            status="intended",
            worst_case_usd=sum(money.amount_usd for money in reservations if money),
        )
        self._ledger.add_batch(row, batch.custom_ids)
        await asyncio.to_thread(self._ledger.flush)

    async def _refused(self, batch: Batch, error: FinalError) -> None:
        """The server rejects the batch: halve it, so that one bad request costs no other."""
        self._close(batch, "refused")
        if isinstance(error, AccessError) or len(batch.requests) == 1:
            self._forget(batch)
            for request in batch.requests.values():
                self._deliver(request, error, 0.0)
            return
        requests = list(batch.requests.items())
        half = len(requests) // 2
        parts = [self._new_batch(dict(part)) for part in (requests[:half], requests[half:])]
        for part in parts:
            await self._run(part)

    # Results.

    async def _follow(self, batch: Batch) -> None:
        """Wait until a submitted batch ends, or until a stop."""
        assert batch.batch_id is not None
        try:
            ended = await self._client.wait(batch.batch_id, batch.created_at, batch.custom_ids)
        except BatchGoneError as gone:
            lost = UnreadableReplyError(f"the server has not kept the batch: {gone}")
            await self._distribute(batch, dict.fromkeys(batch.custom_ids, lost))
        except (StopRequested, AccessError) as stop:
            self._leave(batch, str(stop))
        else:
            await self._distribute(batch, ended.results)

    async def _distribute(self, batch: Batch, outcomes: Mapping[str, Reply | CallError]) -> None:
        """Store every result and pass it to its caller, in whatever order they come.

        A request without one may have been billed all the same, and is not sent again by itself.
        """
        seconds = time.time() - batch.created_at
        billed_usd = 0.0
        for number, key in enumerate(batch.custom_ids, start=1):
            outcome = outcomes.get(key) or UnreadableReplyError(
                f"batch {batch.batch_id} ended without a result for this request that can be read"
            )
            self._out.pop(key, None)
            request = batch.requests.get(key) or PendingRequest.of_nobody(
                key, self._limits, batch.mean_worst_case_usd
            )
            is_stored = isinstance(outcome, Reply) and (key, outcome.request_id) in batch.stored
            if is_stored or self._recorder.cached(key) is not None:
                request.answer(None)
            else:
                billed_usd += self._deliver(request, outcome, seconds)
            if number % _RESULTS_AT_A_TIME == 0:
                await asyncio.sleep(0)
        if batch.committed is not None:
            batch.committed.charge(billed_usd)
        self._close(batch, "ended")

    def _deliver(
        self, request: PendingRequest, outcome: Reply | CallError, seconds: float
    ) -> float:
        """Store one result, pass it on, and return what it cost."""
        call = request.call
        call.history.attempts += 1
        worst_case_usd = request.worst_case_usd
        if worst_case_usd is None:
            worst_case_usd = self._recorder.worst_case_usd(call.worst_case_tokens)
        if isinstance(outcome, Reply):
            try:
                outcome = self._checked(outcome, call.request.max_tokens)
            except UnreadableReplyError as error:
                outcome = error
        if isinstance(outcome, Reply):
            billed_usd = self._recorder.cost_usd(outcome.usage, worst_case_usd) or 0.0
            try:
                request.answer(self._take_reply(call, outcome, worst_case_usd, seconds))
            except BadReplyError as error:
                request.fail(error)
        else:
            billed_usd = self._take_error(call, outcome, worst_case_usd, seconds)
            request.fail(outcome)
        if request.reservation is not None:
            request.reservation.charge(billed_usd)
        return billed_usd

    # Ends without results.

    def _leave(self, batch: Batch, because: str) -> None:
        """Stop waiting: the batch runs on at the server, and the next run takes its results."""
        self.stop(because)
        self._forget(batch)
        count = len(batch.custom_ids)
        self.num_left_at_server += count
        if batch.committed is not None:
            batch.committed.charge(batch.committed.amount_usd)
        self._turn_away(
            batch.requests.values(),
            is_billed=True,
            because=f"{self._stop_reason}; {count} requests of batch {batch.batch_id or 'unknown'} "
            "go on at the server, and the next run takes their results",
        )

    def _turn_away(
        self, requests: Iterable[PendingRequest], *, is_billed: bool, because: str | None = None
    ) -> None:
        for request in requests:
            request.release(is_billed=is_billed)
            request.fail(StopRequested(because or self._stop_reason))

    def _close(self, batch: Batch, status: str) -> None:
        self._ledger.finish_batch_requests(batch.intent_id, batch.custom_ids)
        self._ledger.update_batch(batch.intent_id, status=status)

    def _forget(self, batch: Batch) -> None:
        for key in batch.custom_ids:
            self._out.pop(key, None)

    # Batches of earlier runs.

    def _earlier_batches(self) -> list[Batch]:
        """Open batches of this backend; their worst case is reserved from now on."""
        mine = (self.info.provider, self.info.model, self.info.endpoint)
        batches = []
        for found in self._ledger.open_batches():
            if (found.provider, found.model, found.endpoint) != mine:
                continue
            ((worst_case_usd,),) = self._ledger.query(
                "SELECT worst_case_usd FROM batches WHERE intent_id = ?", [found.intent_id]
            )
            stored = self._ledger.query(
                "SELECT call_key, request_id FROM calls"
                " WHERE batch AND request_id <> '' AND call_key IN (SELECT unnest(?))",
                [list(found.custom_ids)],
            )
            batch = Batch(
                found.intent_id, found.custom_ids, found.created_at.timestamp(), found.batch_id
            )
            batch.committed = self._budget.reserve_committed(worst_case_usd or 0.0)
            batch.stored = frozenset((key, request_id) for key, request_id in stored)
            batches.append(batch)
        return batches

    async def _follow_earlier(self, batch: Batch) -> None:
        if batch.batch_id is None:
            try:
                ended = await self._client.find(batch.custom_ids, batch.created_at)
            except (StopRequested, AccessError, BatchGoneError) as stop:
                self._leave(batch, str(stop))
                return
            if ended is None:
                self._give_up(batch)
                return
            batch.batch_id = ended.batch_id
            self._ledger.update_batch(batch.intent_id, status="submitted", batch_id=batch.batch_id)
        await self._follow(batch)

    def _give_up(self, batch: Batch) -> None:
        """The intent never became a batch: its requests are submitted again when called."""
        self._close(batch, "abandoned")
        self._forget(batch)
        if batch.committed is not None:
            batch.committed.charge(0.0)
        for request in batch.requests.values():
            request.answer(None)
