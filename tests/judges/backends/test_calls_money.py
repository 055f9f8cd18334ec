"""Calls and money: worst cases, the budget, attempts that may have been billed."""

import asyncio
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest
from helpers.scripted_backend import (
    COST_USD,
    WORST_CASE_USD,
    ScriptedBackend,
    ask,
    live,
    open_ledger,
    reply,
    rows,
)

from judges.backends.base import (
    ChatRequest,
    Reply,
    RetryableError,
    StopReason,
    UnreadableReplyError,
    Usage,
)
from judges.backends.budget import Budget, BudgetExhausted, StopRequested
from judges.backends.calls import CallFailure, CallLimits, CallResult
from schemas.ledger.ledger import Ledger
from schemas.samples import Reason


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
    await calls.call(ask("a"))
    assert calls.stats.cached == 1, "what is stored costs nothing"


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


@pytest.mark.parametrize(
    "usage",
    [
        Usage(1000, 100, is_reliable=False),
        Usage(-1_000_000, 100),
        Usage(1000, -1),
        Usage(10**23, 100),
        Usage(float("inf"), float("nan")),  # type: ignore[arg-type]
        Usage(10, 2, -100_000),
        Usage("many", None),  # type: ignore[arg-type]
    ],
)
async def test_a_reply_whose_usage_cannot_be_counts_at_its_worst_case(
    ledger: Ledger, usage: Usage
) -> None:
    """40 of them do not pass the budget, and the reply is not lost."""
    odd = Reply("fine", StopReason.END, usage)
    budget = Budget(0.06)
    calls = live(ScriptedBackend(*[odd] * 40), ledger, budget=budget)
    ends = [await _end(calls.call(ask(str(number)))) for number in range(40)]
    assert [isinstance(end, CallResult) for end in ends] == [True] * 6 + [False] * 34
    assert ledger.spent_usd() == pytest.approx(6 * WORST_CASE_USD, rel=0, abs=1e-9)
    assert budget.spent_usd == pytest.approx(6 * WORST_CASE_USD, rel=0, abs=1e-9)
    stored = rows(ledger, "status, input_tokens >= 0, error")
    assert [row[:2] for row in stored] == [("ok", True)] * 6
    assert all("worst case counts as spent" in str(row[2]) for row in stored)


async def _end(call: Awaitable[CallResult]) -> CallResult | BudgetExhausted:
    try:
        return await call
    except BudgetExhausted as error:
        return error


async def test_unreliable_usage_that_is_dearer_than_the_worst_case_is_not_cut(
    ledger: Ledger,
) -> None:
    dear = Usage(1000, 1000, is_reliable=False)  # $0.004 + $0.02
    await live(ScriptedBackend(Reply("fine", StopReason.END, dear)), ledger).call(ask("a"))
    assert ledger.spent_usd() == pytest.approx(0.024, rel=0, abs=1e-9)


async def test_a_reply_with_an_unknown_end_is_paid_and_rejected_once(ledger: Ledger) -> None:
    odd = Reply("", StopReason.OTHER, Usage(1000, 100), note="it ended for 'tool_use'")
    backend = ScriptedBackend(odd, odd)
    budget = Budget(1.0)
    calls = live(backend, ledger, budget=budget)
    for _ in range(2):
        result = await calls.call(ask("a"))
        assert result.outcome == CallFailure(Reason.BAD_REQUEST, "it ended for 'tool_use'")
    assert len(backend.requests) == 1
    assert rows(ledger, "status, is_final, cost_usd, output_tokens, stop_reason") == [
        ("rejected", True, COST_USD, 100, "other")
    ]
    assert budget.spent_usd == pytest.approx(COST_USD, rel=0, abs=1e-9)


async def test_a_server_that_ends_every_reply_oddly_is_left(ledger: Ledger) -> None:
    odd = Reply("", StopReason.OTHER, Usage(1000, 100), note="it ended for 'tool_use'")
    limits = CallLimits(max_failures_in_row=5)
    calls = live(ScriptedBackend(*[odd] * 50), ledger, limits=limits)
    for number in range(5):
        await calls.call(ask(str(number)))
    with pytest.raises(StopRequested, match="tool_use"):
        await calls.call(ask("6"))
    assert rows(ledger, "status") == [("rejected",)] * 5


async def test_a_reply_that_can_never_be_read_is_paid_once_and_asked_once(ledger: Ledger) -> None:
    backend = ScriptedBackend(UnreadableReplyError("of more than 8 MB"))
    budget = Budget(1.0)
    result = await live(backend, ledger, budget=budget).call(ask("a"))
    assert result.outcome == CallFailure(Reason.CALL_FAILED, "of more than 8 MB")
    assert len(backend.requests) == 1
    assert rows(ledger, "status, is_final, cost_usd") == [("failed", True, WORST_CASE_USD)]
    assert budget.spent_usd == pytest.approx(WORST_CASE_USD, rel=0, abs=1e-9)


async def test_a_text_longer_than_its_tokens_can_be_is_no_reply(ledger: Ledger) -> None:
    long = Reply("x" * (65_536 + 200 * 64 + 1), StopReason.END, Usage(1000, 100))
    result = await live(ScriptedBackend(long), ledger).call(ask("a"))
    assert isinstance(result.outcome, CallFailure)
    assert "at most 200 tokens" in result.outcome.detail
    assert rows(ledger, "status, cost_usd, reply") == [("failed", WORST_CASE_USD, "")]
