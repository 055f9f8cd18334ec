"""A chain of commands as a user would run them: announced, timed, printed, stopped by a failure."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.config import EXIT_OK


class StageFailedError(Exception):
    """A command ended with another status than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Stages:
    """Numbers the stages of a chain of `total`."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._number = 0

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Announce the next stage, and say how long it took."""
        self._number += 1
        place = f"[{self._number}/{self._total}]"
        print(f"\n{place} {title}", flush=True)
        started = time.monotonic()
        yield
        print(f"{place} done in {time.monotonic() - started:.1f} s", flush=True)


def run(module: str, *options: str | Path | float) -> float:
    """Run a command, print it, and return its seconds. Raises StageFailedError."""
    command = ["python", "-m", module, *map(str, options)]
    print(f"$ {shlex.join(command)}", flush=True)
    started = time.monotonic()
    with subprocess.Popen([sys.executable, *command[1:]]) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # the command has been interrupted too, and is storing what it has
            raise
    if status != EXIT_OK:
        print(f"{module} ended with status {status}", file=sys.stderr)
        raise StageFailedError(status)
    return time.monotonic() - started


def run_once(done: Path, module: str, *options: str | Path | float) -> float:
    """As `run`, but a command that came to its end before is only named.

    `done` is a small file that remembers the command and its seconds; another command line than
    the one it remembers runs anew.
    """
    command = [module, *map(str, options)]
    try:
        before = json.loads(done.read_text("utf-8"))
    except (OSError, ValueError):
        before = {}
    if before.get("command") == command:
        seconds = float(before["seconds"])
        print(f"done before, in {seconds:.0f} s: python -m {shlex.join(command)}", flush=True)
        return seconds
    seconds = run(module, *options)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps({"command": command, "seconds": round(seconds, 1)}), "utf-8")
    return seconds
