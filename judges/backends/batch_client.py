"""Patience with a batch server: submit once and only once, wait for the end, find what was lost.

A submission that may have got through although no answer came is looked up in the server's list
before it is made again: the list tells how many requests a batch has, its results tell which.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from judges.backends.base import (
    BatchBackend,
    BatchInfo,
    BatchResult,
    ChatRequest,
    RetryableError,
)
from judges.backends.budget import StopRequested
from judges.backends.retrying import CallHistory, CallLimits, retry_policy

if TYPE_CHECKING:
    from schemas.ledger import Ledger

_T = TypeVar("_T")
_CLOCK_SKEW_SECONDS = 3600.0
_FIRST_LOOK_SECONDS = 1.0
# How long a submission without an answer may take to appear in the server's list.
_SETTLING_SECONDS = 5.0


@dataclass(frozen=True)
class EndedBatch:
    """A batch with its results."""

    batch_id: str
    results: list[BatchResult]


class BatchClient:
    """Every method retries as calls do, and raises StopRequested when the server stays away.

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
        """
        custom_ids = {custom_id for custom_id, _ in requests}

        async def attempt() -> str:
            try:
                info = await self._backend.submit(requests)
            except RetryableError as error:
                if error.overloaded:
                    raise
                await self._sleep(min(_SETTLING_SECONDS, self._poll_seconds))
                ended = await self.find(custom_ids, created_at)
                if ended is None:
                    raise
                return ended.batch_id
            return info.batch_id

        batch_id = await self._patiently(attempt, "a batch cannot be submitted", self._is_busy)
        self._running.add(batch_id)
        return batch_id

    async def wait(self, batch_id: str) -> EndedBatch:
        """The results of a batch, as soon as it has ended."""
        self._running.add(batch_id)
        look_again_seconds = min(_FIRST_LOOK_SECONDS, self._poll_seconds)
        try:
            while not (await self._patiently(lambda: self._backend.retrieve(batch_id))).ended:
                await self._sleep(look_again_seconds)
                look_again_seconds = min(self._poll_seconds, 1.5 * look_again_seconds)
            return EndedBatch(
                batch_id, await self._patiently(lambda: self._backend.results(batch_id))
            )
        finally:
            self._running.discard(batch_id)

    async def find(self, custom_ids: Collection[str], created_at: float) -> EndedBatch | None:
        """The batch of exactly these requests that the ledger does not know, once it has ended."""
        after = created_at - _CLOCK_SKEW_SECONDS
        listed = await self._patiently(lambda: self._backend.list_batches(after))
        known = self._running | await asyncio.to_thread(self._stored_batch_ids)
        candidates = [
            info
            for info in listed
            if info.batch_id not in known and info.num_requests == len(custom_ids)
        ]
        for info in sorted(candidates, key=_ended_first):
            ended = await self.wait(info.batch_id)
            if {result.custom_id for result in ended.results} == set(custom_ids):
                return ended
        return None

    def _stored_batch_ids(self) -> set[str]:
        rows = self._ledger.query("SELECT batch_id FROM batches WHERE batch_id IS NOT NULL")
        return {batch_id for (batch_id,) in rows}

    def _is_busy(self) -> bool:
        return bool(self._running)

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
            raise StopRequested("nobody waits for batches any more")


def _ended_first(info: BatchInfo) -> tuple[bool, float]:
    return not info.ended, info.created_at
