"""The budget: spent plus reserved never passes the limit, and nobody waits in vain."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judges.backends.budget import Budget, BudgetExhausted, StopRequested


async def others_ran() -> None:
    """Let every task that can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_without_a_limit_everything_fits_and_is_counted() -> None:
    budget = Budget(None)
    reservation = await budget.reserve(1e6)
    reservation.charge(12.5)
    assert (budget.spent_usd, budget.reserved_usd) == (12.5, 0.0)


async def test_no_amount_is_negative_endless_or_too_large_to_count() -> None:
    """1e308 dollars are no sensible limit, but no crash either."""
    budget = Budget(1e308, already_spent_usd=1.5)
    reservation = await budget.reserve(1e300)
    assert budget.limit_usd == 1e308
    for wrong in (-0.01, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="is no amount of dollars"):
            await budget.reserve(wrong)
        with pytest.raises(ValueError, match="is no amount of dollars"):
            Budget(1.0, already_spent_usd=wrong)
    reservation.charge(2.0)
    assert budget.spent_usd == 3.5


async def test_a_reservation_counts_until_it_is_charged() -> None:
    budget = Budget(1.0)
    first = await budget.reserve(0.6)
    second = asyncio.create_task(budget.reserve(0.6))
    await others_ran()
    assert not second.done(), "0.6 + 0.6 passes 1.0: the second call must wait for the first"
    first.charge(0.1)
    await others_ran()
    assert second.done()
    assert budget.spent_usd + budget.reserved_usd == pytest.approx(0.7, rel=0, abs=1e-12)


async def test_waiting_ends_in_exhaustion_when_the_others_cost_too_much() -> None:
    budget = Budget(1.0)
    first = await budget.reserve(0.6)
    second = asyncio.create_task(budget.reserve(0.6))
    await others_ran()
    first.charge(0.5)
    with pytest.raises(BudgetExhausted, match=r"\$1\.0000.*\$0\.5000 are spent.*\$0\.6000"):
        await second


async def test_what_can_never_fit_is_refused_at_once_even_while_others_are_in_flight() -> None:
    budget = Budget(1.0)
    await budget.reserve(0.6)
    with pytest.raises(
        BudgetExhausted, match=r"0\.0000 are spent, calls in flight may cost \$0\.6"
    ):
        await asyncio.wait_for(budget.reserve(1.01), timeout=1)


async def test_money_of_earlier_runs_counts() -> None:
    budget = Budget(1.0, already_spent_usd=0.95)
    with pytest.raises(BudgetExhausted):
        await budget.reserve(0.1)
    await budget.reserve(0.05)


async def test_a_limit_is_reached_exactly_but_not_passed() -> None:
    # In floats 0.1 + 0.1 + 0.1 is more than 0.3.
    budget = Budget(0.3)
    for _ in range(3):
        (await budget.reserve(0.1)).charge(0.1)
    with pytest.raises(BudgetExhausted):
        await budget.reserve(1e-9)


async def test_those_who_wait_are_served_in_their_order() -> None:
    budget = Budget(1.0)
    first = await budget.reserve(1.0)
    order: list[str] = []

    async def ask(name: str, amount: float) -> None:
        await budget.reserve(amount)
        order.append(name)

    tasks = [asyncio.create_task(ask("large", 0.9)), asyncio.create_task(ask("small", 0.1))]
    await others_ran()
    first.charge(0.0)
    await asyncio.gather(*tasks)
    assert order == ["large", "small"]


async def test_a_cancelled_wait_lets_the_next_one_through() -> None:
    budget = Budget(1.0)
    first = await budget.reserve(0.5)
    large = asyncio.create_task(budget.reserve(0.9))
    small = asyncio.create_task(budget.reserve(0.4))
    await others_ran()
    large.cancel()
    await others_ran()
    assert small.done()
    first.charge(0.5)
    assert budget.reserved_usd == pytest.approx(0.4, rel=0, abs=1e-12)


async def test_a_wait_cancelled_after_it_was_granted_gives_its_money_back() -> None:
    budget = Budget(1.0)
    first = await budget.reserve(1.0)
    waiting = asyncio.create_task(budget.reserve(0.7))
    await others_ran()
    first.charge(0.0)
    waiting.cancel()
    await others_ran()
    assert budget.reserved_usd == 0.0


async def test_what_an_earlier_run_has_sent_counts_although_it_passes_the_limit() -> None:
    budget = Budget(1.0)
    sent = budget.reserve_committed(1.4)
    waiting = asyncio.create_task(budget.reserve(0.3))
    await others_ran()
    assert not waiting.done()
    sent.charge(0.6)
    await others_ran()
    assert waiting.done()


async def test_a_reservation_settles_once() -> None:
    reservation = await Budget(1.0).reserve(0.5)
    reservation.charge(0.5)
    with pytest.raises(RuntimeError, match="charged before"):
        reservation.charge(0.5)


@pytest.mark.parametrize("limit", [-0.01, float("nan"), float("inf")])
def test_a_limit_that_is_no_amount_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Budget(limit)


def test_a_stop_says_what_a_server_said_without_what_acts_in_it() -> None:
    assert str(StopRequested("answered 599:\n\x1b[31m \x00 \u202e")) == (
        r"answered 599: \x1b[31m \x00 \u202e"
    )


def test_exhaustion_is_a_stop() -> None:
    assert issubclass(BudgetExhausted, StopRequested)


@given(st.integers(0, 10_000), st.floats(0.001, 2.0), st.integers(1, 40))
def test_no_order_of_events_passes_the_limit(seed: int, limit: float, workers: int) -> None:
    chance = random.Random(seed)
    budget = Budget(limit)
    peak = 0.0
    outcomes: list[str] = []

    async def work() -> None:
        nonlocal peak
        worst = chance.uniform(0, limit / 2)
        try:
            reservation = await budget.reserve(worst)
        except BudgetExhausted:
            outcomes.append("exhausted")
            return
        peak = max(peak, budget.spent_usd + budget.reserved_usd)
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        reservation.charge(chance.uniform(0, worst))
        outcomes.append("paid")

    async def main() -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(*(work() for _ in range(workers)))

    asyncio.run(main())
    assert len(outcomes) == workers
    assert peak <= limit + 1e-11
    assert budget.reserved_usd == 0.0
