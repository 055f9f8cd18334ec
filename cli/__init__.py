"""What a person types and sees: configuration, options, standard output and HTML pages."""

import os
import signal
import sys
from typing import Any

_STDERR = 2
_EXIT_STOPPED = 3  # as `cli.exit_status` has it, which imports too much for here


def end_quietly_while_importing() -> None:
    """Until `interrupts_are_handled`, Ctrl-C ends a command that is still importing in one line.

    Does nothing in a process that imports a room as a library: Python writes `-m` there only while
    it looks for the module of `python -m`.
    """
    is_command = sys.argv[:1] == ["-m"]
    if is_command:
        streams_are_open()
    if is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)
        # Who started this may have blocked it until now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def streams_are_open() -> None:
    """What the caller has closed (`>&-`, some schedulers) takes what is written, and drops it.

    Otherwise the next file that is opened gets the stream's number, and what a library prints,
    also one not in Python, would be written into a ledger.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def interrupts_are_handled() -> None:
    """Ctrl-C is a KeyboardInterrupt again, if `end_quietly_while_importing` changed that."""
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once(number: int, frame: Any) -> None:
    os.write(2, b"stopped before anything was begun\n")
    os._exit(_EXIT_STOPPED)
