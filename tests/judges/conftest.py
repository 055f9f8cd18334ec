"""Fixtures of the judges' tests: tiny models on disk."""

from pathlib import Path

import pytest

from sandbox.tiny_model import save_tiny_model


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama."""
    return save_tiny_model("llama", tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Qwen2.5-VL."""
    return save_tiny_model("qwen2.5-vl", tmp_path_factory.mktemp("tiny") / "qwen")
