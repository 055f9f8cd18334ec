"""One attempt on the wire, alike for both protocols: time, size, odd replies, keys."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from helpers.chat_requests import text_request
from servers.model_server import TEST_KEY, RunningServer

from judges.backends.base import (
    AccessError,
    FinalError,
    RetryableError,
    StopReason,
    UnreadableReplyError,
    Usage,
)
from judges.backends.claude import ClaudeBackend
from judges.backends.openai_compatible import OpenAICompatible

PROTOCOLS = ("claude", "openai")
AnyBackend = ClaudeBackend | OpenAICompatible


def opened(protocol: str, server: RunningServer, timeout_seconds: float = 20) -> AnyBackend:
    if protocol == "claude":
        return ClaudeBackend("claude:m", "m", server.url, TEST_KEY, timeout_seconds)
    return OpenAICompatible(
        "openai:m", "m", server.openai_url, TEST_KEY, "KEY", timeout_seconds=timeout_seconds
    )


@pytest_asyncio.fixture(params=PROTOCOLS)
async def backend(
    request: pytest.FixtureRequest, model_server: RunningServer
) -> AsyncIterator[AnyBackend]:
    backend = opened(request.param, model_server)
    yield backend
    await backend.aclose()


def body_of_a_reply(
    backend: AnyBackend, content: object = "yes", end: object = "", usage: object = None
) -> str:
    """A reply as each protocol writes it; `end` "" is its usual word."""
    if isinstance(backend, ClaudeBackend):
        usage = usage or {"input_tokens": 30, "output_tokens": 5}
        end = "end_turn" if end == "" else end
        return json.dumps({"id": "i", "content": content, "stop_reason": end, "usage": usage})
    usage = usage or {"prompt_tokens": 30, "completion_tokens": 5}
    end = "stop" if end == "" else end
    choice = {"message": {"content": content}, "finish_reason": end}
    return json.dumps({"id": "i", "choices": [choice], "usage": usage})


def next_body(server: RunningServer, body: str) -> None:
    server.control(script=[{"faults": [{"kind": "malformed", "message": body}]}])


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_reply_that_trickles_is_left_after_the_timeout(
    protocol: str, model_server: RunningServer
) -> None:
    model_server.control(script=[{"faults": [{"kind": "trickle", "seconds": 0.05}]}])
    backend = opened(protocol, model_server, timeout_seconds=0.5)
    started = time.monotonic()
    with pytest.raises(RetryableError, match=r"did not answer in time: .* after 0.5 s") as caught:
        await backend.complete(text_request())
    assert time.monotonic() - started < 5
    assert caught.value.maybe_billed
    await backend.aclose()


async def test_a_reply_that_is_larger_than_any_is_not_read_to_its_end(
    backend: AnyBackend, model_server: RunningServer
) -> None:
    model_server.control(script=[{"faults": [{"kind": "huge", "num_bytes": 200_000_000}]}])
    started = time.monotonic()
    with pytest.raises(UnreadableReplyError, match="more than 8 MB"):
        await backend.complete(text_request())
    assert time.monotonic() - started < 3


async def test_of_a_huge_error_only_the_beginning_is_read(
    backend: AnyBackend, model_server: RunningServer
) -> None:
    fault = {"kind": "huge", "num_bytes": 200_000_000, "status": 400}
    model_server.control(script=[{"faults": [fault]}])
    started = time.monotonic()
    with pytest.raises(FinalError, match="answered 400") as caught:
        await backend.complete(text_request())
    assert time.monotonic() - started < 3
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["/v1/messages", "http://127.0.0.1:{port}/elsewhere"])
async def test_a_redirect_is_told_and_not_followed(
    backend: AnyBackend, model_server: RunningServer, status: int, place: str
) -> None:
    """A client would send key and frames wherever the server points."""
    place = place.format(port=model_server.url.rpartition(":")[2])
    fault = {"kind": "redirect", "status": status, "message": place}
    model_server.control(script=[{"faults": [fault]}])
    with pytest.raises(AccessError, match=rf"answered {status}: .* on to {place}, .*give its URL"):
        await backend.complete(text_request())
    assert len(model_server.requests()) == 1


@pytest.mark.parametrize("depth", [300, 700, 900, 940, 960, 970, 980, 985, 990, 200_000])
async def test_an_error_is_told_however_deep_it_is_nested(
    backend: AnyBackend, model_server: RunningServer, depth: int
) -> None:
    fault = {"kind": "malformed", "message": "[" * depth + "]" * depth, "status": 400}
    model_server.control(script=[{"faults": [fault]}])
    with pytest.raises(FinalError, match="answered 400") as caught:
        await backend.complete(text_request())
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("end", ["eos_token", "end_turn", "stop_sequence", "stop", None])
async def test_a_text_whose_end_other_servers_name_is_a_reply(
    backend: AnyBackend, model_server: RunningServer, end: object
) -> None:
    next_body(model_server, body_of_a_reply(backend, end=end))
    reply = await backend.complete(text_request())
    assert (reply.text, reply.stop, reply.usage) == ("yes", StopReason.END, Usage(30, 5))


@pytest.mark.parametrize("end", ["tool_use", "tool_calls", "pause_turn", ["stop"], {"a": 1}, 7])
async def test_an_end_that_a_plain_request_cannot_cause_is_told_with_its_usage(
    backend: AnyBackend, model_server: RunningServer, end: object
) -> None:
    next_body(model_server, body_of_a_reply(backend, end=end))
    reply = await backend.complete(text_request())
    assert (reply.stop, reply.usage) == (StopReason.OTHER, Usage(30, 5))
    assert "which a plain request cannot cause" in reply.note


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "ye"}, {"type": "text", "text": "s"}], "yes"),
        ([{"type": "thinking", "thinking": "no"}, {"type": "text", "text": "yes"}], "yes"),
        (None, ""),
        ([], ""),
    ],
)
async def test_text_comes_in_parts_or_not_at_all(
    backend: AnyBackend, model_server: RunningServer, content: object, text: str
) -> None:
    next_body(model_server, body_of_a_reply(backend, content))
    assert (await backend.complete(text_request())).text == text


@pytest.mark.parametrize(
    "body",
    [
        "[" * 200_000,
        '{"a":' * 200_000,
        "{}",
        "null",
        '"yes"',
        '{"content": 7, "choices": 7}',
        '{"content": {}, "choices": [7]}',
        '{"content": [7], "choices": [{"message": null}]}',
        '{"content": [{"type": "text"}], "choices": [{"message": {"content": {}}}]}',
    ],
)
async def test_a_reply_that_cannot_be_read_is_one_retryable_error(
    backend: AnyBackend, model_server: RunningServer, body: str
) -> None:
    next_body(model_server, body)
    with pytest.raises(RetryableError, match="cannot be read") as caught:
        await backend.complete(text_request())
    assert caught.value.maybe_billed
    assert len(str(caught.value)) < 3000


async def test_an_error_in_place_of_a_reply_is_none_and_costs_nothing(
    backend: AnyBackend, model_server: RunningServer
) -> None:
    next_body(model_server, '{"error": {"code": 502, "message": "upstream died"}}')
    with pytest.raises(RetryableError, match="200 with an error of status 502: upstream") as caught:
        await backend.complete(text_request())
    assert not caught.value.maybe_billed
    next_body(model_server, '{"type": "error", "error": {"code": 402, "message": "no money"}}')
    with pytest.raises(AccessError, match="no money"):
        await backend.complete(text_request())


@pytest.mark.parametrize(
    ("replaced", "note"),
    [
        ({"choices": [], "content": 7}, "cannot be read"),
        ({"choices": None, "content": [{"type": "text"}]}, "cannot be read"),
        ({"choices": [{"text": "yes", "finish_reason": "stop"}], "content": {}}, "cannot be read"),
        ({"choices": [], "content": 7, "error": {"message": "it died"}}, "cannot be read"),
    ],
)
async def test_a_billed_reply_that_cannot_be_read_is_not_bought_again(
    backend: AnyBackend, model_server: RunningServer, replaced: dict[str, Any], note: str
) -> None:
    next_body(model_server, json.dumps(json.loads(body_of_a_reply(backend)) | replaced))
    reply = await backend.complete(text_request())
    assert (reply.text, reply.stop, reply.usage.input_tokens) == ("", StopReason.OTHER, 30)
    assert note in reply.note


@pytest.mark.parametrize(
    ("end", "stop"), [("content_filter", StopReason.REFUSAL), ("stop", StopReason.END)]
)
async def test_a_filter_may_leave_the_message_out(
    model_server: RunningServer, end: str, stop: StopReason
) -> None:
    backend = opened("openai", model_server)
    usage = {"prompt_tokens": 30, "completion_tokens": 0}
    for choice in ({"finish_reason": end}, {"finish_reason": end, "message": None}):
        next_body(model_server, json.dumps({"choices": [choice], "usage": usage}))
        reply = await backend.complete(text_request())
        assert (reply.text, reply.stop, reply.usage) == ("", stop, Usage(30, 0))
    await backend.aclose()


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -5, "output_tokens": 5, "prompt_tokens": -5, "completion_tokens": 5},
        {"input_tokens": 1e30, "output_tokens": 5, "prompt_tokens": 1e30, "completion_tokens": 5},
        {"input_tokens": [1], "prompt_tokens": {}, "output_tokens": True},
        [1, 2],
        "many",
    ],
)
async def test_a_reply_with_nonsensical_usage_is_a_reply_of_unknown_cost(
    backend: AnyBackend, model_server: RunningServer, usage: object
) -> None:
    next_body(model_server, body_of_a_reply(backend, usage=usage))
    reply = await backend.complete(text_request())
    assert reply.text == "yes"
    assert not reply.usage.is_reliable
    assert reply.usage.input_tokens == 0


async def test_an_infinite_number_is_a_reply_of_unknown_cost(
    backend: AnyBackend, model_server: RunningServer
) -> None:
    body = body_of_a_reply(backend).replace("30", "1e999")
    next_body(model_server, body)
    assert not (await backend.complete(text_request())).usage.is_reliable


async def test_the_key_in_a_reply_is_cut_out(
    backend: AnyBackend, model_server: RunningServer
) -> None:
    body: dict[str, Any] = json.loads(body_of_a_reply(backend, f"your key is {TEST_KEY}!"))
    body |= {"model": TEST_KEY, "id": TEST_KEY}
    next_body(model_server, json.dumps(body))
    reply = await backend.complete(text_request())
    assert reply.text == "your key is [redacted]!"
    assert TEST_KEY not in repr(reply)


async def test_a_names_length_is_bounded(backend: AnyBackend, model_server: RunningServer) -> None:
    body: dict[str, Any] = json.loads(body_of_a_reply(backend))
    next_body(model_server, json.dumps(body | {"model": "m" * 100_000}))
    assert len((await backend.complete(text_request())).model) == 200
