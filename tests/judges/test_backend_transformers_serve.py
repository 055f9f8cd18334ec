"""A real server that nobody here wrote: `transformers serve` with a tiny random Llama."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from requests_for_tests import text_request

from judges.backends.base import FinalError, RetryableError, StopReason
from judges.backends.registry import BackendOptions, open_backend

START_SECONDS = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def served(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of the server, which preloads the model."""
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(tiny_llama)]
    command += ["--port", str(port), "--host", "127.0.0.1", "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _is_healthy(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"transformers serve did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=20)
            server.kill()


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


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
