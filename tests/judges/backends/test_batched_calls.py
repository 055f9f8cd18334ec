"""Batched calls: gathered, cut, submitted once, distributed in any order, retried by our rules."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.batched_calls import (
    HALF_COST_USD,
    HALF_WORST_CASE_USD,
    ask_all,
    batched,
    open_intents,
    texts_of,
    until,
)
from helpers.scripted_backend import (
    ScriptedBatchServer,
    ask,
    open_ledger,
    reply,
    rows,
)

from judges.backends.base import AccessError, FinalError, RetryableError, StopReason
from judges.backends.budget import Budget, BudgetExhausted, StopRequested
from judges.backends.calls import CallFailure, CallResult
from schemas.ledger.ledger import Ledger
from schemas.samples import Reason

pytestmark = pytest.mark.heavy


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as ledger:
        yield ledger


async def test_requests_are_gathered_and_each_gets_its_own_result(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    calls = batched(server, ledger)
    results = await ask_all(calls, "abc")
    assert server.submitted_texts == [["a", "b", "c"]]
    assert texts_of(results) == ["re: a", "re: b", "re: c"]
    assert open_intents(ledger) == [("batch-0", "ended")]
    assert ledger.open_batches() == []


async def test_batched_calls_are_recorded_at_half_the_price(ledger: Ledger) -> None:
    budget = Budget(1.0)
    calls = batched(ScriptedBatchServer(), ledger, budget=budget)
    await ask_all(calls, "ab")
    assert (
        rows(ledger, "status, batch, cost_usd, step") == [("ok", True, HALF_COST_USD, "filter")] * 2
    )
    assert budget.spent_usd == pytest.approx(2 * HALF_COST_USD, rel=0, abs=1e-12)
    assert budget.reserved_usd == 0.0


async def test_a_full_batch_does_not_wait(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    calls = batched(server, ledger, max_requests=2, linger_seconds=0.2)
    await ask_all(calls, "abcde")
    assert sorted(server.submitted_texts) == [["a", "b"], ["c", "d"], ["e"]]


async def test_batches_are_cut_before_they_pass_the_servers_size(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    calls = batched(server, ledger, max_bytes=10)
    async with asyncio.timeout(10):
        await asyncio.gather(*(calls.call(ask(text)) for text in ("a" * 6, "b" * 4, "c", "d" * 12)))
    assert sorted(server.submitted_texts) == [["aaaaaa", "bbbb"], ["c"], ["dddddddddddd"]]


async def test_the_intent_is_on_disk_before_anything_is_sent(
    ledger: Ledger, tmp_path: Path
) -> None:
    server = ScriptedBatchServer()
    copy = tmp_path / "as_after_a_kill"

    def copy_files() -> None:
        copy.mkdir()
        for suffix in ("", ".wal"):
            file = Path(f"{ledger.path}{suffix}")
            if file.exists():
                shutil.copy(file, copy / file.name)

    server.before_submit = copy_files
    results = await ask_all(batched(server, ledger), "ab")
    with open_ledger(copy) as killed:
        (intent,) = killed.open_batches()
    assert (intent.status, intent.batch_id) == ("intended", None)
    assert set(intent.custom_ids) == {result.call_key for result in results}


async def test_empty_replies_and_retryable_errors_go_into_a_later_batch(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.outcomes = {
        "a": [reply("", request_id="m1"), reply("good", request_id="m2")],
        "b": [RetryableError("expired"), reply("fine")],
    }
    results = await ask_all(batched(server, ledger), "abc")
    assert texts_of(results) == ["good", "fine", "re: c"]
    assert server.submitted_texts == [["a", "b", "c"], ["a", "b"]]
    assert sorted(rows(ledger, "status, attempt, is_final")) == [
        ("empty", 1, False),
        ("ok", 1, True),
        ("ok", 2, True),
        ("ok", 2, True),
    ]


async def test_the_limits_of_retries_hold_in_batches(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.outcomes = {
        "a": [reply("cut", StopReason.MAX_TOKENS)],
        "b": [RetryableError("overloaded")],
        "c": [FinalError("400: bad image")],
        "d": [reply("I will not", StopReason.REFUSAL)],
    }
    results = await ask_all(batched(server, ledger, linger_seconds=0.005), "abcd")
    assert texts_of(results) == [
        Reason.TRUNCATED,
        Reason.CALL_FAILED,
        Reason.BAD_REQUEST,
        Reason.REFUSED,
    ]
    asked = [text for batch in server.submitted_texts for text in batch]
    assert {text: asked.count(text) for text in "abcd"} == {"a": 3, "b": 9, "c": 1, "d": 1}


async def test_a_request_without_a_result_may_be_paid_and_is_not_sent_again(
    ledger: Ledger,
) -> None:
    server = ScriptedBatchServer()
    server.left_out = {"a": 99}
    budget = Budget(1.0)
    calls = batched(server, ledger, budget=budget)
    assert texts_of(await ask_all(calls, "abc")) == [Reason.CALL_FAILED, "re: b", "re: c"]
    assert server.submitted_texts == [["a", "b", "c"]]
    cost = HALF_WORST_CASE_USD + 2 * HALF_COST_USD
    assert ledger.spent_usd() == pytest.approx(cost, rel=0, abs=1e-9)
    assert budget.spent_usd == pytest.approx(cost, rel=0, abs=1e-9)
    assert ledger.open_batches() == []


async def test_results_that_are_missing_at_first_are_read_again(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.left_out = {"a": 1, "b": 2}
    assert texts_of(await ask_all(batched(server, ledger), "abc")) == ["re: a", "re: b", "re: c"]
    assert server.submitted_texts == [["a", "b", "c"]]


async def test_results_of_somebody_else_are_none_of_ours(ledger: Ledger) -> None:
    """They do not make ours free, nor are ours sent again and again."""
    server = ScriptedBatchServer()
    server.renamed = True
    results = await ask_all(batched(server, ledger), "ab")
    assert texts_of(results) == [Reason.CALL_FAILED] * 2
    assert server.submitted_texts == [["a", "b"]]
    assert ledger.spent_usd() == pytest.approx(2 * HALF_WORST_CASE_USD, rel=0, abs=1e-9)


async def test_identical_requests_share_one_place_in_a_batch(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    calls = batched(server, ledger)
    results = await ask_all(calls, "aaa")
    assert server.submitted_texts == [["a"]]
    assert texts_of(results) == ["re: a"] * 3
    assert (calls.stats.calls, calls.stats.merged) == (1, 2)


async def test_one_request_that_the_server_minds_does_not_cost_the_others(ledger: Ledger) -> None:
    class Minding(ScriptedBatchServer):
        async def submit(self, requests: Any) -> Any:
            if any(request.text == "c" for _, request in requests):
                raise FinalError("400: requests: c is no good")
            return await super().submit(requests)

    server = Minding()
    results = await ask_all(batched(server, ledger), "abcd")
    assert texts_of(results) == ["re: a", "re: b", Reason.BAD_REQUEST, "re: d"]
    assert ledger.open_batches() == []


async def test_a_refused_account_stops_the_layer(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.submit_errors = [(AccessError("401: invalid key"), False)]
    calls = batched(server, ledger)
    with pytest.raises(StopRequested, match="401: invalid key"):
        await calls.call(ask("a"))
    assert rows(ledger, "status") == []
    assert ledger.open_batches() == []


async def test_a_full_queue_at_the_server_is_waited_for(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    full = RetryableError("429: too many batches", overloaded=True)
    server.submit_errors = [(full, False)] * 3
    assert texts_of(await ask_all(batched(server, ledger), "a")) == ["re: a"]
    assert len(server.batches) == 1


async def test_a_server_that_takes_no_batch_stops_the_layer_and_fails_no_call(
    ledger: Ledger,
) -> None:
    server = ScriptedBatchServer()
    server.submit_errors = [(RetryableError("529", overloaded=True), False)] * 9
    calls = batched(server, ledger)
    with pytest.raises(StopRequested, match="cannot be submitted"):
        await calls.call(ask("a"))
    assert rows(ledger, "status") == []


async def test_a_submission_whose_answer_was_lost_is_found_and_not_repeated(
    ledger: Ledger,
) -> None:
    server = ScriptedBatchServer()
    server.submit_errors = [(RetryableError("connection dropped", maybe_billed=True), True)]
    assert texts_of(await ask_all(batched(server, ledger), "ab")) == ["re: a", "re: b"]
    assert server.submitted_texts == [["a", "b"]]
    assert open_intents(ledger) == [("batch-0", "ended")]


async def test_submissions_lost_together_are_each_found(ledger: Ledger) -> None:
    """While one looks into a batch that may be its own, another one finds that batch as its own."""
    server = ScriptedBatchServer()
    lost = RetryableError("connection dropped", maybe_billed=True)
    server.submit_errors = [(lost, True)] * 4
    calls = batched(server, ledger, max_requests=2)
    assert texts_of(await ask_all(calls, "abcdefgh")) == [f"re: {text}" for text in "abcdefgh"]
    assert sorted(map(sorted, server.submitted_texts)) == [[*"ab"], [*"cd"], [*"ef"], [*"gh"]]
    assert {status for _, status in open_intents(ledger)} == {"ended"}


async def test_a_submission_that_never_arrived_is_repeated(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.submit_errors = [(RetryableError("connection dropped", maybe_billed=True), False)]
    assert texts_of(await ask_all(batched(server, ledger), "ab")) == ["re: a", "re: b"]
    assert server.submitted_texts == [["a", "b"]]


async def test_requests_in_a_batch_count_at_their_worst_case_until_it_ends(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.ends_at_once = False
    budget = Budget(3.5 * HALF_WORST_CASE_USD)
    calls = batched(server, ledger, budget=budget)
    tasks = [asyncio.create_task(calls.call(ask(text))) for text in "abcde"]
    await until(lambda: server.batches)
    assert server.submitted_texts == [["a", "b", "c"]]
    server.ends_at_once = True
    async with asyncio.timeout(10):
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    # 3 x 0.003 are spent: one more worst case of 0.0045 fits into 0.01575, then none.
    assert [type(end) for end in ends] == [CallResult] * 4 + [BudgetExhausted]
    assert ledger.spent_usd() <= 3.5 * HALF_WORST_CASE_USD


async def test_a_stop_leaves_the_batch_at_the_server_and_says_so(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.ends_at_once = False
    calls = batched(server, ledger)
    submitted = [asyncio.create_task(calls.call(ask(text))) for text in "ab"]
    await until(lambda: ledger.query("SELECT 1 FROM batches WHERE batch_id IS NOT NULL"))
    waiting = asyncio.create_task(calls.call(ask("c")))
    await asyncio.sleep(0)
    calls.stop("Ctrl-C")
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*submitted, waiting, return_exceptions=True)
        await calls.aclose()
    assert all(isinstance(end, StopRequested) for end in ends)
    assert "2 requests of batch batch-0 go on at the server" in str(ends[0])
    assert server.submitted_texts == [["a", "b"]]
    assert calls.num_left_at_server == 2
    (left,) = ledger.open_batches()
    assert (left.batch_id, len(left.custom_ids)) == ("batch-0", 2)


async def test_a_stop_can_wait_for_what_is_submitted(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.ends_at_once = False
    calls = batched(server, ledger)
    task = asyncio.create_task(calls.call(ask("a")))
    await until(lambda: server.num_looks)
    calls.stop("Ctrl-C", wait=True)
    server.ends_at_once = True
    async with asyncio.timeout(5):
        assert texts_of([await task]) == ["re: a"]
    with pytest.raises(StopRequested):
        await calls.call(ask("b"))
    assert len(rows(ledger, "status")) == 1


async def test_a_cancelled_asker_does_not_cost_a_second_request(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.ends_at_once = False
    budget = Budget(1.0)
    calls = batched(server, ledger, budget=budget)
    first = asyncio.create_task(calls.call(ask("a")))
    await until(lambda: server.batches)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    again = asyncio.create_task(calls.call(ask("a")))
    await asyncio.sleep(0.01)
    server.ends_at_once = True
    assert texts_of([await again]) == ["re: a"]
    assert server.submitted_texts == [["a"]]
    assert budget.reserved_usd == 0.0
    assert budget.spent_usd == pytest.approx(HALF_COST_USD, rel=0, abs=1e-12)


async def test_an_asker_cancelled_before_submission_is_not_sent(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    budget = Budget(1.0)
    calls = batched(server, ledger, budget=budget)
    first = asyncio.create_task(calls.call(ask("a")))
    second = asyncio.create_task(calls.call(ask("b")))
    await asyncio.sleep(0.005)
    first.cancel()
    await second
    assert server.submitted_texts == [["b"]]
    assert budget.reserved_usd == 0.0


async def test_a_fault_of_ours_reaches_the_callers(
    ledger: Ledger,
) -> None:
    class Broken(ScriptedBatchServer):
        async def retrieve(self, batch_id: str) -> Any:
            raise ZeroDivisionError("a fault of ours")

    calls = batched(Broken(), ledger)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(calls.call(ask("a")), timeout=5)


async def test_failures_of_a_batch_are_told_like_failures_of_a_call(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.outcomes = {"a": [FinalError("400: no")]}
    (result,) = await ask_all(batched(server, ledger), "a")
    assert result.outcome == CallFailure(Reason.BAD_REQUEST, "400: no")
