"""Calls and money: worst cases, the budget, attempts that may have been billed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_backend import (
    COST_USD,
    WORST_CASE_USD,
    ScriptedBackend,
    ask,
    live,
    open_ledger,
    reply,
    rows,
)

from judges.backends.base import ChatRequest, Reply, RetryableError
from judges.backends.budget import Budget, BudgetExhausted
from judges.backends.calls import CallResult
from schemas.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as ledger:
        yield ledger


def text(result: CallResult) -> str:
    assert isinstance(result.outcome, Reply), result.outcome
    return result.outcome.text


async def test_an_attempt_that_may_have_been_billed_counts_at_its_worst_case(
    ledger: Ledger,
) -> None:
    budget = Budget(1.0)
    backend = ScriptedBackend(RetryableError("timed out", maybe_billed=True))
    calls = live(backend, ledger, budget=budget)
    assert text(await calls.call(ask("a"))) == "fine"
    stored = rows(ledger, "status, is_final, cost_usd, error")
    assert [row[:3] for row in stored] == [
        ("failed", False, WORST_CASE_USD),
        ("ok", True, COST_USD),
    ]
    assert "timed out (may have been billed" in str(stored[0][3])
    spent = pytest.approx(WORST_CASE_USD + COST_USD, rel=0, abs=1e-9)
    assert budget.spent_usd == spent
    assert ledger.spent_usd() == spent
    assert calls.stats.cost_usd == spent


async def test_the_budget_stops_calls_before_the_limit_is_passed(ledger: Ledger) -> None:
    # A call costs 0.006 and reserves 0.009: after 3 calls 0.018 are spent, a 4th might reach 0.027.
    budget = Budget(0.026)
    calls = live(ScriptedBackend(), ledger, budget=budget)
    for name in "abc":
        await calls.call(ask(name))
    with pytest.raises(BudgetExhausted, match=r"higher limit"):
        await calls.call(ask("d"))
    assert (await calls.call(ask("a"))).from_cache, "what is stored costs nothing"


async def test_calls_in_flight_count_at_their_worst_case(ledger: Ledger) -> None:
    budget = Budget(0.03)
    backend = ScriptedBackend()
    calls = live(backend, ledger, budget=budget)
    ends = await asyncio.gather(
        *(calls.call(ask(str(i))) for i in range(10)), return_exceptions=True
    )
    # 0.006 n + 0.009 <= 0.03 holds before the first four calls only.
    assert sum(isinstance(end, CallResult) for end in ends) == 4
    assert sum(isinstance(end, BudgetExhausted) for end in ends) == 6
    assert backend.peak == 3, "three worst cases fit at once"
    assert ledger.spent_usd() <= 0.03


async def test_a_cancelled_attempt_counts_as_paid(ledger: Ledger) -> None:
    gate = asyncio.Event()

    async def answer(request: ChatRequest) -> Reply:
        await gate.wait()
        return reply()

    budget = Budget(1.0)
    calls = live(ScriptedBackend(answer=answer), ledger, budget=budget)
    task = asyncio.create_task(calls.call(ask("a")))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert budget.spent_usd == pytest.approx(WORST_CASE_USD, rel=0, abs=1e-9)
    assert ledger.spent_usd() == pytest.approx(WORST_CASE_USD, rel=0, abs=1e-9)
    assert calls.stats.in_flight == 0


async def test_a_budget_over_a_model_without_a_price_is_refused(ledger: Ledger) -> None:
    backend = ScriptedBackend()
    backend.info = type(backend.info)("x", "openai", "my-model", "http://here")
    with pytest.raises(ValueError, match=r"'my-model'.*--prices"):
        live(backend, ledger, budget=Budget(1.0))
    result = await live(backend, ledger).call(ask("a"))
    assert text(result) == "fine"
    assert rows(ledger, "cost_usd, input_tokens") == [(None, 1000)]
