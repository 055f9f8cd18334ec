"""A limit in dollars that is never passed: what is in flight counts at its worst case."""

import asyncio
import math
from collections import deque
from fractions import Fraction

from schemas.serialization import one_line

_PICODOLLARS = 10**12


class StopRequested(Exception):
    """Raised instead of starting a call after a stop; nothing is stored, a later run repeats it.

    Its one line may hold a server's words: nothing in it acts on a terminal.
    """

    def __init__(self, because: str) -> None:
        super().__init__(one_line(because))


class BudgetExhausted(StopRequested):
    """The next call might pass the limit, whatever the calls in flight turn out to cost."""


class Reservation:
    """Money set aside for one attempt, until `charge` replaces it by what the attempt cost."""

    def __init__(self, budget: "Budget", amount: int) -> None:
        self._budget = budget
        self._amount = amount
        self._is_charged = False

    @property
    def amount_usd(self) -> float:
        """What was set aside."""
        return self._amount / _PICODOLLARS

    def charge(self, actual_usd: float) -> None:
        """Replace the reservation by what was billed. Once only."""
        if self._is_charged:
            raise RuntimeError("a reservation is charged once, this one was charged before")
        self._is_charged = True
        self._budget._charge(self._amount, _picodollars(actual_usd))


class Budget:
    """Spent plus reserved never passes `limit_usd` (None: no limit), in the order of the requests.

    One budget serves all backends of a build. `already_spent_usd` is what earlier runs paid.
    Amounts are whole picodollars: rounding errors of floats cannot add up to a passed limit.
    """

    def __init__(self, limit_usd: float | None, *, already_spent_usd: float = 0.0) -> None:
        if limit_usd is not None and not 0 <= limit_usd < float("inf"):
            raise ValueError(
                f"the budget is {limit_usd!r} dollars: give a number of at least 0, or no limit"
            )
        self._limit = None if limit_usd is None else _picodollars(limit_usd)
        self._spent = _picodollars(already_spent_usd)
        self._reserved = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def limit_usd(self) -> float | None:
        """The limit, or None."""
        return None if self._limit is None else self._limit / _PICODOLLARS

    @property
    def spent_usd(self) -> float:
        """What was billed, earlier runs included."""
        return self._spent / _PICODOLLARS

    @property
    def reserved_usd(self) -> float:
        """The worst case of what is in flight."""
        return self._reserved / _PICODOLLARS

    async def reserve(self, worst_case_usd: float) -> Reservation:
        """Set `worst_case_usd` aside, after waiting for other calls to end if need be.

        Raises BudgetExhausted when it cannot fit even if all that is in flight costs nothing.
        """
        amount = _picodollars(worst_case_usd)
        self._refuse_hopeless(amount)
        if self._waiting or not self._fits(amount):
            await self._wait_for_room(amount)
        else:
            self._reserved += amount
        return Reservation(self, amount)

    def reserve_committed(self, worst_case_usd: float) -> Reservation:
        """Set money aside for what an earlier run has sent already: it may cost that, limit or not.

        New reservations then wait or fail as if this one had been made first.
        """
        amount = _picodollars(worst_case_usd)
        self._reserved += amount
        return Reservation(self, amount)

    async def _wait_for_room(self, amount: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._charge(amount, 0)
            else:
                self._grant()
            raise

    def _charge(self, amount: int, actual: int) -> None:
        self._reserved -= amount
        self._spent += actual
        self._grant()

    def _grant(self) -> None:
        while self._waiting:
            amount, granted = self._waiting[0]
            if granted.done():
                self._waiting.popleft()
            elif self._limit is not None and self._spent + amount > self._limit:
                self._waiting.popleft()
                granted.set_exception(self._exhausted(amount))
            elif self._fits(amount):
                self._waiting.popleft()
                self._reserved += amount
                granted.set_result(None)
            else:
                return

    def _fits(self, amount: int) -> bool:
        return self._limit is None or self._spent + self._reserved + amount <= self._limit

    def _refuse_hopeless(self, amount: int) -> None:
        if self._limit is not None and self._spent + amount > self._limit:
            raise self._exhausted(amount)

    def _exhausted(self, amount: int) -> BudgetExhausted:
        in_flight = f", calls in flight may cost ${self.reserved_usd:.4f}" if self._reserved else ""
        return BudgetExhausted(
            f"the budget of ${self.limit_usd:.4f} is used up: ${self.spent_usd:.4f} are "
            f"spent{in_flight} and the next call may cost up to ${amount / _PICODOLLARS:.4f}. "
            "Run the same command with a higher limit to go on where it stopped"
        )


def _picodollars(dollars: float) -> int:
    """Exact for every amount. Raises ValueError for what is no amount of money."""
    if not 0 <= dollars < math.inf:
        raise ValueError(f"{dollars!r} is no amount of dollars: a number of at least 0 is expected")
    return round(Fraction(dollars) * _PICODOLLARS)
