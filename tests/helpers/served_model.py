"""`transformers serve` in a process of its own: a real server that nobody here wrote."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

START_SECONDS = 120


@contextlib.contextmanager
def served_model(model: Path, folder: Path) -> Iterator[str]:
    """The base URL of a server that has loaded `model`; its log goes into `folder`."""
    port = free_port()
    log = folder / "serve.log"
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model)]
    command += ["--port", str(port), "--host", "127.0.0.1", "--device", "cpu"]
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with started(command, settings, port, log, seconds=START_SECONDS):
        yield f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def started(
    command: Sequence[str], settings: Mapping[str, str], port: int, log: Path, *, seconds: float
) -> Iterator[None]:
    """A server that answers at `port` within `seconds`; it ends with all that it has started."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, **settings},
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + seconds
            while not _is_healthy(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    words = log.read_text("utf-8", "replace")[-3000:]
                    pytest.fail(f"{' '.join(command[:4])} did not start:\n{words}")
                time.sleep(0.2)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
