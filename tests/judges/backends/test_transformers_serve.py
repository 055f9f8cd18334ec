"""A real server that nobody here wrote: `transformers serve` with a tiny random Llama."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.chat_requests import text_request
from helpers.served_model import free_port, served_model

from judges.backends.base import FinalError, RetryableError, StopReason
from judges.backends.registry import BackendOptions, open_backend

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def served(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of the server."""
    with served_model(tiny_llama, tmp_path_factory.mktemp("serve")) as url:
        yield url


async def test_a_judges_call_gets_what_the_same_weights_say_in_this_process(
    served: str, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two implementations of prompt, template, tokens and greedy decoding agree."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    request = text_request("Is the observation sufficient?", system="You judge.", max_tokens=20)
    remote = await open_backend(f"openai:{tiny_llama}@{served}")
    local = await open_backend(f"local:{tiny_llama}", BackendOptions(device="cpu"))
    here, there = await local.complete(request), await remote.complete(request)
    await remote.aclose()
    await local.aclose()
    assert there.text == here.text != ""
    assert there.usage == here.usage
    assert there.stop is here.stop is StopReason.MAX_TOKENS
    assert there.usage.output_tokens == 20


async def test_a_model_that_is_not_served_is_a_final_error_with_the_servers_words(
    served: str,
) -> None:
    remote = await open_backend(f"openai:somebody/else@{served}")
    with pytest.raises(FinalError, match="Server is pinned to"):
        await remote.complete(text_request())
    await remote.aclose()


async def test_a_server_that_is_gone_is_worth_another_attempt() -> None:
    remote = await open_backend(f"openai:m@http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(RetryableError) as caught:
        await remote.complete(text_request())
    assert not caught.value.maybe_billed
    await remote.aclose()
