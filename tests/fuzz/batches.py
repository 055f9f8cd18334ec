"""Replies about batches: a request that a batch has taken is never submitted again by itself.

Three ways: looks at a batch fail, submissions get lost on their way back, lines of the results are
spoilt. Then the same calls again, of the mended server, with the same ledger.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuzz.corrupting import SPOILS, SpoiltServer, _with_status
from fuzz.harness import Case, Runner
from fuzz.replies import (
    LIMITS,
    Outcome,
    check_ends,
    check_ledger,
    good_reply,
    open_ledger,
    opened,
    outcomes,
)
from fuzz.texts import promise
from servers.wire import HttpRequest

from judges.backends.base import Backend, Reply
from judges.backends.batched_calls import BatchedCalls
from judges.backends.budget import Budget, StopRequested
from judges.backends.calls import CallResult
from judges.backends.prices import Prices
from schemas.ledger.ledger import Ledger

SPOILS["lost"] = _with_status((500, 502, 503, 504))
_PATIENCE_SECONDS = 2.0  # of the first run, before it is stopped as by Ctrl-C
_MENUS = {
    "looks": ("retried", "final", "redirect", "cut", "body"),
    "submissions": ("lost", "cut"),
    "lines": ("json", "bytes"),
}


def _is_look(request: HttpRequest) -> bool:
    return request.method == "GET" and "/batches/" in request.path


def _is_submission(request: HttpRequest) -> bool:
    return request.method == "POST" and request.path.endswith("/batches")


def _is_results(request: HttpRequest) -> bool:
    return request.path.endswith("/results")


_WHERE = {"looks": _is_look, "submissions": _is_submission, "lines": _is_results}


def _layer(backend: Backend, ledger: Ledger, draw: random.Random) -> BatchedCalls:
    return BatchedCalls(
        backend,  # type: ignore[arg-type]  # Claude has batches
        ledger,
        limits=LIMITS,
        prices=Prices.load(),
        budget=Budget(None),
        run_id=ledger.run_id,
        max_requests=draw.choice((2, 5, 100)),
        linger_seconds=0.01,
        poll_seconds=0.01,
    )


async def _stopped_run(calls: BatchedCalls, num_calls: int) -> list[Outcome]:
    """All calls, stopped after a while; nothing is left waiting."""
    asking = asyncio.ensure_future(outcomes(calls, range(num_calls)))
    await asyncio.wait([asking], timeout=_PATIENCE_SECONDS)
    await calls.aclose()
    return await asking


def submitted(server: SpoiltServer) -> Counter[str]:
    """How often each request stands in a batch of the server."""
    taken = server.app.batches._batches.values()
    return Counter(one["custom_id"] for batch in taken for one in batch.requests)


async def _spoilt_batches(case: Case) -> int:
    draw = case.draw
    mode = draw.choice(sorted(_MENUS))
    menu = tuple(draw.sample(_MENUS[mode], draw.randint(1, 2)))
    num_calls = draw.randint(1, 12)
    odd: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: odd.append(context))
    server = SpoiltServer(draw, good_reply, menu, draw.choice((0.2, 0.6, 1.0)), _WHERE[mode])
    async with server:
        server.app.batches.order = draw.choice(("given", "reversed", "shuffled"))
        backend = await opened("claude", server.url)
        try:
            with open_ledger(case.folder) as ledger:
                first = await _stopped_run(_layer(backend, ledger, draw), num_calls)
            after_first = submitted(server)
            server.is_healthy = True
            with open_ledger(case.folder) as ledger:
                calls = _layer(backend, ledger, draw)
                second = await outcomes(calls, range(num_calls))
                await calls.aclose(wait=True)
        finally:
            await backend.aclose()
    _check(mode, first, second, after_first, submitted(server))
    check_ends([*first, *second])
    check_ledger(case.folder)
    promise(not odd, f"an error that nobody took: {odd[:1]}")
    return len(server.exchanges)


def _check(
    mode: str,
    first: list[Outcome],
    second: list[Outcome],
    after_first: Counter[str],
    in_all: Counter[str],
) -> None:
    promise(not any(isinstance(end, StopRequested) for end in second), "a healthy run stopped")
    if mode != "lines":
        twice = {key: count for key, count in in_all.items() if count > 1}
        worst = max(twice.values(), default=1)
        promise(not twice, f"spoilt {mode}: requests were submitted up to {worst} times")
        replies = [
            end for end in second if isinstance(end, CallResult) and isinstance(end.outcome, Reply)
        ]
        promise(len(replies) == len(second), f"spoilt {mode}: a paid result was never taken")
        return
    most = max(after_first.values(), default=0)
    promise(most <= LIMITS.max_attempts + LIMITS.max_bad_replies, f"submitted {most} times")
    for one, other in zip(first, second, strict=True):
        is_kept = isinstance(one, CallResult) and isinstance(one.outcome, Reply)
        is_still = isinstance(other, CallResult) and isinstance(other.outcome, Reply)
        promise(not is_kept or is_still, "a reply that was stored is gone")


def run_batches(case: Case) -> Counter[str]:
    """One ledger's two runs; counts the server's replies."""
    return Counter({"batch replies": asyncio.run(_spoilt_batches(case))})


@contextmanager
def open_batches(folder: Path) -> Iterator[Runner]:
    """Nothing to prepare."""
    yield run_batches
