"""The Claude backend on the wire: what it sends, what it reads, what each failure becomes."""

import hashlib
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from helpers.chat_requests import frames_request, text_request
from servers.model_server import TEST_KEY, RunningServer

from judges.backends.base import (
    AccessError,
    BackendUnavailableError,
    FinalError,
    Reply,
    RetryableError,
    StopReason,
    UnreadableReplyError,
)
from judges.backends.claude import ClaudeBackend, message_body
from judges.backends.registry import BackendOptions, open_backend

SPEC = "claude:claude-sonnet-5-5"


@pytest_asyncio.fixture
async def backend(
    model_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ClaudeBackend]:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", model_server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    opened = await open_backend(SPEC, BackendOptions(timeout_seconds=20))
    assert isinstance(opened, ClaudeBackend)
    yield opened
    await opened.aclose()


@pytest.mark.parametrize(
    "rest", ["m@http://localhost:8000", "http://localhost:8000", "m@https://gw/v1", "m m", "m\x1b"]
)
async def test_a_url_behind_a_claude_model_is_refused_and_nothing_goes_to_anthropic(
    rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    with pytest.raises(BackendUnavailableError, match="variable ANTHROPIC_BASE_URL"):
        await open_backend(f"claude:{rest}")


async def test_frames_go_out_interleaved_in_the_order_of_the_parts(
    backend: ClaudeBackend, model_server: RunningServer
) -> None:
    request = frames_request(16, "What moves?", system="Watch closely.")
    reply = await backend.complete(request)
    (record,) = model_server.requests()
    assert record["order"] == "ti" * 16 + "t"
    assert record["text"] == "\n".join([*(f"frame {i}" for i in range(16)), "What moves?"])
    assert record["system"] == "Watch closely."
    sent = [hashlib.sha256(image.data).hexdigest() for image in request.images]
    assert [image["sha256"] for image in record["images"]] == sent
    assert record["parameters"] == {"model": "claude-sonnet-5-5", "max_tokens": 64}
    assert reply.usage.input_tokens == record["usage"]["input_tokens"]
    assert reply.usage.output_tokens == record["usage"]["output_tokens"]
    assert (reply.text, reply.stop) == (record["reply"], StopReason.END)
    assert reply.request_id == "req_00000001"


async def test_hidden_thinking_is_billed_but_is_no_part_of_the_text(
    backend: ClaudeBackend, model_server: RunningServer
) -> None:
    model_server.control(
        replies=[{"contains": "sky", "reply": "blue", "thinking": "hm, is it <answer>red</answer>"}]
    )
    reply = await backend.complete(text_request())
    assert reply.text == "blue"
    assert reply.usage.output_tokens == 1 + 12


@pytest.mark.parametrize(
    ("fault", "stop", "is_empty"),
    [
        ("truncated", StopReason.MAX_TOKENS, False),
        ("refused", StopReason.REFUSAL, True),
        ("empty", StopReason.END, True),
    ],
)
async def test_each_end_of_a_reply_is_told_apart(
    backend: ClaudeBackend,
    model_server: RunningServer,
    fault: str,
    stop: StopReason,
    is_empty: bool,
) -> None:
    model_server.control(script=[{"faults": [fault]}])
    reply = await backend.complete(text_request())
    assert (reply.stop, reply.text == "") == (stop, is_empty)
    assert reply.usage.input_tokens > 0


@pytest.mark.parametrize(
    ("fault", "error", "overloaded", "maybe_billed"),
    [
        ("rate_limit", RetryableError, True, False),
        ("overloaded", RetryableError, True, False),
        ("server_error", RetryableError, False, False),
        ({"kind": "server_error", "status": 408}, RetryableError, False, False),
        ({"kind": "server_error", "status": 409}, RetryableError, False, False),
        ("drop", RetryableError, False, True),
        ("drop_middle", RetryableError, False, True),
        ("malformed", RetryableError, False, True),
        ({"kind": "malformed", "message": "[]"}, RetryableError, False, True),
        ({"kind": "malformed", "message": "{}"}, RetryableError, False, True),
        (
            {"kind": "malformed", "message": '{"content": [{}], "usage": {}, "stop_reason": "x"}'},
            RetryableError,
            False,
            True,
        ),
        ("bad_request", FinalError, None, None),
        ("unauthorized", AccessError, None, None),
        ("forbidden", AccessError, None, None),
    ],
)
async def test_a_failure_is_one_attempt_and_the_right_error(
    backend: ClaudeBackend,
    model_server: RunningServer,
    fault: object,
    error: type[Exception],
    overloaded: bool | None,
    maybe_billed: bool | None,
) -> None:
    model_server.control(script=[{"faults": [fault, fault, fault]}])
    with pytest.raises(error) as caught:
        await backend.complete(text_request())
    assert type(caught.value) is error
    assert getattr(caught.value, "overloaded", None) is overloaded
    assert getattr(caught.value, "maybe_billed", None) is maybe_billed
    assert len(model_server.requests("/v1/messages")) == 1


async def test_a_wish_to_wait_is_passed_on(
    backend: ClaudeBackend, model_server: RunningServer
) -> None:
    model_server.control(script=[{"faults": [{"kind": "rate_limit", "retry_after": "7"}]}])
    with pytest.raises(RetryableError) as caught:
        await backend.complete(text_request())
    assert caught.value.retry_after_seconds == 7


async def test_a_server_that_does_not_answer_is_left_after_the_timeout(
    backend: ClaudeBackend, model_server: RunningServer
) -> None:
    model_server.control(script=[{"faults": ["hang"]}])
    impatient = ClaudeBackend(SPEC, "m", model_server.url, TEST_KEY, timeout_seconds=0.3)
    with pytest.raises(RetryableError, match="did not answer in time") as caught:
        await impatient.complete(text_request())
    assert caught.value.maybe_billed
    await impatient.aclose()


async def test_a_server_that_is_not_there_billed_nothing() -> None:
    backend = ClaudeBackend(SPEC, "m", "http://127.0.0.1:9", TEST_KEY)
    with pytest.raises(RetryableError) as caught:
        await backend.complete(text_request())
    assert not caught.value.maybe_billed
    await backend.aclose()


async def test_a_key_that_the_server_echoes_appears_nowhere(
    backend: ClaudeBackend, model_server: RunningServer
) -> None:
    """Not in the message, not in a printed traceback with its chain of causes."""
    for kind in ("unauthorized", "bad_request", "server_error", "rate_limit"):
        fault = {"kind": kind, "message": "your key {key} is not welcome"}
        model_server.control(script=[{"faults": [fault]}])
        with pytest.raises((FinalError, RetryableError), match="is not welcome") as caught:
            await backend.complete(text_request())
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert TEST_KEY not in shown


async def test_a_refused_key_names_the_variable(
    backend: ClaudeBackend, model_server: RunningServer
) -> None:
    model_server.control(script=[{"faults": ["unauthorized"]}])
    with pytest.raises(AccessError, match="ANTHROPIC_API_KEY"):
        await backend.complete(text_request())


async def test_without_a_key_the_backend_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(BackendUnavailableError, match="ANTHROPIC_API_KEY"):
        await open_backend(SPEC)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("localhost:8000", "must be plain"),
        (" ", "must be plain"),
        ("http://user:secret@host", "must be plain"),
        ("https://gateway.example/v1/messages", "ends in /messages"),
    ],
)
async def test_a_base_url_that_is_none_is_told_without_repeating_it(
    url: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    with pytest.raises(BackendUnavailableError, match=f"ANTHROPIC_BASE_URL {sentence}") as caught:
        await open_backend(SPEC)
    assert "secret" not in str(caught.value)


def test_without_the_package_one_sentence_says_what_to_install() -> None:
    code = (
        "import sys, asyncio; sys.modules['anthropic'] = None\n"
        "from judges.backends.registry import open_backend\n"
        "try: asyncio.run(open_backend('claude:x'))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("BackendUnavailableError"), done.stderr
    assert 'pip install "videop2r-toolkit[claude]"' in done.stdout


async def test_counted_and_bounded_tokens_agree_with_the_bill(backend: ClaudeBackend) -> None:
    for request in (text_request(), frames_request(16, system="Be careful."), frames_request(1)):
        billed = (await backend.complete(request)).usage
        assert await backend.count_tokens(request) == billed.input_tokens
        bound = backend.worst_case_tokens(request)
        assert bound[0] >= billed.input_tokens
        assert bound[1] >= billed.output_tokens


async def test_no_sampling_parameter_is_taken(backend: ClaudeBackend) -> None:
    assert backend.info.takes_sampling == frozenset()


def requests_named(*names: str) -> list[tuple[str, object]]:
    return [(name, text_request(f"question {name}")) for name in names]


async def test_a_batch_gives_each_request_its_own_end_in_any_order(
    backend: ClaudeBackend, model_server: RunningServer
) -> None:
    model_server.control(
        batch_order="reversed",
        replies=[{"contains": f"question {name}", "reply": f"reply {name}"} for name in "abcdefgh"],
        script=[
            {"path": "batch-request", "match": f"question {name}", "faults": [fault]}
            for name, fault in zip(
                "bcdefg",
                ["errored", "invalid", "expired", "refused", "truncated", "canceled"],
                strict=True,
            )
        ],
    )
    batch = await backend.submit(requests_named(*"abcdefgh"))  # type: ignore[arg-type]
    ended = await backend.retrieve(batch.batch_id)
    assert (ended.ended, ended.num_requests) == (True, 8)
    results = await backend.results(batch.batch_id)
    assert [result.custom_id for result in results] == list("hgfedcba")
    ends = {result.custom_id: result.outcome for result in results}
    assert isinstance(ends["a"], Reply)
    assert ends["a"].text == "reply a"
    assert type(ends["b"]) is RetryableError
    assert type(ends["c"]) is FinalError
    for name in "dg":
        assert isinstance(ends[name], RetryableError)
        assert not ends[name].maybe_billed
    assert isinstance(ends["e"], Reply)
    assert ends["e"].stop is StopReason.REFUSAL
    assert isinstance(ends["f"], Reply)
    assert ends["f"].stop is StopReason.MAX_TOKENS


async def test_an_odd_line_of_results_costs_its_own_request(
    backend: ClaudeBackend, model_server: RunningServer
) -> None:
    lines = {
        "b": {"kind": "line", "message": '{"custom_id": "b", "result": {"type": "succ'},
        "c": {"kind": "line", "message": '{"custom_id": "other", "result": {"type": "paused"}}'},
        "d": "no_line",
        "e": {"kind": "line", "message": "garbage"},
    }
    model_server.control(
        script=[
            {"path": "batch-request", "match": f"question {name}", "faults": [fault]}
            for name, fault in lines.items()
        ]
    )
    batch = await backend.submit(requests_named(*"abcdef"))  # type: ignore[arg-type]
    assert (await backend.retrieve(batch.batch_id)).ended
    ends = {result.custom_id: result.outcome for result in await backend.results(batch.batch_id)}
    assert ends.keys() == {"a", "b", "other", "f"}
    assert isinstance(ends["a"], Reply)
    assert isinstance(ends["f"], Reply)
    assert isinstance(ends["b"], UnreadableReplyError)
    assert isinstance(ends["other"], UnreadableReplyError)


async def test_a_batch_sends_the_same_messages_as_live_calls(
    backend: ClaudeBackend, model_server: RunningServer
) -> None:
    request = frames_request(3)
    live = await backend.complete(request)
    batch = await backend.submit([("one", request)])
    (result,) = await backend.results(batch.batch_id)
    assert isinstance(result.outcome, Reply)
    assert (result.outcome.text, result.outcome.usage) == (live.text, live.usage)
    one, two = model_server.requests("/v1/messages") + model_server.requests("batch-request")
    assert [one[name] for name in ("order", "text", "images", "max_tokens")] == [
        two[name] for name in ("order", "text", "images", "max_tokens")
    ]


async def test_batches_are_listed_over_all_pages_back_to_the_time_asked_for(
    backend: ClaudeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("judges.backends.claude._PAGE", 2)
    old = [await backend.submit(requests_named("x")) for _ in range(2)]  # type: ignore[arg-type]
    time.sleep(0.05)
    since = time.time()
    new = [await backend.submit(requests_named("x")) for _ in range(5)]  # type: ignore[arg-type]
    listed = [batch.batch_id for batch in await backend.list_batches(since)]
    assert listed == [batch.batch_id for batch in reversed(new)]
    assert len(await backend.list_batches(0)) == len(old) + len(new)


async def test_a_batch_whose_confirmation_was_lost_is_found_in_the_list(
    backend: ClaudeBackend, model_server: RunningServer
) -> None:
    model_server.control(script=[{"path": "/v1/messages/batches", "faults": ["drop"]}])
    since = time.time() - 1
    with pytest.raises(RetryableError) as caught:
        await backend.submit(requests_named("lost"))  # type: ignore[arg-type]
    assert caught.value.maybe_billed
    (batch,) = await backend.list_batches(since)
    (result,) = await backend.results(batch.batch_id)
    assert result.custom_id == "lost"


async def test_a_batch_over_the_limit_fails_with_the_servers_words(
    backend: ClaudeBackend, model_server: RunningServer
) -> None:
    model_server.control(batch_max_bytes=50)
    with pytest.raises(FinalError, match="413"):
        await backend.submit(requests_named("x"))  # type: ignore[arg-type]


@pytest.mark.parametrize("num_frames", [0, 1, 16])
def test_the_size_of_a_request_is_bounded_closely(num_frames: int) -> None:
    """A batch cut by it stays under the server's limit: it is never too small."""
    request = frames_request(num_frames, "What 'moves' \n \u00e9\U0001f600?" * 20, system="x\u4e2d")
    backend = ClaudeBackend(SPEC, "claude-sonnet-5-5", "http://127.0.0.1:9", TEST_KEY)
    entry = (
        len(b'{"custom_id":"","params":},') + 64 + len(message_body("claude-sonnet-5-5", request))
    )
    assert entry <= backend.request_bytes(request) <= entry * 1.02 + 400


def test_text_that_is_no_valid_unicode_still_becomes_json() -> None:
    body = message_body("m", text_request("half a pair: \ud83d"))
    assert b"\\ud83d" in body
