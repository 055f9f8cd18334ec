"""Batched calls over a scripted server, and what tests ask of them."""

import asyncio
from typing import Any

from helpers.scripted_backend import COST_USD, FAST, WORST_CASE_USD, ScriptedBatchServer, ask

from judges.backends.base import Reply
from judges.backends.batched_calls import BatchedCalls
from judges.backends.budget import Budget
from judges.backends.calls import CallResult
from judges.backends.prices import Prices
from schemas.ledger.ledger import Ledger

HALF_COST_USD = COST_USD / 2
HALF_WORST_CASE_USD = WORST_CASE_USD / 2


def batched(
    server: ScriptedBatchServer, ledger: Ledger, *, budget: Budget | None = None, **options: Any
) -> BatchedCalls:
    return BatchedCalls(
        server,
        ledger,
        limits=FAST,
        prices=Prices.load(),
        budget=budget or Budget(None),
        run_id=ledger.run_id,
        linger_seconds=options.pop("linger_seconds", 0.02),
        poll_seconds=options.pop("poll_seconds", 0.005),
        **options,
    )


async def ask_all(calls: BatchedCalls, texts: str) -> list[CallResult]:
    async with asyncio.timeout(20):
        return await asyncio.gather(*(calls.call(ask(text)) for text in texts))


def texts_of(results: list[CallResult]) -> list[str]:
    return [
        result.outcome.text if isinstance(result.outcome, Reply) else result.outcome.reason
        for result in results
    ]


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


def open_intents(ledger: Ledger) -> list[tuple[Any, ...]]:
    return ledger.query("SELECT batch_id, status FROM batches ORDER BY created_at, batch_id")
