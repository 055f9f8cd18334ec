"""Fixtures of the judges' tests: the pretend model server, and tiny models on disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.model_server import RunningServer, running_server

from sandbox.tiny_model import save_tiny_model


@pytest.fixture(scope="session")
def server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server process for all tests; `model_server` hands it out as new."""
    with running_server(tmp_path_factory.mktemp("server") / "requests.jsonl") as server:
        yield server


@pytest.fixture
def model_server(server_process: RunningServer) -> RunningServer:
    """A server as fresh as a new one: no faults, no rules, no batches, an empty log."""
    server_process.reset()
    return server_process


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama."""
    return save_tiny_model("llama", tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Qwen2.5-VL."""
    return save_tiny_model("qwen2.5-vl", tmp_path_factory.mktemp("tiny") / "qwen")
