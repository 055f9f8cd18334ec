"""Fixtures of the trainer's tests: a small sandbox world, and real vLLM servers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.vllm_servers import need_engines

from schemas.questions import VideoQuestion


@pytest.fixture(scope="session")
def judged_world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[VideoQuestion]]:
    """Media root and questions of a small world; never write into it."""
    from helpers.rollout_scenes import render_world  # loads the trainer: not for every test here

    root = tmp_path_factory.mktemp("judged") / "world"
    return root, render_world(root)


@pytest.fixture(scope="session", params=["qwen2.5-vl", "qwen3-vl"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A real vLLM server of each family (`helpers.served_policy.Served`), one for the session."""
    need_engines()
    from helpers.served_policy import serving

    with serving(request.param, tmp_path_factory.mktemp("served")) as started:
        yield started
