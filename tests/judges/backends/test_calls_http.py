"""The call layers over the real protocol: faults on the wire, batches, a process that is killed."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from helpers.chat_requests import text_request
from helpers.folders import TESTS
from helpers.scripted_backend import live, open_ledger, rows
from servers.model_server import TEST_KEY, RunningServer

from judges.backends.base import Reply
from judges.backends.batched_calls import BatchedCalls
from judges.backends.budget import Budget
from judges.backends.calls import CallFailure, CallLimits, CallResult
from judges.backends.claude import ClaudeBackend
from judges.backends.prices import Prices
from judges.backends.registry import open_backend
from schemas.samples import Reason

pytestmark = pytest.mark.heavy

SPEC = "claude:claude-sonnet-5-5"
LIMITS = CallLimits(max_concurrency=32, retry_base_seconds=0.002, retry_cap_seconds=0.02)


@pytest_asyncio.fixture
async def backend(
    model_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ClaudeBackend]:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", model_server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    opened = await open_backend(SPEC)
    assert isinstance(opened, ClaudeBackend)
    yield opened
    await opened.aclose()


def ended(result: CallResult) -> str:
    return result.outcome.text if isinstance(result.outcome, Reply) else result.outcome.reason


async def test_faults_change_nothing_but_what_the_rules_make_final(
    backend: ClaudeBackend, model_server: RunningServer, tmp_path: Path
) -> None:
    requests = [text_request(f"Is {number} even?") for number in range(200)]
    (tmp_path / "calm").mkdir()
    (tmp_path / "rough").mkdir()
    with open_ledger(tmp_path / "calm") as ledger:
        calls = live(backend, ledger, limits=LIMITS)
        calm = await asyncio.gather(*(calls.call(request) for request in requests))
    rates = {"rate_limit": 0.2, "overloaded": 0.05, "server_error": 0.05, "drop": 0.03}
    rates |= {"empty": 0.02, "truncated": 0.02, "refused": 0.01}
    model_server.control(rates=rates, seed=3)
    with open_ledger(tmp_path / "rough") as ledger:
        budget = Budget(100.0)
        calls = live(backend, ledger, limits=LIMITS, budget=budget)
        rough = await asyncio.gather(*(calls.call(request) for request in requests))
        refused = [r for r in rough if isinstance(r.outcome, CallFailure)]
        assert {failure.outcome.reason for failure in refused} == {Reason.REFUSED}  # type: ignore[union-attr]
        different = {a.call_key for a, b in zip(calm, rough, strict=True) if ended(a) != ended(b)}
        assert different == {failure.call_key for failure in refused}
        assert 0 < len(different) < 12
        assert calls.stats.retries > 40
        # What the server billed is in the ledger, call by call; dropped ones at their worst case.
        billed = [r["usage"] for r in model_server.requests("/v1/messages")[200:] if r.get("usage")]
        stored = rows(ledger, "input_tokens, output_tokens")
        assert sorted(row for row in stored if row != (0, 0)) == sorted(
            (usage["input_tokens"], usage["output_tokens"]) for usage in billed
        )
        assert budget.spent_usd == pytest.approx(ledger.spent_usd(), rel=0, abs=1e-9)


async def test_batches_over_the_wire_end_like_live_calls(
    backend: ClaudeBackend, model_server: RunningServer, tmp_path: Path
) -> None:
    requests = [text_request(f"Is {number} even?") for number in range(40)]
    (tmp_path / "live").mkdir()
    with open_ledger(tmp_path / "live") as ledger:
        calls = live(backend, ledger, limits=LIMITS)
        straight = await asyncio.gather(*(calls.call(request) for request in requests))
    model_server.control(
        rates={"errored": 0.1, "expired": 0.1, "empty": 0.05, "truncated": 0.05},
        batch_seconds=0.05,
        batch_order="shuffled",
    )
    with open_ledger(tmp_path) as ledger:
        batched = over(backend, ledger)
        async with asyncio.timeout(30):
            results = await asyncio.gather(*(batched.call(request) for request in requests))
        await batched.aclose()
        assert [ended(result) for result in results] == [ended(result) for result in straight]
        assert ledger.open_batches() == []
        assert batched.stats.retries > 4


def over(backend: ClaudeBackend, ledger: object) -> BatchedCalls:
    return BatchedCalls(
        backend,
        ledger,  # type: ignore[arg-type]
        limits=LIMITS,
        prices=Prices.load(),
        budget=Budget(100.0),
        run_id="run",
        linger_seconds=0.05,
        poll_seconds=0.02,
    )


KILLED_RUN = """
import asyncio, sys
from pathlib import Path
from helpers.chat_requests import text_request
from helpers.scripted_backend import open_ledger
from test_calls_http import SPEC, over
from judges.backends.registry import open_backend

async def main():
    backend = await open_backend(SPEC)
    with open_ledger(Path(sys.argv[1])) as ledger:
        calls = over(backend, ledger)
        await asyncio.gather(*(calls.call(text_request(f"Is {n} even?")) for n in range(20)))

asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["intent", "submitted"])
async def test_a_killed_batch_run_is_resumed_without_paying_again(
    backend: ClaudeBackend, model_server: RunningServer, tmp_path: Path, moment: str
) -> None:
    """At "intent" the server takes the batch but its answer never arrives, then comes kill -9."""
    model_server.control(batch_seconds=600)
    if moment == "intent":
        hang = {"path": "/v1/messages/batches", "faults": [{"kind": "drop_middle"}]}
        model_server.control(script=[hang])
    # The product first: tests/judges would pass for the package `judges`.
    places = (TESTS.parent, Path(__file__).parent, TESTS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, str(tmp_path)], env=environment, cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while not model_server.requests("/v1/messages/batches"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    process.kill()
    process.wait()
    model_server.control(batch_seconds=0, end_batches=True)
    with open_ledger(tmp_path) as ledger:
        calls = over(backend, ledger)
        async with asyncio.timeout(60):
            results = await asyncio.gather(
                *(calls.call(text_request(f"Is {number} even?")) for number in range(20))
            )
        await calls.aclose()
        assert all(isinstance(result.outcome, Reply) for result in results)
        assert len(rows(ledger, "status")) == 20
        assert ledger.open_batches() == []
    created = [r for r in model_server.requests("/v1/messages/batches") if r["method"] == "POST"]
    assert len(created) == 1, "a second batch would have been paid"
