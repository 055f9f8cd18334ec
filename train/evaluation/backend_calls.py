"""Calls of language models during an evaluation: readers and extractors, with a ledger.

`OUT/calls.duckdb` keeps every call, so the same command again pays for nothing twice.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from judges.backends.base import BackendInfo, BackendUnavailableError
from judges.backends.budget import Budget
from judges.backends.calls import CallLimits, Calls, StopRequested
from judges.backends.prices import Prices
from judges.backends.registry import BackendOptions, open_backend
from schemas.config import EXIT_OK, UsageError
from schemas.ledger import Ledger, LedgerError
from schemas.runs import start_run
from schemas.samples import CALL_ERRORS
from train.evaluation.options import EvaluateConfig
from train.evaluation.progress import AnswerProgress

CALLS_FILE = "calls.duckdb"
_One = TypeVar("_One")
_Found = TypeVar("_Found")


class OpenedBackend(NamedTuple):
    """A backend's call layer, and what it says of itself."""

    calls: Calls
    info: BackendInfo


@asynccontextmanager
async def open_calls(
    spec: str, config: EvaluateConfig, folder: Path
) -> AsyncIterator[OpenedBackend]:
    """The call layer of one backend. Raises UsageError where it cannot be opened or paid for."""
    options = BackendOptions(
        api_key_env=config.api_key_env,
        timeout_seconds=config.call_timeout_seconds,
        local_batch_size=config.local_batch_size,
        media_root=config.media_root,
        device=None if config.device == "auto" else config.device,
    )
    try:
        backend = await open_backend(spec, options)
    except BackendUnavailableError as error:
        raise UsageError(str(error)) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            ledger = Ledger.open(folder / CALLS_FILE, start_run("train.evaluate", config))
        except LedgerError as error:
            raise UsageError(str(error)) from error
        with ledger:
            if config.retry_failed:
                ledger.forget_failures(CALL_ERRORS)
            try:
                calls = Calls(
                    backend,
                    ledger,
                    limits=CallLimits(max_concurrency=config.concurrency),
                    prices=Prices.load(config.prices),
                    budget=Budget(config.max_cost_usd, already_spent_usd=ledger.spent_usd()),
                    run_id=ledger.run_id,
                )
            except ValueError as error:
                raise UsageError(str(error)) from error
            yield OpenedBackend(calls, backend.info)
            ledger.end_run(EXIT_OK)
    finally:
        await backend.aclose()


async def each(
    items: Sequence[_One], work: Callable[[_One], Awaitable[_Found]], *, at_once: int
) -> list[_Found]:
    """`work` of every item, in order, some under way together. Raises StopRequested."""
    window = asyncio.Semaphore(at_once)
    with AnswerProgress(len(items), 0) as progress:

        async def one(item: _One) -> _Found:
            async with window:
                found = await work(item)
            progress.advance(1, 0)
            return found

        tasks = [asyncio.create_task(one(item)) for item in items]
        try:
            return list(await asyncio.gather(*tasks))
        except StopRequested:
            await asyncio.wait(tasks)
            raise
