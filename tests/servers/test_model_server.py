"""The pretend server refuses what the real ones refuse, and its faults can be repeated."""

import asyncio
import base64
import hashlib
import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anthropic
import httpx2
import pytest
from helpers.chat_requests import frame
from servers.faults import FaultPlan
from servers.model_server import RunningServer, running_server

pytestmark = pytest.mark.heavy

HEADERS = {"x-api-key": "k", "anthropic-version": "2026-10-21"}


def post(
    server: RunningServer,
    body: Any,
    path: str = "/v1/messages",
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request("POST", path, json.dumps(body), HEADERS if headers is None else headers)
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, content


def message(text: str = "hello", **changes: Any) -> dict[str, Any]:
    body = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": text}]}
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


def image_block(data: bytes, media_type: str = "image/jpeg") -> dict[str, Any]:
    encoded = base64.b64encode(data).decode()
    source = {"type": "base64", "media_type": media_type, "data": encoded}
    return {"type": "image", "source": source}


def with_image(block: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [block, {"type": "text", "text": "look"}]}]


BROKEN_BASE64 = image_block(b"") | {
    "source": {"type": "base64", "media_type": "image/jpeg", "data": "not base64!"}
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": 0}, "temperature: Extra inputs are not permitted"),
        ({"top_p": 0.9}, "top_p: Extra inputs are not permitted"),
        ({"top_k": 5}, "top_k: Extra inputs are not permitted"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "greater than or equal to 1"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "user", "content": ""}]}, "must be non-empty"),
        ({"messages": [{"role": "system", "content": "x"}]}, "role"),
        ({"messages": with_image(image_block(b"no image"))}, "Could not heavy image"),
        ({"messages": with_image(image_block(frame(1).data, "image/png"))}, "image/png"),
        ({"messages": with_image(image_block(frame(1).data, "image/tiff"))}, "media_type"),
        ({"messages": with_image(BROKEN_BASE64)}, "invalid base64"),
    ],
)
def test_what_the_real_api_refuses_is_refused(
    model_server: RunningServer, changes: dict[str, Any], words: str
) -> None:
    status, content = post(model_server, message(**changes))
    assert status == 400
    assert content["error"]["type"] == "invalid_request_error"
    assert words in content["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"anthropic-version": "2026-10-21"}, 401),
        ({"x-api-key": "wrong", "anthropic-version": "2026-10-21"}, 401),
        ({"x-api-key": "right"}, 400),
        ({"authorization": "Bearer right", "anthropic-version": "2026-10-21"}, 200),
    ],
)
def test_key_and_version_are_demanded(headers: dict[str, str], status: int) -> None:
    with running_server(api_key="right") as server:
        assert post(server, message(), headers=headers)[0] == status


def test_usage_follows_the_documented_rule_and_the_counting_endpoint(
    model_server: RunningServer,
) -> None:
    """4 for the message, "look" 1, "be", "good" and "." 3, an image of 84 x 56 ceil(6.27) = 7."""
    body = message(system="be good.", messages=with_image(image_block(frame(1, 84, 56).data)))
    _, reply = post(model_server, body)
    del body["max_tokens"]
    _, count = post(model_server, body, "/v1/messages/count_tokens")
    assert reply["usage"]["input_tokens"] == count["input_tokens"] == 4 + 1 + 3 + 7


def test_a_reply_longer_than_max_tokens_is_cut_and_says_so(model_server: RunningServer) -> None:
    model_server.control(replies=[{"contains": "hello", "reply": "one two three, four"}])
    _, reply = post(model_server, message(max_tokens=3))
    assert reply["content"][0]["text"] == "one two three"
    assert (reply["stop_reason"], reply["usage"]["output_tokens"]) == ("max_tokens", 3)


def test_rules_match_by_all_their_texts_and_the_first_wins(model_server: RunningServer) -> None:
    model_server.control(
        replies=[
            {"contains": ["red", "ball"], "reply": "first"},
            {"pattern": "b.ll", "replies": ["second", "third"]},
        ]
    )
    texts = ["a red ball", "a ball", "a bill", "a ball", "a ball"]
    replies = [post(model_server, message(text))[1]["content"][0]["text"] for text in texts]
    assert replies == ["first", "second", "second", "third", "third"]


def outcomes(server: RunningServer, order: list[int]) -> dict[tuple[int, int], Any]:
    """What attempt 0, 1, 2 of each of some bodies end as."""
    found = {}
    for attempt in range(3):
        for number in order:
            status, content = post(server, message(f"question {number}"))
            found[number, attempt] = (status, content.get("stop_reason"))
    return found


def test_faults_depend_on_body_and_attempt_and_never_on_the_order() -> None:
    rates = {"rate_limit": 0.3, "server_error": 0.2, "refused": 0.1, "truncated": 0.1}
    with running_server(rates=rates, seed=7) as one, running_server(rates=rates, seed=7) as two:
        forward, backward = list(range(40)), list(range(39, -1, -1))
        first, second = outcomes(one, forward), outcomes(two, backward)
    assert first == second
    assert {status for status, _ in first.values()} == {200, 429, 500}


def test_a_final_kind_hits_every_attempt_of_a_body_at_its_rate() -> None:
    plan = FaultPlan(seed=1)
    plan.set_rates({"refused": 0.2, "rate_limit": 0.3})
    hits = [[plan.drawn(f"body{i}", attempt).kind for attempt in range(6)] for i in range(1000)]
    refusals = [kinds.count("refused") for kinds in hits]
    assert set(refusals) == {0, 6}
    assert 160 < refusals.count(6) < 240  # 200 expected, standard deviation 13
    limited = sum(kinds.count("rate_limit") for kinds in hits)
    assert 1300 < limited < 1580  # 6000 x 0.8 x 0.3 = 1440, standard deviation 32


def test_a_script_comes_first_and_in_turn(model_server: RunningServer) -> None:
    model_server.control(
        script=[{"match": "ball", "faults": ["overloaded", {"kind": "rate_limit"}, "ok"]}]
    )
    statuses = [post(model_server, message("a ball"))[0] for _ in range(4)]
    assert (statuses, post(model_server, message("a cube"))[0]) == ([529, 429, 200, 200], 200)


@pytest.mark.parametrize("kind", ["drop", "drop_middle"])
def test_connections_are_cut_for_real(model_server: RunningServer, kind: str) -> None:
    model_server.control(script=[{"faults": [kind]}])
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.post(f"{model_server.url}/v1/messages", json=message(), headers=HEADERS)
    assert post(model_server, message())[0] == 200


async def test_hundreds_of_requests_are_answered_at_once(model_server: RunningServer) -> None:
    model_server.control(latency_ms=1500)
    async with anthropic.AsyncAnthropic(
        api_key="k" * 20, base_url=model_server.url, max_retries=0, timeout=120
    ) as client:
        calls = [
            client.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": f"hi {number}"}]
            )
            for number in range(200)
        ]
        await asyncio.gather(*calls)
    assert model_server.control()["most_in_flight"] == 200


def test_the_log_shows_what_came_but_no_key(model_server: RunningServer, tmp_path: Path) -> None:
    picture = frame(3)
    body = message(messages=with_image(image_block(picture.data)))
    post(model_server, body, headers={**HEADERS, "x-api-key": "sk-very-secret-key"})
    (record,) = model_server.requests()
    assert record["images"] == [
        {"width": 84, "height": 56, "sha256": hashlib.sha256(picture.data).hexdigest()}
    ]
    assert (record["text"], record["order"], record["outcome"]) == ("look", "it", "ok")
    assert record["body_hash"] == hashlib.sha256(json.dumps(body).encode()).hexdigest()
    assert "very-secret" not in model_server.log_path.read_text()


def batch_of(*custom_ids: str) -> dict[str, Any]:
    return {"requests": [{"custom_id": name, "params": message(name)} for name in custom_ids]}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (batch_of("a", "a"), 400),
        (batch_of("not valid!"), 400),
        (batch_of("x" * 65), 400),
        ({"requests": []}, 400),
        (batch_of("a", "b", "c", "d"), 400),
        (batch_of(*"abc"), 200),
    ],
)
def test_batches_have_the_real_limits(
    model_server: RunningServer, body: dict[str, Any], status: int
) -> None:
    model_server.control(batch_max_requests=3)
    assert post(model_server, body, "/v1/messages/batches")[0] == status


def test_a_batch_too_large_in_bytes_is_refused(model_server: RunningServer) -> None:
    model_server.control(batch_max_bytes=100)
    assert post(model_server, batch_of("a"), "/v1/messages/batches")[0] == 413


def test_a_slow_batch_has_no_results_until_it_ends(model_server: RunningServer) -> None:
    model_server.control(batch_seconds=3600, batch_order="reversed")
    client = anthropic.Anthropic(api_key="k" * 20, base_url=model_server.url, max_retries=0)
    batch = client.messages.batches.create(**batch_of("a", "b", "c"))
    assert client.messages.batches.retrieve(batch.id).processing_status == "in_progress"
    with pytest.raises(anthropic.AnthropicError):
        client.messages.batches.results(batch.id)
    model_server.control(end_batches=True)
    assert client.messages.batches.retrieve(batch.id).request_counts.succeeded == 3
    results = [result.custom_id for result in client.messages.batches.results(batch.id)]
    assert results == ["c", "b", "a"]


def test_an_unknown_control_or_fault_is_an_error(model_server: RunningServer) -> None:
    with pytest.raises(ValueError, match="unknown control"):
        model_server.control(latency=5)
    with pytest.raises(ValueError, match="unknown fault"):
        model_server.control(script=[{"faults": ["explode"]}])
