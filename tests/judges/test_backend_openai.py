"""The OpenAI-compatible backend on the wire, and which key goes to whom."""

import hashlib
import traceback
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from requests_for_tests import frames_request, text_request
from servers.app import key_hash
from servers.model_server import TEST_KEY, RunningServer

from judges.backends.base import (
    AccessError,
    BackendUnavailableError,
    FinalError,
    RetryableError,
    StopReason,
)
from judges.backends.openai_compatible import OpenAICompatible, is_openai
from judges.backends.registry import BackendOptions, open_backend

OPENAI_KEY = "sk-proj-belongs-to-openai-only-0123"
PATH = "/v1/chat/completions"


async def opened(spec: str, **options: object) -> OpenAICompatible:
    backend = await open_backend(spec, BackendOptions(**options))  # type: ignore[arg-type]
    assert isinstance(backend, OpenAICompatible)
    return backend


@pytest_asyncio.fixture
async def backend(
    model_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OpenAICompatible]:
    monkeypatch.setenv("SERVER_KEY", TEST_KEY)
    backend = await opened(f"openai:m@{model_server.openai_url}", api_key_env="SERVER_KEY")
    yield backend
    await backend.aclose()


async def test_frames_and_texts_go_out_in_the_order_of_the_parts(
    backend: OpenAICompatible, model_server: RunningServer
) -> None:
    request = frames_request(5, "What moves?", system="Watch closely.")
    reply = await backend.complete(request)
    (record,) = model_server.requests(PATH)
    assert (record["order"], record["system"]) == ("ti" * 5 + "t", "Watch closely.")
    sent = [hashlib.sha256(image.data).hexdigest() for image in request.images]
    assert [image["sha256"] for image in record["images"]] == sent
    assert reply.text == record["reply"]
    assert reply.usage.input_tokens == record["usage"]["prompt_tokens"]
    assert reply.usage.output_tokens == record["usage"]["completion_tokens"]
    assert reply.request_id == "req_00000001"


async def test_sampling_and_the_token_limit_are_sent_as_every_server_knows_them(
    backend: OpenAICompatible, model_server: RunningServer
) -> None:
    sampling = (("temperature", 0.7), ("top_p", 0.9), ("seed", 3.0))
    await backend.complete(text_request(sampling=sampling))
    (record,) = model_server.requests(PATH)
    expected = {"model": "m", "max_tokens": 64, "temperature": 0.7, "top_p": 0.9, "seed": 3}
    assert record["parameters"] == expected
    assert isinstance(record["parameters"]["seed"], int)
    assert backend.info.takes_sampling == {"temperature", "top_p", "seed"}


async def test_openais_own_models_get_their_own_name_of_the_token_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    backend = await opened("openai:gpt-5")
    assert backend.info.endpoint == "https://api.openai.com/v1"
    parameters = backend.parameters(text_request())
    assert parameters["max_completion_tokens"] == 64
    assert "max_tokens" not in parameters
    await backend.aclose()


async def test_the_openai_key_never_goes_to_another_host(
    model_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do the account's organization, project and custom headers."""
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", OPENAI_KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-gateway-token: secret")
    backend = await opened(f"openai:m@{model_server.openai_url}")
    await backend.complete(text_request())
    (record,) = model_server.requests(PATH)
    assert record["key_hash"] == key_hash("none")
    names = set(record["headers"])
    assert not names & {"openai-organization", "openai-project", "x-gateway-token"}
    await backend.aclose()


async def test_another_host_gets_the_key_that_the_user_named(
    backend: OpenAICompatible, model_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    await backend.complete(text_request())
    assert model_server.requests(PATH)[0]["key_hash"] == key_hash(TEST_KEY)


@pytest.mark.parametrize(
    ("url", "is_own"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com.example.net/v1", False),
        ("https://example.net/api.openai.com", False),
        ("https://api.openai.com@example.net/v1", False),
        ("https://notapi.openai.com/v1", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_only_openais_own_hosts_over_https_count_as_openai(url: str, is_own: bool) -> None:
    assert is_openai(url) is is_own


async def test_a_missing_key_is_told_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(BackendUnavailableError, match="OPENAI_API_KEY"):
        await opened("openai:gpt-5")
    with pytest.raises(BackendUnavailableError, match="MY_KEY"):
        await opened("openai:m@http://127.0.0.1:9/v1", api_key_env="MY_KEY")


@pytest.mark.parametrize(
    "url",
    [
        "http://user:password@host/v1",
        "http://token@host/v1",
        "http://host/v1?key=abc",
        "http://host/v1#abc",
        "http:///v1",
    ],
)
async def test_a_url_with_a_secret_in_it_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(BackendUnavailableError, match="must be plain") as caught:
        await opened(f"openai:m@{url}")
    assert not any(secret in str(caught.value) for secret in ("password", "token@", "abc"))


async def test_the_model_may_hold_an_at_sign_and_the_url_a_slash() -> None:
    backend = await opened("openai:org/model@v2@http://127.0.0.1:9/v1/")
    assert (backend.info.model, backend.info.endpoint) == ("org/model@v2", "http://127.0.0.1:9/v1")
    await backend.aclose()


@pytest.mark.parametrize(
    ("fault", "stop", "is_empty"),
    [
        ("truncated", StopReason.MAX_TOKENS, False),
        ("refused", StopReason.REFUSAL, True),
        ("empty", StopReason.END, True),
    ],
)
async def test_each_end_of_a_reply_is_told_apart(
    backend: OpenAICompatible,
    model_server: RunningServer,
    fault: str,
    stop: StopReason,
    is_empty: bool,
) -> None:
    model_server.control(script=[{"faults": [fault]}])
    reply = await backend.complete(text_request())
    assert (reply.stop, reply.text == "") == (stop, is_empty)


async def test_a_refusal_that_ends_normally_is_a_refusal(
    backend: OpenAICompatible, model_server: RunningServer
) -> None:
    body = (
        '{"choices": [{"finish_reason": "stop", "message": {"content": null,'
        ' "refusal": "I cannot help with that."}}], "usage": {"prompt_tokens": 3}}'
    )
    model_server.control(script=[{"faults": [{"kind": "malformed", "message": body}]}])
    assert (await backend.complete(text_request())).stop is StopReason.REFUSAL


async def test_cached_prompt_tokens_are_counted_once(
    backend: OpenAICompatible, model_server: RunningServer
) -> None:
    body = (
        '{"choices": [{"finish_reason": "stop", "message": {"content": "yes"}}], "usage":'
        ' {"prompt_tokens": 100, "completion_tokens": 1,'
        ' "prompt_tokens_details": {"cached_tokens": 60}}}'
    )
    model_server.control(script=[{"faults": [{"kind": "malformed", "message": body}]}])
    usage = (await backend.complete(text_request())).usage
    assert (usage.input_tokens, usage.cache_read_tokens) == (40, 60)


@pytest.mark.parametrize(
    ("fault", "error", "overloaded", "maybe_billed"),
    [
        ({"kind": "rate_limit", "retry_after": "2"}, RetryableError, True, False),
        ("server_error", RetryableError, False, False),
        ("drop", RetryableError, False, True),
        ("drop_middle", RetryableError, False, True),
        ("malformed", RetryableError, False, True),
        ({"kind": "malformed", "message": '{"choices": []}'}, RetryableError, False, True),
        ({"kind": "malformed", "message": "[1]"}, RetryableError, False, True),
        ("bad_request", FinalError, None, None),
        ("unauthorized", AccessError, None, None),
    ],
)
async def test_a_failure_is_one_attempt_and_the_right_error(
    backend: OpenAICompatible,
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
    assert len(model_server.requests(PATH)) == 1
    if isinstance(fault, dict) and "retry_after" in fault:
        assert getattr(caught.value, "retry_after_seconds", None) == 2


async def test_a_key_that_the_server_echoes_appears_nowhere(
    backend: OpenAICompatible, model_server: RunningServer
) -> None:
    fault = {"kind": "unauthorized", "message": "your key {key} is not welcome"}
    model_server.control(script=[{"faults": [fault]}])
    with pytest.raises(AccessError, match="SERVER_KEY") as caught:
        await backend.complete(text_request())
    assert TEST_KEY not in "".join(traceback.format_exception(caught.value))


async def test_tokens_are_bounded_but_cannot_be_counted(backend: OpenAICompatible) -> None:
    for request in (text_request(), frames_request(4, system="Be careful.")):
        billed = (await backend.complete(request)).usage
        bound = backend.worst_case_tokens(request)
        assert bound[0] >= billed.input_tokens
        assert bound[1] >= billed.output_tokens
        assert await backend.count_tokens(request) is None
