"""Fixtures that every room shares."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from servers.model_server import RunningServer, running_server

ROOT = Path(__file__).resolve().parent.parent

# The first call into a heavy library outlasts hypothesis' deadline; derandomised runs repeat
# exactly.
settings.register_profile("p2r", deadline=None, derandomize=True)
settings.load_profile("p2r")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked as part of a campaign is slow and heavy, too, before `-m` chooses."""
    for item in items:
        if item.get_closest_marker("campaign"):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.heavy)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared test data: real clips, questions, annotations and model outputs.

    Without it a test is skipped with its reason, but on CI it fails: nothing is left out silently.
    """
    path = Path(os.environ.get("P2R_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        message = f"no test data at {path}: set P2R_TEST_DATA to the folder that holds it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


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
