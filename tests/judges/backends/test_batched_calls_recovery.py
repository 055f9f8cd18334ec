"""After a kill or a stop: batches at the server are found again, and nothing is paid twice."""

import asyncio
from pathlib import Path

import duckdb
import pytest
from helpers.batched_calls import (
    HALF_WORST_CASE_USD,
    ask_all,
    batched,
    open_intents,
    texts_of,
    until,
)
from helpers.scripted_backend import COST_USD, ScriptedBatchServer, ask, open_ledger, reply, rows

from judges.backends.base import RetryableError
from judges.backends.budget import Budget

pytestmark = pytest.mark.heavy


async def submit_and_stop(folder: Path, server: ScriptedBatchServer, texts: str) -> None:
    """A run that submits `texts` and stops before they are answered."""
    server.ends_at_once = False
    with open_ledger(folder) as ledger:
        calls = batched(server, ledger)
        tasks = [asyncio.create_task(calls.call(ask(text))) for text in texts]
        await until(lambda: ledger.query("SELECT 1 FROM batches WHERE batch_id IS NOT NULL"))
        await calls.aclose()
        await asyncio.gather(*tasks, return_exceptions=True)


def change_file(folder: Path, sql: str) -> None:
    with duckdb.connect(folder / "cot.duckdb") as connection:
        connection.execute(sql)


def lose_the_id(folder: Path) -> None:
    """As if the process had been killed between the submission and storing the batch's id."""
    change_file(folder, "UPDATE batches SET batch_id = NULL, status = 'intended'")


async def test_a_batch_of_a_stopped_run_answers_the_next_one(tmp_path: Path) -> None:
    server = ScriptedBatchServer()
    await submit_and_stop(tmp_path, server, "abc")
    server.ends_at_once = True
    with open_ledger(tmp_path) as ledger:
        results = await ask_all(batched(server, ledger), "cbad")
        assert texts_of(results) == ["re: c", "re: b", "re: a", "re: d"]
        assert server.submitted_texts == [["a", "b", "c"], ["d"]]
        assert len(rows(ledger, "status")) == 4
        assert ledger.open_batches() == []


async def test_new_requests_do_not_wait_for_batches_of_earlier_runs(tmp_path: Path) -> None:
    server = ScriptedBatchServer()
    await submit_and_stop(tmp_path, server, "a")
    server.ended = {"batch-1"}
    with open_ledger(tmp_path) as ledger:
        calls = batched(server, ledger)
        async with asyncio.timeout(5):
            assert texts_of([await calls.call(ask("b"))]) == ["re: b"]
        await calls.aclose()


async def test_results_that_nobody_asks_for_any_more_are_stored_all_the_same(
    tmp_path: Path,
) -> None:
    server = ScriptedBatchServer()
    await submit_and_stop(tmp_path, server, "ab")
    server.ends_at_once = True
    with open_ledger(tmp_path) as ledger:
        await ask_all(batched(server, ledger), "a")
        assert sorted(rows(ledger, "reply, status, is_final, cost_usd")) == [
            ("re: a", "ok", True, COST_USD / 2),
            ("re: b", "ok", True, COST_USD / 2),
        ]
        late = batched(server, ledger)
        assert texts_of([await late.call(ask("b"))]) == ["re: b"]
        assert late.stats.cached == 1
        assert len(server.batches) == 1


async def test_a_kill_between_submission_and_id_pays_nothing_twice(tmp_path: Path) -> None:
    server = ScriptedBatchServer()
    await submit_and_stop(tmp_path, server, "abc")
    lose_the_id(tmp_path)
    server.ends_at_once = True
    with open_ledger(tmp_path) as ledger:
        results = await ask_all(batched(server, ledger), "abc")
        assert texts_of(results) == ["re: a", "re: b", "re: c"]
        assert server.submitted_texts == [["a", "b", "c"]]
        assert open_intents(ledger) == [("batch-0", "ended")]


async def test_somebody_elses_batch_of_the_same_size_is_not_taken_for_ours(tmp_path: Path) -> None:
    server = ScriptedBatchServer()
    await submit_and_stop(tmp_path, server, "ab")
    lose_the_id(tmp_path)
    # The server never got ours; what it lists is another user's batch of two requests.
    server.batches["batch-0"] = (
        server.batches["batch-0"][0],
        [("theirs-1", ask("x")), ("theirs-2", ask("y"))],
    )
    server.ends_at_once = True
    with open_ledger(tmp_path) as ledger:
        results = await ask_all(batched(server, ledger), "ab")
        assert texts_of(results) == ["re: a", "re: b"]
        assert server.submitted_texts == [["x", "y"], ["a", "b"]]
        assert len(rows(ledger, "status")) == 2
        statuses = {status for _, status in open_intents(ledger)}
        assert statuses == {"abandoned", "ended"}


async def test_a_batch_that_the_ledger_knows_is_not_adopted_again(tmp_path: Path) -> None:
    # The same two requests: first a batch that ended with expired requests, then a lost submission.
    server = ScriptedBatchServer()
    server.outcomes = {"a": [RetryableError("expired")], "b": [RetryableError("expired")]}
    server.submit_errors = [
        (None, True),
        (RetryableError("connection dropped", maybe_billed=True), False),
    ]
    with open_ledger(tmp_path) as ledger:
        calls = batched(server, ledger)
        tasks = [asyncio.create_task(calls.call(ask(text))) for text in "ab"]
        await until(lambda: server.batches)
        server.outcomes = {}
        results = await asyncio.gather(*tasks)
        assert texts_of(list(results)) == ["re: a", "re: b"]


async def test_results_stored_before_a_kill_are_not_stored_or_counted_twice(
    tmp_path: Path,
) -> None:
    server = ScriptedBatchServer()
    await submit_and_stop(tmp_path, server, "ab")
    server.ends_at_once = True
    server.outcomes = {"a": [reply("", request_id="m-empty")]}
    with open_ledger(tmp_path) as ledger:
        # Killed after the rows of the batch were committed and before it was marked as ended.
        results = await ask_all(batched(server, ledger), "b")
        assert texts_of(results) == ["re: b"]
    change_file(tmp_path, "UPDATE batches SET status = 'submitted'")
    change_file(tmp_path, "UPDATE batch_requests SET done = false")
    server.outcomes = {}
    with open_ledger(tmp_path) as ledger:
        results = await ask_all(batched(server, ledger), "ab")
        assert texts_of(results) == ["re: a", "re: b"]
        # The empty reply was paid once and "a" asked again, because nothing final was stored.
        assert sorted(rows(ledger, "reply, status, is_final")) == [
            ("", "empty", False),
            ("re: a", "ok", True),
            ("re: b", "ok", True),
        ]


async def test_money_that_an_earlier_run_may_have_spent_counts_from_the_start(
    tmp_path: Path,
) -> None:
    server = ScriptedBatchServer()
    await submit_and_stop(tmp_path, server, "ab")
    with open_ledger(tmp_path) as ledger:
        budget = Budget(2.5 * HALF_WORST_CASE_USD, already_spent_usd=ledger.spent_usd())
        calls = batched(server, ledger, budget=budget)
        assert budget.reserved_usd == pytest.approx(2 * HALF_WORST_CASE_USD, rel=0, abs=1e-9)
        task = asyncio.create_task(calls.call(ask("c")))
        await asyncio.sleep(0.05)
        assert len(server.batches) == 1, "a third worst case does not fit beside two of them"
        server.ends_at_once = True
        async with asyncio.timeout(5):
            assert texts_of([await task]) == ["re: c"]
        assert budget.reserved_usd == 0.0
        assert budget.spent_usd == pytest.approx(3 * COST_USD / 2, rel=0, abs=1e-9)


async def test_batches_of_another_model_are_left_alone(tmp_path: Path) -> None:
    server = ScriptedBatchServer()
    await submit_and_stop(tmp_path, server, "a")
    other = ScriptedBatchServer()
    other.info = type(other.info)("other", "claude", "claude-sonnet-5-5", "http://here")
    with open_ledger(tmp_path) as ledger:
        await ask_all(batched(other, ledger), "a")
        (left,) = ledger.open_batches()
        assert left.model == "claude-opus-5-5"
