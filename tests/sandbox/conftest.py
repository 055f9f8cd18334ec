"""One rendered world for all tests of the sandbox's files and its oracle."""

from pathlib import Path

import pytest

from sandbox.clips import main


@pytest.fixture(scope="session")
def sandbox_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full world with every kind of question; never write into it."""
    root = tmp_path_factory.mktemp("sandbox") / "world"
    size = ["--clips", "40", "--stills", "20", "--num-questions", "300"]
    assert main(["--out", str(root), *size]) == 0
    return root
