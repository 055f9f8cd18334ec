"""One rendered world for all tests of the sandbox's files and its oracle."""

from pathlib import Path

import pytest

from sandbox.clips import main


@pytest.fixture(scope="session")
def sandbox_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full world with every kind of question; never write into it."""
    root = tmp_path_factory.mktemp("sandbox") / "world"
    assert main(["--out", str(root), "--clips", "40", "--stills", "20", "--questions", "300"]) == 0
    return root
