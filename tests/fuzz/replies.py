"""Replies of servers in both protocols, through the backends, the call layer and a ledger.

A case asks some questions of a spoilt server within a budget, then the same ones again of the
mended server with the same ledger.
"""

import asyncio
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from fuzz.corrupting import FINAL, LYING, SPOILS, Exchange, SpoiltServer
from fuzz.harness import Case, Runner
from fuzz.nasty import HOSTILE_WORDS, KEY
from fuzz.texts import ACTS, promise
from servers.replies import Prompt

from judges.backends.base import Backend, ChatRequest, Reply, TextPart, Usage
from judges.backends.budget import Budget, StopRequested
from judges.backends.calls import CallFailure, CallLimits, CallResult, Calls
from judges.backends.prices import Prices
from judges.backends.registry import BackendOptions, open_backend
from schemas.ledger.ledger import Ledger
from schemas.runs import start_run

_PROVIDERS = {"claude": "claude:claude-haiku-5-5", "openai": "openai:gpt-5-mini@{url}/v1"}
_TIMEOUT_SECONDS = 1.0
LIMITS = CallLimits(
    max_concurrency=4,
    retry_base_seconds=0.001,
    retry_cap_seconds=0.003,
    retry_after_max_seconds=0.2,
)
_MOST_ATTEMPTS = LIMITS.max_attempts + LIMITS.max_bad_replies - 1
PRICE_TABLE = """
dated = "2026-01-01"
source = "made up"
[openai."gpt-5-mini"]
input = 1.0
output = 4.0
"""

Outcome = CallResult | StopRequested


def good_reply(prompt: Prompt) -> str:
    """What the honest model says; some of it looks like markup."""
    number = prompt.text.partition("[[")[2].partition("]]")[0]
    return f"<judgement>Yes</judgement> [/bold] \x1b[31m reply {number} \u202e"


def question(number: int) -> ChatRequest:
    """A request that the server's log can tell from others."""
    return ChatRequest(
        (TextPart(f"[[{number}]] Is it so?"),),
        max_tokens=64,
        step="filter",
        question_id=f"question-{number}",
    )


async def opened(provider: str, url: str) -> Backend:
    """The backend, pointed at `url` with the fuzzed key."""
    os.environ |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY, "MY_FUZZ_SERVER": KEY}
    options = BackendOptions(api_key_env="MY_FUZZ_SERVER", timeout_seconds=_TIMEOUT_SECONDS)
    return await open_backend(_PROVIDERS[provider].format(url=url), options)


def open_ledger(folder: Path) -> Ledger:
    """A run of its own in the case's ledger."""
    return Ledger.open(folder / "cot.duckdb", start_run("fuzz", {}))


async def outcomes(calls: Any, numbers: Sequence[int]) -> list[Outcome]:
    """How each call ended: a result or a stop, nothing else."""
    made = (calls.call(question(number)) for number in numbers)
    ends = await asyncio.gather(*made, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, StopRequested):
            raise end
    return [end for end in ends if isinstance(end, CallResult | StopRequested)]


def stored_texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Every text in the ledger's tables, with its place."""
    with duckdb.connect(str(folder / "cot.duckdb"), read_only=True) as connection:
        for (table,) in connection.execute("show tables").fetchall():
            for row in connection.execute(f'select * from "{table}"').fetchall():
                yield f"ledger table {table}", repr(row)


def check_ends(ends: Sequence[Outcome]) -> None:
    """A failure is one line of the closed list; no key, nothing that acts on a terminal."""
    for end in ends:
        words = str(end) if isinstance(end, StopRequested) else ""
        if isinstance(end, CallResult) and isinstance(end.outcome, CallFailure):
            words = end.outcome.detail
        promise(KEY not in words, "the key stands in a failure's words")
        promise(not ACTS.search(words), f"a failure's words act: {words[:200]!r}")


def check_ledger(folder: Path) -> None:
    """No key is stored, and nothing costs less than nothing."""
    for where, text in stored_texts(folder):
        promise(KEY not in text, f"the key is stored in {where}")
    with duckdb.connect(str(folder / "cot.duckdb"), read_only=True) as connection:
        odd = connection.execute(
            "select cost_usd, input_tokens, output_tokens from calls where cost_usd < 0"
            " or not isfinite(cost_usd) or input_tokens < 0 or output_tokens < 0"
        ).fetchall()
    promise(not odd, f"calls that cost less than nothing: {odd[:3]}")


def check_exchanges(exchanges: Sequence[Exchange], num_first: int) -> None:
    """What was answered well or refused for good is not asked again; nothing is asked forever."""
    by_question: dict[str, list[tuple[int, Exchange]]] = defaultdict(list)
    for place, exchange in enumerate(exchanges):
        # one attempt may follow some redirects, a few of them as a GET that asks nothing
        if exchange.text and exchange.spoiled != "redirect":
            by_question[exchange.text].append((place, exchange))
    for text, log in by_question.items():
        first = [exchange for place, exchange in log if place < num_first]
        promise(len(first) <= _MOST_ATTEMPTS, f"question {text} was asked {len(first)} times")
        for before, (_, exchange) in zip(range(len(log)), log, strict=False):
            again = len(log) - before - 1
            promise(
                not (exchange.is_honest and again), f"question {text} was paid again {again} times"
            )
        for before, exchange in enumerate(first):
            is_final = exchange.spoiled == "final" and exchange.status in FINAL
            promise(
                not (is_final and before + 1 < len(first)),
                f"question {text} was asked again after a final {exchange.status}",
            )


def billed_usd(exchanges: Sequence[Exchange], backend: Backend, prices: Prices) -> float:
    """What the honest server bills: each reply that was made, whether or not it arrived."""
    total = 0.0
    for exchange in exchanges:
        if exchange.spoiled in {"", "cut", "trickle"} and exchange.status == 200:
            usage = json.loads(exchange.honest).get("usage", {})
            tokens = Usage(
                int(usage.get("input_tokens") or usage.get("prompt_tokens") or 0),
                int(usage.get("output_tokens") or usage.get("completion_tokens") or 0),
            )
            price = prices.price(backend.info.provider, backend.info.model)
            total += price.cost(tokens, batch=False) if price is not None else 0.0
    return total


def menu_of(draw: random.Random) -> tuple[str, ...]:
    """One to four ways to spoil a reply."""
    return tuple(draw.sample(sorted(SPOILS), draw.randint(1, 4)))


async def _spoilt_run(case: Case) -> int:
    draw = case.draw
    provider = draw.choice(sorted(_PROVIDERS))
    numbers = range(draw.randint(4, 48))
    limit = draw.choice((None, 0.0005, 0.002, 0.01))
    table = case.folder / "prices.toml"
    table.write_text(PRICE_TABLE, "utf-8")
    prices = Prices.load(table)
    odd: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: odd.append(context))
    reply = draw.choice((good_reply, _hostile_reply)) if draw.random() < 0.3 else good_reply
    server = SpoiltServer(draw, reply, menu_of(draw), draw.choice((0.1, 0.4, 0.8, 1.0)))
    async with server:
        backend = await opened(provider, server.url)
        try:
            budget = Budget(limit)
            with open_ledger(case.folder) as ledger:
                calls = _layer(backend, ledger, prices, budget)
                first = await outcomes(calls, numbers)
            num_first = len(server.exchanges)
            if limit is not None:
                _check_budget(server, backend, prices, budget, limit)
            server.is_healthy = True
            with open_ledger(case.folder) as ledger:
                second = await outcomes(_layer(backend, ledger, prices, Budget(None)), numbers)
        finally:
            await backend.aclose()
    promise(len(first) == len(second) == len(numbers), "a call without an outcome")
    promise(not any(isinstance(end, StopRequested) for end in second), "a healthy run stopped")
    for one, other in zip(first, second, strict=True):
        is_kept = isinstance(one, CallResult) and isinstance(one.outcome, Reply)
        promise(
            not is_kept or (isinstance(other, CallResult) and isinstance(other.outcome, Reply)),
            "a reply that was stored is gone",
        )
    check_ends([*first, *second])
    check_ledger(case.folder)
    check_exchanges(server.exchanges, num_first)
    promise(not odd, f"an error that nobody took: {odd[:1]}")
    return len(server.exchanges)


def _layer(backend: Backend, ledger: Ledger, prices: Prices, budget: Budget) -> Calls:
    return Calls(backend, ledger, limits=LIMITS, prices=prices, budget=budget, run_id=ledger.run_id)


def _hostile_reply(prompt: Prompt) -> str:
    number = int(prompt.text.partition("[[")[2].partition("]]")[0] or 0)
    return HOSTILE_WORDS[number % len(HOSTILE_WORDS)].encode("utf-8", "replace").decode()


def _check_budget(
    server: SpoiltServer, backend: Backend, prices: Prices, budget: Budget, limit: float
) -> None:
    """Never passed, neither in our books nor in those of an honest server."""
    if not LYING & {*server.menu}:
        billed = billed_usd(server.exchanges, backend, prices)
        promise(billed <= limit + 1e-9, f"${billed:.6f} were billed of ${limit:.6f}")
        promise(budget.spent_usd <= limit + 1e-9, f"${budget.spent_usd:.6f} of ${limit:.6f} spent")
    promise(budget.spent_usd >= 0, f"${budget.spent_usd:.6f} were spent")


def run_replies(case: Case) -> Counter[str]:
    """One ledger's two runs; counts the server's replies."""
    replies = asyncio.run(_spoilt_run(case))
    return Counter({"server replies": replies})


@contextmanager
def open_replies(folder: Path) -> Iterator[Runner]:
    """Nothing to prepare."""
    yield run_replies
