"""What a person types and sees: configuration, options, standard output and HTML pages.

A command's room imports this before anything else, so that Ctrl-C meets an answer from then on: the
imports here are of modules that every interpreter has loaded by itself.
"""

import _signal  # type: ignore[import-not-found]  # `signal` itself imports half a dozen modules
import os
import sys

_STDERR = 2
_EXIT_STOPPED = 3  # as `cli.exit_status` has it, which imports too much for here


def end_quietly_while_importing(*, is_command: bool = False) -> None:
    """Until `interrupts_are_handled`, Ctrl-C ends a command that is still importing in one line.

    Does nothing in a process that imports a room as a library: Python writes `-m` there only while
    it looks for the module of `python -m`. The console script says that it is a command.
    """
    is_command = is_command or sys.argv[:1] == ["-m"]
    is_untouched = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    if is_command and is_untouched:
        _signal.signal(_signal.SIGINT, _end_at_once)
        # Who started this may have blocked it until now.
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGINT})
    if is_command:
        streams_are_open()


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
    if _signal.getsignal(_signal.SIGINT) is _end_at_once:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _end_at_once(number: int, frame: object) -> None:
    os.write(2, b"stopped before anything was begun\n")
    os._exit(_EXIT_STOPPED)
