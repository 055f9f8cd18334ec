"""Requests on their way into a batch: who asks, for how much money, and when a batch is full."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from judges.backends.base import ChatRequest, Reply
from judges.backends.budget import Reservation
from judges.backends.call_layer import CallUnderWay
from judges.backends.call_records import CallFailure
from judges.backends.retrying import CallLimits

Outcome = Reply | CallFailure


@dataclass(eq=False)
class Asking:
    """Somebody who waits for one request's result; None as result tells to ask anew."""

    call: CallUnderWay
    end: "asyncio.Future[Outcome | None]"
    reservation: Reservation | None = None
    num_bytes: int = 0
    is_gathered: bool = False

    @classmethod
    def of_nobody(cls, key: str, limits: CallLimits) -> "Asking":
        """Stands for whoever no longer asks for a result of an earlier run."""
        call = CallUnderWay(key, ChatRequest((), max_tokens=0), (0, 0), limits)
        return cls(call, asyncio.get_running_loop().create_future())

    def answer(self, outcome: Outcome | None) -> None:
        """Hand the result over, if anybody still waits."""
        if not self.end.done():
            self.end.set_result(outcome)

    def fail(self, error: BaseException) -> None:
        """Hand an error over, if anybody still waits."""
        if not self.end.done():
            self.end.set_exception(error)

    def settle(self, *, is_billed: bool) -> None:
        """End the reservation without a result: at its worst case, or at nothing."""
        if self.reservation is not None:
            self.reservation.settle(self.reservation.amount_usd if is_billed else 0.0)


@dataclass(eq=False)
class Batch:
    """Requests of one intent, and who waits for them.

    Of an earlier run's batch: `committed` is what it may cost, `stored` the (call key, request id)
    of results that are recorded already.
    """

    intent_id: str
    custom_ids: tuple[str, ...]
    created_at: float
    batch_id: str | None = None
    askings: dict[str, Asking] = field(default_factory=dict)
    committed: Reservation | None = None
    stored: frozenset[tuple[str, str]] = frozenset()

    def join(self, call: CallUnderWay) -> Asking:
        """Wait for a request that is out already; whoever waited for it before has gone."""
        before = self.askings.get(call.key)
        end: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        asking = Asking(call, end, before.reservation if before is not None else None)
        self.askings[call.key] = asking
        return asking


class Gathering:
    """Hands its requests to `on_ready` when it is full or nothing new comes for a while."""

    def __init__(
        self,
        max_requests: int,
        max_bytes: int,
        linger_seconds: float,
        on_ready: Callable[[list[Asking]], None],
    ) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._linger_seconds = linger_seconds
        self._on_ready = on_ready
        self._askings: list[Asking] = []
        self._num_bytes = 0
        self._lingering: asyncio.TimerHandle | None = None

    def add(self, asking: Asking) -> None:
        """Gather one more."""
        if self._num_bytes + asking.num_bytes > self._max_bytes:
            self._ready()
        asking.is_gathered = True
        self._askings.append(asking)
        self._num_bytes += asking.num_bytes
        if self._lingering is not None:
            self._lingering.cancel()
        if len(self._askings) >= self._max_requests:
            self._ready()
        else:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(self._linger_seconds, self._ready)

    def remove(self, asking: Asking) -> None:
        """Forget one that nobody asks for any more."""
        self._askings.remove(asking)
        self._num_bytes -= asking.num_bytes
        asking.is_gathered = False

    def take(self) -> list[Asking]:
        """All that is gathered; starts anew."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        askings, self._askings, self._num_bytes = self._askings, [], 0
        for asking in askings:
            asking.is_gathered = False
        return askings

    def _ready(self) -> None:
        if askings := self.take():
            self._on_ready(askings)
