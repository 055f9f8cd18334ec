"""Fixtures of the trainer's tests: a small sandbox world."""

from pathlib import Path

import pytest

from schemas.questions import VideoQuestion


@pytest.fixture(scope="session")
def judged_world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[VideoQuestion]]:
    """Media root and questions of a small world; never write into it."""
    from helpers.rollout_scenes import render_world  # loads the trainer: not for every test here

    root = tmp_path_factory.mktemp("judged") / "world"
    return root, render_world(root)
