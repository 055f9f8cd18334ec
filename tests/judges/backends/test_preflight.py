"""What fails every call alike is one sentence, before anything is claimed or paid."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.chat_requests import text_request
from helpers.scripted_backend import ScriptedBackend, open_ledger, reply, rows
from servers.model_server import TEST_KEY, RunningServer

from cli.config import UsageError
from cli.option_groups import BackendOptions
from judges.backends.base import AccessError, FinalError, RetryableError
from judges.backends.budget import StopRequested
from judges.backends.call_records import CallFailure
from judges.backends.preflight import HeldCalls
from judges.backends.session import CallSession, check_before, opened_backend

pytestmark = pytest.mark.heavy

OPTIONS = BackendOptions(timeout_seconds=20.0)
LOW_CREDIT = "Your credit balance is too low to access the Anthropic API."
LIMIT = "You have reached your specified API usage limits. You will regain access on 2027-01-01."
PAGE = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
HEALTHY_ENDS = ("ok", "truncated", "empty", "refused")


async def checked(spec: str, option: str = "--judge") -> HeldCalls:
    async with opened_backend(spec, OPTIONS) as backend:
        return await check_before({option: backend}, OPTIONS)


@pytest.fixture
def claude(model_server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", model_server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    return model_server


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("unauthorized", "ANTHROPIC_API_KEY to a key that may use it"),
        ("forbidden", "ANTHROPIC_API_KEY to a key that may use it"),
        ({"kind": "bad_request", "message": LOW_CREDIT}, "credit balance is too low"),
        ({"kind": "bad_request", "message": LIMIT}, "reached your specified API usage limits"),
        ({"kind": "bad_request", "status": 402, "message": "Insufficient Balance"}, "answered 402"),
        ({"kind": "bad_request", "status": 404, "message": "model: m"}, "check the model's name"),
        ({"kind": "bad_request", "message": "m is not a valid model ID"}, "not a valid model ID"),
        ({"kind": "malformed", "message": PAGE}, "sent a web page instead of a reply"),
        ("unavailable", "Service unavailable"),
        ("drop", "broke the connection"),
    ],
)
async def test_what_would_fail_every_call_is_one_sentence_that_names_the_option(
    claude: RunningServer, fault: object, words: str
) -> None:
    claude.control(script=[{"faults": [fault] * 9}])
    began = time.monotonic()
    with pytest.raises(UsageError, match=r"^--generator claude:m does not answer: .*") as caught:
        await checked("claude:m", "--generator")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 12
    assert not any("usage" in record for record in claude.requests())


async def test_a_base_url_of_claude_with_the_version_is_told(
    claude: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"{claude.url}/v1")
    with pytest.raises(UsageError, match=r"answered 404: .*ANTHROPIC_BASE_URL must not end in /v1"):
        await checked("claude:m")


async def test_a_url_without_the_version_and_a_dead_server_are_told(
    model_server: RunningServer,
) -> None:
    with pytest.raises(UsageError, match=r"answered 404: .*the URL, which mostly ends in /v1"):
        await checked(f"openai:m@{model_server.url}/api")
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:9/v1 cannot be reached: .*attempts"):
        await checked("openai:m@http://127.0.0.1:9/v1")


@pytest.mark.parametrize("fault", HEALTHY_ENDS)
async def test_any_reply_will_do_and_is_paid_once_there_is_a_ledger(
    claude: RunningServer, tmp_path: Path, fault: str
) -> None:
    claude.control(script=[{"faults": [fault]}])
    held = await checked("claude:claude-haiku-5-5")
    (record,) = claude.requests("/v1/messages")
    assert (record["max_tokens"], record["text"]) == (16, "Reply with the one word Yes.")
    with open_ledger(tmp_path) as ledger:
        CallSession(OPTIONS, ledger, checks=held)
        ((step, tokens, run),) = rows(ledger, "step, output_tokens, run_id")
        assert (step, tokens) == ("check", record["usage"]["output_tokens"])
        assert run == ledger.run_id
        assert ledger.spent_usd() > 0
    assert held.rows == []


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("rate_limit", {"retry_after": "0"}),
        ("overloaded", {}),
        ("rate_limit", {"retry_after": "60"}),
        ("bad_request", {"message": "max_tokens or model output limit was reached"}),
    ],
)
async def test_a_server_that_is_only_busy_is_left_to_the_run(
    claude: RunningServer, kind: str, more: dict[str, Any]
) -> None:
    claude.control(script=[{"faults": [{"kind": kind, **more}] * 9}])
    assert (await checked("claude:m")).specs == {"claude:m"}


async def test_models_in_this_process_and_what_the_budget_forbids_are_not_asked() -> None:
    backend = ScriptedBackend()
    none_left = OPTIONS.model_copy(update={"max_cost_usd": 0.0})
    assert (await check_before({"--judge": backend}, none_left)).rows == []
    backend.info = replace(backend.info, spec="local:folder")
    await check_before({"--judge": backend}, OPTIONS)
    assert backend.requests == []


async def test_one_backend_for_two_roles_is_asked_once() -> None:
    backend = ScriptedBackend()
    held = await check_before({"--generator": backend, "--judge": backend}, OPTIONS)
    assert (len(backend.requests), len(held.rows)) == (1, 1)
    broken = ScriptedBackend(FinalError("no such model"))
    with pytest.raises(UsageError, match=r"^--generator and --judge scripted does not answer"):
        await check_before({"--generator": broken, "--judge": broken}, OPTIONS)


async def test_a_resumed_run_asks_before_its_first_call_and_loses_no_row(tmp_path: Path) -> None:
    backend = ScriptedBackend(reply(), reply("kept"), FinalError("model not found"))
    with open_ledger(tmp_path) as ledger:
        calls = CallSession(OPTIONS, ledger).checked_calls(backend)
        await calls.call(text_request("one"))
        assert len(backend.requests) == 2
    with open_ledger(tmp_path) as ledger:
        calls = CallSession(OPTIONS, ledger).checked_calls(backend)
        await calls.call(text_request("one"))
        assert len(backend.requests) == 2  # the ledger answers
        for text in ("two", "three"):
            with pytest.raises(StopRequested, match="scripted does not answer: model not found"):
                await calls.call(text_request(text))
        assert len(backend.requests) == 3
        failed = ledger.query("SELECT DISTINCT step FROM calls WHERE status <> 'ok'")
        assert failed == [("check",)]


@pytest.mark.parametrize(
    ("error", "num_failed"),
    [
        (FinalError("404: no such model (req_{number})"), 10),
        (FinalError("busy (request id: 2025072810134{number:02}kK3D5g6h)"), 10),
        (FinalError("down since 2026-11-30T09:36:{number:02}.5Z"), 10),
        (FinalError("no route from 10.0.0.1:543{number:02}"), 10),
        (FinalError("<Object at 0x7f12ab34cd{number:02}>"), 10),
        (FinalError("gave up after 12.{number}s"), 10),
        (FinalError("{number} tokens"), 40),
        (FinalError("frame {number} of clip_{number}.mp4"), 40),
    ],
)
async def test_a_run_whose_calls_all_fail_alike_stops(
    tmp_path: Path, error: FinalError, num_failed: int
) -> None:
    numbers = iter(range(100))

    async def answer(request: object) -> FinalError:
        return FinalError(str(error).format(number=next(numbers)))

    failures, stopped = 0, ""
    with open_ledger(tmp_path) as ledger:
        calls = CallSession(OPTIONS, ledger).calls(ScriptedBackend(answer=answer))
        for number in range(40):
            try:
                result = await calls.call(text_request(f"question {number}"))
            except StopRequested as stop:
                stopped = str(stop)
                break
            failures += isinstance(result.outcome, CallFailure)
    assert failures == num_failed
    assert ("the last 10 calls of scripted all failed alike" in stopped) == (num_failed == 10)


async def test_a_reply_between_failures_begins_the_count_anew(tmp_path: Path) -> None:
    script = [*[FinalError("no")] * 9, reply(), *[FinalError("no")] * 9]
    with open_ledger(tmp_path) as ledger:
        calls = CallSession(OPTIONS, ledger).calls(ScriptedBackend(*script))
        for number in range(25):
            await calls.call(text_request(f"question {number}"))
    assert calls.stats.failures == 18


async def test_an_account_that_is_refused_in_the_middle_costs_no_row(tmp_path: Path) -> None:
    script = [reply(), AccessError("the account is empty"), RetryableError("never asked")]
    with open_ledger(tmp_path) as ledger:
        calls = CallSession(OPTIONS, ledger).calls(ScriptedBackend(*script))
        await calls.call(text_request("one"))
        for text in ("two", "three"):
            with pytest.raises(StopRequested, match="the account is empty"):
                await calls.call(text_request(text))
        assert rows(ledger, "status") == [("ok",)]
