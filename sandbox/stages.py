"""A chain of commands as a user would run them: announced, timed, printed, stopped by a failure."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import NamedTuple

from schemas.config import EXIT_OK


class StageFailedError(Exception):
    """A command ended with another status than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Spent(NamedTuple):
    """What a command took: seconds on the clock, and seconds of all processors together.

    On a machine with other work the second number is the one to compare.
    """

    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s, {self.cpu_seconds:.0f} s of CPU"


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


def run(module: str, *options: str | Path | float) -> Spent:
    """Run a command and print it; what it took. Raises StageFailedError."""
    command = ["python", "-m", module, *map(str, options)]
    print(f"$ {shlex.join(command)}", flush=True)
    started, cpu_before = time.monotonic(), _cpu_seconds_of_children()
    with subprocess.Popen([sys.executable, *command[1:]]) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # the command has been interrupted too, and is storing what it has
            raise
    if status != EXIT_OK:
        print(f"{module} ended with status {status}", file=sys.stderr)
        raise StageFailedError(status)
    return Spent(time.monotonic() - started, _cpu_seconds_of_children() - cpu_before)


def run_once(done: Path, module: str, *options: str | Path | float) -> Spent:
    """As `run`, but a command that came to its end before is only named.

    `done` is a small file that remembers the command and what it took; another command line than
    the one it remembers runs anew.
    """
    command = [module, *map(str, options)]
    try:
        before = json.loads(done.read_text("utf-8"))
    except (OSError, ValueError):
        before = {}
    if before.get("command") == command:
        spent = Spent(before["seconds"], before["cpu_seconds"])
        print(f"done before, in {spent}: python -m {shlex.join(command)}", flush=True)
        return spent
    spent = run(module, *options)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps({"command": command, **spent._asdict()}), "utf-8")
    return spent


def _cpu_seconds_of_children() -> float:
    """Of the commands that have ended, all their processes included."""
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
