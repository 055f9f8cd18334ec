"""Real vLLM servers on the CPU, from the environment that `make engines` makes."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from helpers.served_model import free_port, started

# Beside the environment that runs the tests: mutations run them in copies of the tree.
ENGINES = Path(sys.prefix).parent / ".venv-engines"
START_SECONDS = 280
_MISSING = "there is no .venv-engines with vLLM in it: run make engines"


def need_engines() -> None:
    """`make engines` has ended. Else a test is skipped with its reason, but on CI it fails."""
    if (ENGINES / ".ready").exists():
        return
    if os.environ.get("CI") == "true":
        pytest.fail(_MISSING)
    pytest.skip(_MISSING)


@cache
def served_folder(family: str) -> Path:
    """A tiny random model whose heads are 32 wide: vLLM's attention on CPUs takes no less."""
    from sandbox.models.tiny_models import TinySize, save_tiny_model

    folder = Path(mkdtemp(prefix="p2r-vllm-")) / family
    return save_tiny_model(family, folder, size=TinySize(width=128, layers=2, weight_std=0.1))  # type: ignore[arg-type]


@contextlib.contextmanager
def vllm_server(
    model: Path,
    folder: Path,
    *more: str,
    plugins: str = "p2r",
    environment: Sequence[tuple[str, str]] = (),
) -> Iterator[str]:
    """The URL of a server of `model` in float32; its log goes into `folder`."""
    port = free_port()
    log = folder / "vllm.log"
    command = [str(ENGINES / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"]
    # vLLM 0.31 ends on CPUs where a prompt with a seed is prefilled in parts.
    command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "16384"]
    command += ["--max-num-seqs", "64", "--limit-mm-per-prompt", '{"image": 2, "video": 2}']
    command += ["--logprobs-mode", "processed_logprobs", "--trust-request-mm-kwargs"]
    command += ["--weight-transfer-config", json.dumps({"backend": "gloo"}), *more]
    settings = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_CI_ENV": "1",  # no warm-up
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": plugins,
        "VLLM_SERVER_DEV_MODE": "1",
        **dict(environment),
    }
    with started(command, settings, port, log, seconds=START_SECONDS):
        yield f"http://127.0.0.1:{port}"
