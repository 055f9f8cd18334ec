"""A look at a batch that fails says nothing about the batch: it is never sent again for it."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
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
from helpers.scripted_backend import ScriptedBatchServer, ask, open_ledger, reply, rows

from judges.backends.base import (
    AccessError,
    BatchResult,
    CallError,
    FinalError,
    RetryableError,
    UnreadableReplyError,
    Usage,
)
from judges.backends.budget import Budget, StopRequested
from schemas.ledger.ledger import Ledger
from schemas.samples import Reason

pytestmark = pytest.mark.heavy

NOT_FOUND = FinalError("404: no such batch")
FOREVER = 1000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as ledger:
        yield ledger


@pytest.mark.parametrize(
    "errors",
    [
        [NOT_FOUND],
        [NOT_FOUND, NOT_FOUND],
        [None, NOT_FOUND],
        [None, NOT_FOUND, NOT_FOUND, FinalError("410: gone")],
        [FinalError("400: what?"), FinalError("422: no"), RetryableError("503")],
        [UnreadableReplyError("too large")] * 3,
        [None, UnreadableReplyError("too large"), RetryableError("dropped", maybe_billed=True)],
    ],
)
async def test_a_look_that_fails_for_a_while_is_waited_out(
    ledger: Ledger, errors: list[CallError | None]
) -> None:
    server = ScriptedBatchServer()
    server.look_errors = list(errors)
    assert texts_of(await ask_all(batched(server, ledger), "ab")) == ["re: a", "re: b"]
    assert server.submitted_texts == [["a", "b"]]
    assert server.look_errors == []
    assert ledger.spent_usd() == pytest.approx(2 * HALF_COST_USD, rel=0, abs=1e-9)


async def test_a_batch_that_is_not_found_but_listed_goes_on(ledger: Ledger) -> None:
    class Forgetful(ScriptedBatchServer):
        async def retrieve(self, batch_id: str) -> object:  # type: ignore[override]
            raise NOT_FOUND

    server = Forgetful()
    assert texts_of(await ask_all(batched(server, ledger), "a")) == ["re: a"]
    assert server.submitted_texts == [["a"]]


@pytest.mark.parametrize(
    "error",
    [NOT_FOUND, FinalError("400: what?"), UnreadableReplyError("a page"), AccessError("401: key")],
)
@pytest.mark.parametrize("is_seen", [True, False])
async def test_a_batch_that_cannot_be_looked_at_is_left_open_for_the_next_run(
    tmp_path: Path, error: CallError, is_seen: bool
) -> None:
    server = ScriptedBatchServer()
    server.look_errors = [None] * is_seen + [error] * FOREVER
    with open_ledger(tmp_path) as ledger:
        budget = Budget(1.0)
        calls = batched(server, ledger, budget=budget)
        with pytest.raises(StopRequested, match="1 requests of batch batch-0 go on at the server"):
            await calls.call(ask("a"))
        await calls.aclose()
        assert open_intents(ledger) == [("batch-0", "submitted")]
        assert calls.num_left_at_server == 1
        assert budget.spent_usd == pytest.approx(HALF_WORST_CASE_USD, rel=0, abs=1e-9)
        assert rows(ledger, "status") == []
    server.look_errors = []
    with open_ledger(tmp_path) as ledger:
        assert texts_of(await ask_all(batched(server, ledger), "a")) == ["re: a"]
        assert server.submitted_texts == [["a"]]
        assert ledger.spent_usd() == pytest.approx(HALF_COST_USD, rel=0, abs=1e-9)


async def test_results_that_are_not_there_stop_with_words_and_are_not_bought_again(
    ledger: Ledger,
) -> None:
    class WithoutResults(ScriptedBatchServer):
        async def results(self, batch_id: str) -> list[object]:
            raise FinalError("404: no results")

    server = WithoutResults()
    with pytest.raises(StopRequested, match=r"404: no results.*go on at the server"):
        await batched(server, ledger).call(ask("a"))
    assert server.submitted_texts == [["a"]]
    assert len(ledger.open_batches()) == 1


async def test_results_without_a_line_that_can_be_read_are_read_again(ledger: Ledger) -> None:
    """As often as any look that fails; then the batch stays open, and nothing counts as lost."""

    class Blank(ScriptedBatchServer):
        num_blank = 4

        async def results(self, batch_id: str) -> list[BatchResult]:
            self.num_blank -= 1
            return [] if self.num_blank >= 0 else await super().results(batch_id)

    server = Blank()
    assert texts_of(await ask_all(batched(server, ledger), "a")) == ["re: a"]
    server.num_blank = FOREVER
    with pytest.raises(StopRequested, match=r"cannot be read.*go on at the server"):
        await batched(server, ledger).call(ask("b"))
    assert server.submitted_texts == [["a"], ["b"]]
    assert len(ledger.open_batches()) == 1


async def test_a_batch_of_a_month_ago_is_given_up_and_counts_as_paid(tmp_path: Path) -> None:
    """Servers keep results for 29 days: a build is not stopped by it for ever."""
    server = ScriptedBatchServer()
    server.look_errors = [NOT_FOUND] * FOREVER
    with open_ledger(tmp_path) as ledger, pytest.raises(StopRequested):
        await batched(server, ledger).call(ask("a"))
    with duckdb.connect(tmp_path / "cot.duckdb") as connection:
        connection.execute("UPDATE batches SET created_at = created_at - INTERVAL 31 DAYS")
    with open_ledger(tmp_path) as ledger:
        results = await ask_all(batched(server, ledger), "a")
        assert texts_of(results) == [Reason.CALL_FAILED]
        assert ledger.spent_usd() == pytest.approx(HALF_WORST_CASE_USD, rel=0, abs=1e-9)
        assert ledger.open_batches() == []
    assert server.submitted_texts == [["a"]]


@pytest.mark.parametrize("error", [NOT_FOUND, AccessError("401: key")])
async def test_a_list_that_cannot_be_read_does_not_send_a_lost_submission_again(
    tmp_path: Path, error: CallError
) -> None:
    """The submission got through, its answer was lost, and then the list fails."""
    server = ScriptedBatchServer()
    server.submit_errors = [(RetryableError("dropped", maybe_billed=True), True)]
    server.look_errors = [error] * FOREVER
    with open_ledger(tmp_path) as ledger:
        calls = batched(server, ledger)
        ends = await asyncio.gather(
            *(calls.call(ask(text)) for text in "ab"), return_exceptions=True
        )
        assert [type(end) for end in ends] == [StopRequested] * 2
        await calls.aclose()
        assert open_intents(ledger) == [(None, "intended")]
    server.look_errors = []
    with open_ledger(tmp_path) as ledger:
        assert texts_of(await ask_all(batched(server, ledger), "ab")) == ["re: a", "re: b"]
    assert server.submitted_texts == [["a", "b"]]


async def test_a_refusal_after_a_lost_answer_does_not_hide_the_batch(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.submit_errors = [
        (UnreadableReplyError("the answer was too large"), False),
        (FinalError("400: there is such a batch"), True),
    ]
    assert texts_of(await ask_all(batched(server, ledger), "ab")) == ["re: a", "re: b"]
    assert server.submitted_texts == [["a", "b"]]


async def test_a_lost_batch_is_known_by_the_results_that_can_be_read(tmp_path: Path) -> None:
    server = ScriptedBatchServer()
    server.ends_at_once = False
    with open_ledger(tmp_path) as ledger:
        calls = batched(server, ledger)
        tasks = [asyncio.create_task(calls.call(ask(text))) for text in "ab"]
        await until(lambda: ledger.query("SELECT 1 FROM batches WHERE batch_id IS NOT NULL"))
        await calls.aclose()
        await asyncio.gather(*tasks, return_exceptions=True)
    with duckdb.connect(tmp_path / "cot.duckdb") as connection:
        connection.execute("UPDATE batches SET batch_id = NULL, status = 'intended'")
    server.ends_at_once = True
    server.left_out = {"a": FOREVER}
    with open_ledger(tmp_path) as ledger:
        results = await ask_all(batched(server, ledger), "ab")
        assert texts_of(results) == [Reason.CALL_FAILED, "re: b"]
    assert server.submitted_texts == [["a", "b"]]


async def test_a_result_nobody_waits_for_costs_its_share_of_the_worst_case(
    tmp_path: Path,
) -> None:
    server = ScriptedBatchServer()
    server.look_errors = [NOT_FOUND] * FOREVER
    with open_ledger(tmp_path) as ledger:
        calls = batched(server, ledger)
        await asyncio.gather(*(calls.call(ask(text)) for text in "abc"), return_exceptions=True)
        await calls.aclose()
    server.look_errors = []
    server.outcomes = {"b": [UnreadableReplyError("broken")]}
    with open_ledger(tmp_path) as ledger:
        await ask_all(batched(server, ledger), "a")
        cost = 2 * HALF_COST_USD + HALF_WORST_CASE_USD
        assert ledger.spent_usd() == pytest.approx(cost, rel=0, abs=1e-9)


async def test_unknown_usage_of_a_batch_counts_at_its_worst_case(ledger: Ledger) -> None:
    server = ScriptedBatchServer()
    server.outcomes = {"a": [replace(reply("yes"), usage=Usage(-5, 3))]}
    budget = Budget(1.0)
    assert texts_of(await ask_all(batched(server, ledger, budget=budget), "a")) == ["yes"]
    assert ledger.spent_usd() == pytest.approx(HALF_WORST_CASE_USD, rel=0, abs=1e-9)
    assert budget.spent_usd == pytest.approx(HALF_WORST_CASE_USD, rel=0, abs=1e-9)
