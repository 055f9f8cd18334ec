"""Fixtures of the trainer's tests: a small sandbox world, and the pretend model server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.rollout_scenes import render_world
from servers.model_server import RunningServer, running_server

from schemas.questions import VideoQuestion


@pytest.fixture(scope="session")
def judged_world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[VideoQuestion]]:
    """Media root and questions of a small world; never write into it."""
    root = tmp_path_factory.mktemp("judged") / "world"
    return root, render_world(root)


@pytest.fixture(scope="session")
def server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server process for all tests; `model_server` hands it out as new."""
    with running_server(tmp_path_factory.mktemp("server") / "requests.jsonl") as server:
        yield server


@pytest.fixture
def model_server(server_process: RunningServer) -> RunningServer:
    """A server as fresh as a new one: no faults, no rules, an empty log."""
    server_process.reset()
    return server_process
