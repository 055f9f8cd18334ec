"""A chain of commands as a user would run them: titled, timed, printed, stopped by a failure."""

import json
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import NamedTuple

from cli.config import EXIT_OK


class StageFailedError(Exception):
    """A command ended with another status than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Spent(NamedTuple):
    """Wall-clock seconds of a command, and CPU seconds of all its processes.

    Compare CPU seconds on a machine with other load.
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
    def stage(self, title: str, meaning: str = "") -> Iterator[None]:
        """Print the next stage's title, what it means, and its duration when it ends."""
        self._number += 1
        place = f"[{self._number}/{self._total}]"
        print(f"\n{place} {title}", flush=True)
        if meaning:
            print(textwrap.fill(meaning, 100), flush=True)
        started = time.monotonic()
        yield
        print(f"{place} done in {time.monotonic() - started:.1f} s", flush=True)


def run(module: str, *options: str | Path | float, log: Path | None = None) -> Spent:
    """Print and run a command. Returns its time; raises StageFailedError.

    What it prints is appended to the file `log`, where one is given, in place of the terminal;
    errors and notices stay on the terminal.
    """
    command = ["python", "-m", module, *map(str, options)]
    print(f"$ {shlex.join(command)}", flush=True)
    started, cpu_before = time.monotonic(), _cpu_seconds_of_children()
    # The command unblocks it once it can answer (`cli`): an interpreter that Ctrl-C reaches while
    # it starts prints a traceback.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with (
        nullcontext() if log is None else log.open("ab") as output,
        subprocess.Popen([sys.executable, *command[1:]], stdout=output) as process,
    ):
        if signal.SIGINT in signal.sigpending():  # perhaps from before the process was there
            process.send_signal(signal.SIGINT)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it was interrupted too, and saves its state
            raise
    if status != EXIT_OK:
        print(f"{module} ended with status {status}", file=sys.stderr)
        raise StageFailedError(status)
    return Spent(time.monotonic() - started, _cpu_seconds_of_children() - cpu_before)


def run_once(
    done: Path, module: str, *options: str | Path | float, log: Path | None = None
) -> Spent:
    """As `run`, but a command that finished before is skipped and printed.

    `done` is a small file that records the command line and its time; a different command line runs
    again.
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
    spent = run(module, *options, log=log)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps({"command": command, **spent._asdict()}), "utf-8")
    return spent


def _cpu_seconds_of_children() -> float:
    """CPU time of finished commands, including their child processes."""
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
