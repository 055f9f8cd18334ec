"""The OpenAI-compatible backend on the wire, and which key goes to whom."""

import gc
import hashlib
import traceback
from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest
import pytest_asyncio
from helpers.chat_requests import frames_request, text_request
from servers.app import key_hash
from servers.model_server import TEST_KEY, RunningServer

from cli.option_groups import BackendOptions as GivenOptions
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


@pytest.mark.parametrize("key", ["gsk_Zq8Wx9Zq8Wx9", "0123456789abcdef01234567", "Zq8Wx9", ""])
async def test_a_key_given_in_place_of_its_variable_is_not_shown(key: str) -> None:
    with pytest.raises(BackendUnavailableError, match="never the key itself") as caught:
        await opened("openai:m@http://127.0.0.1:9/v1", api_key_env=key)
    assert not key or key not in str(caught.value)
    with pytest.raises(ValueError, match="never the key itself") as refused:
        GivenOptions(api_key_env=key)
    assert not key or key not in str(refused.value.errors()[0]["msg"])


async def test_the_model_may_hold_an_at_sign_and_the_url_a_slash() -> None:
    backend = await opened("openai:org/model@v2@http://127.0.0.1:9/v1/")
    assert (backend.info.model, backend.info.endpoint) == ("org/model@v2", "http://127.0.0.1:9/v1")
    await backend.aclose()


MISSPELT = """
llama@http//localhost:8000/v1|llama@http:/localhost:8000/v1|llama@htp://localhost:8000/v1
llama@gpu-box/v1|llama@gpu-box.lan/v1|llama@[::1]:8000/v1|llama@localhost:8000|llama@
llama@"http://x/v1"|llama@<http://x/v1>|llama@ws://x/v1|llama@unix:///tmp/socket
llama@ http://localhost:8000/v1| llama@http://x/v1|llama @http://x/v1|llama http://x/v1
llama,http://localhost:8000/v1|llama=http://x/v1|http://x/v1@llama|http://x/v1|@http://x/v1
llama@@http://x/v1|llama\N{FULLWIDTH COMMERCIAL AT}http://x/v1|llama@http\N{FULLWIDTH COLON}//x/v1
org/model|gpu-box/v1|gpu-box.lan:8000|localhost:8000/v1|localhost|127.0.0.1:8000|llama3:8000
llama@http://localhost:99999/v1|llama@http://localhost:port/v1|llama@http://::1:8000/v1
llama@http://[::1:8000/v1|llama@http://$HOST:8000/v1|llama@https://|llama@http://.
llama@http://x y/v1|llama@http://x/v1"|llama@http://x/v1@y|llama@http://http://x/v1
llama@http://a:1/v1,http://b:2/v1|llama@http://a:1/v1, b:2/v1
llama@http://x/v1/chat/completions|llama@http://x/v1/models
"""


@pytest.mark.parametrize("rest", MISSPELT.strip("\n").replace("\n", "|").split("|"))
async def test_a_misspelt_url_is_told_and_nothing_goes_to_openai(
    rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    with pytest.raises(BackendUnavailableError, match="http://localhost:8000/v1"):
        await opened(f"openai:{rest}")


async def test_several_urls_are_told_from_one_that_is_wrong() -> None:
    with pytest.raises(BackendUnavailableError, match="holds 2 URLs: give one"):
        await opened("openai:m@http://a:1/v1, http://b:2/v1")


@pytest.mark.parametrize(
    ("rest", "endpoint"),
    [
        ("m@HTTP://localhost:8000/v1", "http://localhost:8000/v1"),
        ("m@Https://Gateway.example/v1/", "https://Gateway.example/v1"),
        ("m@http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("m@https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/v1", None),
        ("m@https://gateway.example/v1/acc-1/gw/openai", None),
        ("ft:gpt-4o-mini-2024-07-18:my-org:custom:9p4lURel", "https://api.openai.com/v1"),
        ("o4-mini-2025-04-16", "https://api.openai.com/v1"),
        ("gpt-4.1", "https://api.openai.com/v1"),
    ],
)
async def test_what_is_spelt_well_is_asked(
    rest: str, endpoint: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    backend = await opened(f"openai:{rest}")
    assert backend.info.endpoint == (endpoint or rest.partition("@")[2])
    await backend.aclose()


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
async def test_a_variable_that_names_another_server_is_not_passed_over(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    monkeypatch.setenv(name, "http://localhost:8000/v1")
    with pytest.raises(BackendUnavailableError, match=rf"{name} .* write openai:llama@URL"):
        await opened("openai:llama")
    await (await opened("openai:llama@http://localhost:9000/v1")).aclose()
    monkeypatch.setenv(name, "https://api.openai.com/v1")
    await (await opened("openai:gpt-5")).aclose()


@pytest.mark.skipif(find_spec("socksio") is not None, reason="SOCKS proxies can be used here")
async def test_a_socks_proxy_without_its_package_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(BackendUnavailableError, match="install the package socksio"):
        await opened("openai:m@http://127.0.0.1:9/v1")
    gc.collect()
    assert capfd.readouterr().err == ""


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
