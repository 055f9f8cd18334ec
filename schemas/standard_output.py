"""What a command prints to, when its reader has gone away (`... | head`)."""

import io
import os
import select
import sys


def has_reader() -> bool:
    """Whether somebody still reads stdout; where not, the interpreter's last flush is silenced."""
    try:
        number = sys.stdout.fileno()
    except io.UnsupportedOperation:  # a text buffer in its place
        return True
    poll = select.poll()
    poll.register(number, 0)  # errors and a hung-up reader are told without asking
    if not poll.poll(0):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return False
