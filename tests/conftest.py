"""Fixtures that every room shares."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# The first call into a heavy library outlasts hypothesis' deadline; derandomised runs repeat
# exactly.
settings.register_profile("p2r", deadline=None, derandomize=True)
settings.load_profile("p2r")


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
