"""Runs a function in a forked child with limits on time and memory, and reports how it ended."""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.harness import BrokenPromise, Recorded, limit_memory, signature, words_of

_PIECE = 65536


class ChildError(Exception):
    """The child raised something; its message is the child's last lines."""


@dataclass(frozen=True)
class Ended:
    """What the function returned, and all that the child printed."""

    result: str
    printed: str


def in_child(
    function: Callable[[], str], folder: Path, *, seconds: float, gigabytes: float
) -> Ended:
    """`function()` in a child. Raises ChildError for what it raised, BrokenPromise where the child
    dies or does not end."""
    reading, writing = os.pipe()
    log = folder / "printed.txt"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be_the_child(function, log, writing, gigabytes)
    os.close(writing)
    said, is_late = _read_all(reading, time.monotonic() + seconds)
    if is_late:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    printed = log.read_text("utf-8", "replace") if log.exists() else ""
    if is_late:
        raise BrokenPromise(f"it did not end within {seconds:g} s: {printed[-300:]}")
    if not said:
        code = os.waitstatus_to_exitcode(status)
        raise BrokenPromise(f"its process ended with status {code}: {printed[-600:]}")
    kind, text = json.loads(said)
    if kind == "broken":
        raise BrokenPromise(text)
    if kind == "error":
        raise ChildError(text)
    return Ended(text, printed)


def _be_the_child(function: Callable[[], str], log: Path, writing: int, gigabytes: float) -> None:
    try:
        printing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printing, 1)
        os.dup2(printing, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        limit_memory(gigabytes)
        answer = ["", ""]
        with Recorded() as recorded:
            answer = ["result", function()]
        error = recorded.error
        if isinstance(error, BrokenPromise):
            answer = ["broken", str(error)]
        elif error is not None:
            answer = ["error", f"{signature(error)}\n{words_of(error)}"]
        sys.stdout.flush()
        sys.stderr.flush()
        with os.fdopen(writing, "w") as pipe:
            json.dump(answer, pipe)
    finally:
        os._exit(0)  # the parent's exit handlers and buffers are not the child's


def _read_all(reading: int, deadline: float) -> tuple[str, bool]:
    """All that comes until the pipe closes, and whether that took too long."""
    pieces: list[bytes] = []
    try:
        while True:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([reading], [], [], max(0.0, left))
            if not ready:
                return "", True
            piece = os.read(reading, _PIECE)
            if not piece:
                return b"".join(pieces).decode(), False
            pieces.append(piece)
    finally:
        os.close(reading)
