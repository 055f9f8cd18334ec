"""`python -m judges.audit label` as a user starts it, stopped as nobody wants it to be."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

# Writes down each attempt to reach another machine, by whatever code of the process.
_WATCH_CALLS_OUT = """
import os, sys

def _watch(event, arguments):
    if event not in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        return
    address = arguments[1] if event != "socket.getaddrinfo" else arguments
    host = address[0] if isinstance(address, tuple) else None
    if host in (None, "", "127.0.0.1", "localhost", "::1", b"127.0.0.1", b"localhost"):
        return
    with open(os.environ["P2R_TEST_CALLS_OUT"], "a") as file:
        file.write(f"{event} {address!r}\\n")

sys.addaudithook(_watch)
"""


class LabelServer:
    """The page of one audit, on the same port each time it is started."""

    def __init__(self, folder: Path, audit: Path, *options: str) -> None:
        self._folder = folder
        self._audit = audit
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        hook = folder / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(_WATCH_CALLS_OUT)
        self._calls_out = folder / "calls_out.txt"
        paths = [str(hook), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "P2R_TEST_CALLS_OUT": str(self._calls_out),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}/"

    def start(self, *, seconds: float = 120) -> None:
        """Start it and wait until it says where it is."""
        log = self._folder / f"server-{time.monotonic_ns()}.txt"
        command = [sys.executable, "-m", "judges.audit", "label", str(self._audit)]
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port), *self._options],
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                env=self._environment,
                start_new_session=True,  # its decoder processes die with it
            )
        end = time.monotonic() + seconds
        while "open http://" not in (said := log.read_text()):
            assert self._process.poll() is None, said
            assert time.monotonic() < end, f"no page within {seconds} s: {said}"
            time.sleep(0.1)
        self.port = int(said.split("open http://127.0.0.1:")[1].split("/")[0])

    def kill(self) -> None:
        """`kill -9`, at once and all of it."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=30)

    def stop(self, *, seconds: float = 60) -> int:
        """Ctrl-C; returns the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(timeout=seconds)

    def said(self) -> str:
        """All that the command printed, in all its runs."""
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("server-*.txt")))

    def calls_out(self) -> str:
        """Each attempt of the server to reach another machine, one line each."""
        return self._calls_out.read_text() if self._calls_out.exists() else ""
