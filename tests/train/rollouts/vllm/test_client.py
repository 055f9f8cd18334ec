"""Faults of a rollout server become one sentence that names it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from helpers.rollout_wire import CHAT, Wire, rollout_wire
from helpers.served_model import free_port

from cli.config import UsageError
from train.rollouts.streaming import RolloutServerError
from train.rollouts.vllm.client import VllmClient


@pytest.fixture
def wire() -> Iterator[Wire]:
    with rollout_wire() as server:
        yield server


def test_routes_get_their_bodies_and_queries(wire: Wire) -> None:
    client = VllmClient(wire.url)
    for route in ("/pause", "/update_weights", "/finish_weight_update"):
        wire.says(route, b"")
    client.post("/pause", mode="wait", clear_cache=True)
    client.update_weights({"names": ["a"]})
    client.finish_weight_update("today's")
    assert wire.asked == [
        ("/pause?mode=wait&clear_cache=true", {}),
        ("/update_weights", {"update_info": {"names": ["a"]}}),
        ("/finish_weight_update", {"weight_version": "today's"}),
    ]
    assert client.get("/v1/models") == {"data": [{"id": "policy"}]}


def test_each_update_of_weights_has_a_name_of_its_own_that_is_asked_for(wire: Wire) -> None:
    wire.says("/finish_weight_update", b"")
    one, other = VllmClient(wire.url), VllmClient(wire.url)
    one.finish_weight_update()
    other.finish_weight_update()
    (_, first), (_, second) = wire.asked
    assert first["weight_version"] != second["weight_version"]
    wire.says("/weight_info", second)
    other.refuse_other_weights()
    with pytest.raises(RolloutServerError, match="has other weights than it was sent"):
        one.refuse_other_weights()


def test_who_hangs_up_waits_for_no_reply(wire: Wire) -> None:
    asked, may_answer = Event(), Event()

    def wait(_: object) -> tuple[int, bytes]:
        asked.set()
        may_answer.wait(60)
        return 200, b"{}"

    wire.answers["/weight_info"] = wait
    client = VllmClient(wire.url)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.get, "/weight_info")
        assert asked.wait(60)
        client.hang_up()
        with pytest.raises(RolloutServerError, match="does not answer"):
            reply.result(timeout=30)
        may_answer.set()


def test_events_come_until_the_stream_says_that_it_is_done(wire: Wire) -> None:
    wire.streams({"choices": []}, {"choices": [1]})
    client = VllmClient(wire.url)
    assert list(client.events(CHAT, {})) == [{"choices": []}, {"choices": [1]}]


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:99999999", "http://h?x=1"])
def test_an_address_that_is_none_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match=r"--vllm-url .* is no address of a server; give one such"):
        VllmClient(url)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="a password, which would not be sent") as error:
        VllmClient("http://user:secret@127.0.0.1:8000")
    assert "secret" not in str(error.value)


def test_a_server_that_is_not_there_is_named(wire: Wire) -> None:
    client = VllmClient(f"127.0.0.1:{free_port()}")
    with pytest.raises(RolloutServerError, match=r"http://127\.0\.0\.1:\d+/v1/models does not ans"):
        client.get("/v1/models")


def test_dev_routes_that_are_missing_say_how_to_start_the_server(wire: Wire) -> None:
    with pytest.raises(RolloutServerError, match="start it with VLLM_SERVER_DEV_MODE=1"):
        VllmClient(wire.url).post("/pause")


def test_a_refusal_shows_its_beginning_and_its_end(wire: Wire) -> None:
    wire.says(CHAT, b"begin" + b"\x1b[2J" + b"0" * 9000 + b"the reason", status=400)
    with pytest.raises(RolloutServerError, match=r"status 400: begin.*the reason$") as found:
        list(VllmClient(wire.url).events(CHAT, {}))
    assert len(str(found.value)) < 600
    assert "\x1b" not in str(found.value)


def test_redirects_are_not_followed(wire: Wire) -> None:
    wire.says("/resume", b"", status=307)
    with pytest.raises(RolloutServerError, match="status 307"):
        VllmClient(wire.url).post("/resume")
    assert [path for path, _ in wire.asked] == ["/resume"]


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (b'data: {"choices": []}\n\n', "ended its reply before its end"),
        (b'data: {"error": {"message": "out of memory"}}\n\n', "failed .*out of memory"),
        (b"data: <html>\n\n", "no JSON: <html>"),
    ],
)
def test_streams_that_break_off_are_refused(wire: Wire, stream: bytes, told: str) -> None:
    wire.says(CHAT, stream)
    with pytest.raises(RolloutServerError, match=told):
        list(VllmClient(wire.url).events(CHAT, {}))
