"""The call layer's policy: what is retried, what is final, what is stored, what is paid once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.scripted_backend import (
    COST_USD,
    FAST,
    ScriptedBackend,
    ask,
    live,
    open_ledger,
    reply,
    rows,
)

from judges.backends.base import (
    AccessError,
    CallError,
    ChatRequest,
    FinalError,
    Reply,
    RetryableError,
    StopReason,
    Usage,
)
from judges.backends.budget import StopRequested
from judges.backends.call_records import failure_line
from judges.backends.calls import CallFailure, CallLimits, CallResult
from schemas.ledger.ledger import Ledger
from schemas.samples import Reason

pytestmark = pytest.mark.heavy


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as ledger:
        yield ledger


def failed(result: CallResult) -> CallFailure:
    assert isinstance(result.outcome, CallFailure)
    return result.outcome


def text(result: CallResult) -> str:
    assert isinstance(result.outcome, Reply), result.outcome
    return result.outcome.text


async def test_a_reply_is_stored_with_its_tokens_and_cost(ledger: Ledger) -> None:
    calls = live(ScriptedBackend(reply("Yes")), ledger)
    result = await calls.call(ask("a"))
    assert (text(result), calls.stats.cached) == ("Yes", 0)
    assert rows(
        ledger,
        "call_key, attempt, status, is_final, step, question_id, reply, input_tokens,"
        " output_tokens, cost_usd, batch, request_id, run_id",
    ) == [
        (
            *(result.call_key, 1, "ok", True, "filter", "q-a", "Yes"),
            *(1000, 100, COST_USD, False, "r", ledger.run_id),
        )
    ]


async def test_a_stored_call_is_not_made_again_by_a_later_process(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        first = await live(ScriptedBackend(reply("Yes")), ledger).call(ask("a"))
    backend = ScriptedBackend()
    with open_ledger(tmp_path) as ledger:
        calls = live(backend, ledger)
        again = await calls.call(ask("a"))
    assert backend.requests == []
    assert calls.stats.cached == 1
    assert again.outcome == first.outcome


async def test_another_draw_is_another_call(ledger: Ledger) -> None:
    backend = ScriptedBackend(reply("one"), reply("two"))
    calls = live(backend, ledger)
    answers = [text(await calls.call(ask("a", draw=draw))) for draw in (0, 1, 0)]
    assert answers == ["one", "two", "one"]
    assert len(backend.requests) == 2


async def test_identical_calls_in_flight_are_paid_once(ledger: Ledger) -> None:
    backend = ScriptedBackend(reply("only"))
    calls = live(backend, ledger)
    results = await asyncio.gather(*(calls.call(ask("a")) for _ in range(5)))
    assert {text(result) for result in results} == {"only"}
    assert len(backend.requests) == 1
    assert (calls.stats.calls, calls.stats.merged, calls.stats.cached) == (1, 4, 0)


async def test_when_the_first_asker_is_cancelled_another_one_makes_the_call(ledger: Ledger) -> None:
    gate = asyncio.Event()

    async def answer(request: ChatRequest) -> Reply:
        await gate.wait()
        return reply()

    backend = ScriptedBackend(answer=answer)
    calls = live(backend, ledger)
    first, second = (asyncio.create_task(calls.call(ask("a"))) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    gate.set()
    assert text(await second) == "fine"
    assert len(backend.requests) == 2


@pytest.mark.parametrize("overloaded", [True, False])
async def test_errors_worth_it_are_retried_eight_times(ledger: Ledger, overloaded: bool) -> None:
    backend = ScriptedBackend(*(RetryableError(f"no {i}", overloaded=overloaded) for i in range(8)))
    calls = live(backend, ledger)
    assert text(await calls.call(ask("a"))) == "fine"
    assert len(backend.requests) == 9
    assert rows(ledger, "attempt, status, is_final") == [(9, "ok", True)]
    assert calls.stats.retries == 8
    assert calls.stats.rate_limited == (8 if overloaded else 0)


async def test_after_eight_retries_a_call_has_failed_and_stays_failed(ledger: Ledger) -> None:
    backend = ScriptedBackend(*(RetryableError("the server is on fire") for _ in range(9)))
    calls = live(backend, ledger)
    failure = failed(await calls.call(ask("a")))
    assert failure.reason is Reason.CALL_FAILED
    assert "9" in failure.detail
    assert "the server is on fire" in failure.detail
    again = await calls.call(ask("a"))
    assert calls.stats.cached == 1
    assert failed(again) == failure
    assert len(backend.requests) == 9
    assert rows(ledger, "attempt, status, is_final, cost_usd") == [(9, "failed", True, 0.0)]


@pytest.mark.parametrize(
    ("answer", "reason", "words", "cost"),
    [
        (reply("I cannot", StopReason.REFUSAL), Reason.REFUSED, "I cannot", COST_USD),
        (FinalError("400: bad image"), Reason.BAD_REQUEST, "400: bad image", 0.0),
    ],
)
async def test_refusals_and_bad_requests_are_final_at_once(
    ledger: Ledger, answer: Reply | CallError, reason: Reason, words: str, cost: float
) -> None:
    backend = ScriptedBackend(answer)
    result = await live(backend, ledger).call(ask("a"))
    assert failed(result) == CallFailure(reason, words)
    assert len(backend.requests) == 1
    assert rows(ledger, "is_final, cost_usd, error") == [(True, cost, words)]
    assert failed(await live(backend, ledger).call(ask("a"))) == failed(result)


BAD_REPLIES = [
    (reply(""), "empty", Reason.EMPTY_REPLY),
    (reply(" \n"), "empty", Reason.EMPTY_REPLY),
    (reply("<think>so", StopReason.MAX_TOKENS), "truncated", Reason.TRUNCATED),
]


@pytest.mark.parametrize(("bad", "status", "reason"), BAD_REPLIES)
async def test_empty_and_truncated_replies_are_asked_again_twice_at_most(
    ledger: Ledger, bad: Reply, status: str, reason: Reason
) -> None:
    backend = ScriptedBackend(bad, bad, bad)
    result = await live(backend, ledger).call(ask("a", max_tokens=77))
    assert failed(result).reason is reason
    if status == "truncated":
        assert "77" in failed(result).detail
    assert len(backend.requests) == 3
    assert len(set(backend.requests)) == 1, "the same request each time"
    assert rows(ledger, "attempt, status, is_final, cost_usd") == [
        (1, status, False, COST_USD),
        (2, status, False, COST_USD),
        (3, status, True, COST_USD),
    ]


@pytest.mark.parametrize(("bad", "status", "reason"), BAD_REPLIES)
async def test_a_bad_reply_then_a_good_one_is_good_and_both_are_paid(
    ledger: Ledger, bad: Reply, status: str, reason: Reason
) -> None:
    calls = live(ScriptedBackend(bad, reply("good")), ledger)
    assert text(await calls.call(ask("a"))) == "good"
    assert rows(ledger, "status, is_final") == [(status, False), ("ok", True)]
    assert calls.stats.cost_usd == pytest.approx(2 * COST_USD, rel=0, abs=1e-12)


async def test_errors_do_not_use_up_the_retries_of_bad_replies(ledger: Ledger) -> None:
    error, empty = RetryableError("later"), reply("")
    backend = ScriptedBackend(error, empty, error, error, empty, error, reply("good"))
    assert text(await live(backend, ledger).call(ask("a"))) == "good"


async def test_a_refused_account_stops_everything_and_stores_nothing(ledger: Ledger) -> None:
    backend = ScriptedBackend(AccessError("401: invalid key"))
    calls = live(backend, ledger)
    with pytest.raises(StopRequested, match="401: invalid key"):
        await calls.call(ask("a"))
    with pytest.raises(StopRequested, match="401: invalid key"):
        await calls.call(ask("b"))
    assert len(backend.requests) == 1
    assert rows(ledger, "status") == []


async def test_many_failures_in_a_row_stop_the_layer(ledger: Ledger) -> None:
    backend = ScriptedBackend(*(FinalError("404: no such model") for _ in range(10)))
    calls = live(backend, ledger, limits=CallLimits(max_failures_in_row=3))
    for name in "abc":
        assert failed(await calls.call(ask(name))).reason is Reason.BAD_REQUEST
    with pytest.raises(StopRequested, match=r"3 calls in a row.*no such model"):
        await calls.call(ask("d"))


async def test_failures_with_replies_between_them_do_not_stop_the_layer(ledger: Ledger) -> None:
    script = [item for _ in range(5) for item in (FinalError("400"), FinalError("400"), reply())]
    calls = live(ScriptedBackend(*script), ledger, limits=CallLimits(max_failures_in_row=3))
    for i in range(15):
        await calls.call(ask(str(i)))


async def test_after_a_stop_nothing_new_starts_and_what_is_in_flight_is_stored(
    ledger: Ledger,
) -> None:
    gate = asyncio.Event()

    async def answer(request: ChatRequest) -> Reply:
        await gate.wait()
        return reply()

    backend = ScriptedBackend(answer=answer)
    calls = live(backend, ledger, limits=CallLimits(max_concurrency=2))
    tasks = [asyncio.create_task(calls.call(ask(str(i)))) for i in range(5)]
    await asyncio.sleep(0.01)
    calls.stop("enough")
    gate.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [CallResult] * 2 + [StopRequested] * 3
    assert all(str(end) == "enough" for end in ends[2:])
    assert len(backend.requests) == 2
    assert len(rows(ledger, "status")) == 2
    await calls.call(ask("0"))
    assert calls.stats.cached == 1, "what is stored needs no call"


async def test_a_stop_ends_the_wait_for_a_retry_and_stores_nothing(ledger: Ledger) -> None:
    backend = ScriptedBackend(RetryableError("later"))
    calls = live(backend, ledger, limits=CallLimits(retry_base_seconds=60))
    task = asyncio.create_task(calls.call(ask("a")))
    await asyncio.sleep(0.01)
    calls.stop()
    with pytest.raises(StopRequested):
        await asyncio.wait_for(task, timeout=1)
    assert rows(ledger, "status") == []


async def test_the_pending_table_is_empty_after_the_calls(ledger: Ledger) -> None:
    calls = live(ScriptedBackend(FinalError("400"), RetryableError("later")), ledger, limits=FAST)
    await asyncio.gather(*(calls.call(ask(str(i % 10))) for i in range(50)))
    assert calls._pending == {}
    assert calls.stats.in_flight == 0


async def test_the_display_gets_json(ledger: Ledger) -> None:
    calls = live(ScriptedBackend(reply("")), ledger)
    await calls.call(ask("a"))
    shown = calls.stats.as_json()
    assert shown | {"calls_per_minute": 0, "cost_usd": 0} == {
        "calls": 1,
        "failures": 0,
        "cached": 0,
        "merged": 0,
        "attempts": 2,
        "retries": 1,
        "rate_limited": 0,
        "in_flight": 0,
        "concurrency": 16,
        "calls_per_minute": 0,
        "input_tokens": 2000,
        "output_tokens": 200,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "cost_usd": 0,
    }
    assert shown["cost_usd"] == pytest.approx(2 * COST_USD, rel=0, abs=1e-12)
    assert shown["calls_per_minute"] == 60, "one call in the first second"


async def test_keys_in_a_servers_words_are_not_stored(ledger: Ledger) -> None:
    words = "invalid key sk-ant-REDACTED"
    result = await live(ScriptedBackend(FinalError(words)), ledger).call(ask("a"))
    assert "sk-ant" not in failed(result).detail
    assert "sk-ant" not in str(rows(ledger, "error"))


async def test_what_is_no_reply_stops_everything_and_names_the_backend(ledger: Ledger) -> None:
    backend: Any = ScriptedBackend(reply("Yes"))

    async def complete(request: ChatRequest) -> str:
        return "Yes"

    backend.complete = complete
    with pytest.raises(StopRequested, match=r"complete of the backend .* gave a str; expected a"):
        await live(backend, ledger).call(ask("a"))
    assert rows(ledger, "call_key") == []


@pytest.mark.parametrize(
    ("output_tokens", "words"),
    [
        (200, "cut off at max_tokens = 200"),
        (0, "cut off at max_tokens = 200"),  # a server that does not count
        (37, "cut off after 37 tokens, before max_tokens = 200: the model's context window"),
    ],
)
async def test_a_full_context_window_is_not_taken_for_the_limit_of_tokens(
    tmp_path: Path, output_tokens: int, words: str
) -> None:
    usage = Usage(input_tokens=1000, output_tokens=output_tokens)
    cut = Reply("It beg", StopReason.MAX_TOKENS, usage)
    with open_ledger(tmp_path) as ledger:
        outcome = (await live(ScriptedBackend(cut, cut, cut), ledger).call(ask("x"))).outcome
    assert isinstance(outcome, CallFailure)
    assert words in outcome.detail


def test_words_of_a_server_do_not_act_on_a_terminal() -> None:
    assert failure_line("\x1b[31mred \x9b\u202e\nnext") == "\\x1b[31mred \\x9b\\u202e next"
    assert failure_line("x" * 3000) == "x" * 1997 + "..."
