"""How a command ends: exit statuses, and one sentence on stderr for what the user can mend."""

import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import IO, NoReturn

from cli import interrupts_are_handled, streams_are_open
from schemas.ledger.file import LedgerWriteError
from schemas.runs import DISTRIBUTION
from schemas.serialization import redact, visible

EXIT_OK = 0  # every row has its outcome
EXIT_ROWS_FAILED = 1  # done, but some rows ended in media or call errors
EXIT_USAGE = 2  # wrong usage or input
EXIT_STOPPED = 3  # stopped early, resumable

EXTRA_OF_PACKAGE = {
    "anthropic": "claude",
    "openai": "openai",
    "accelerate": "local",
    "safetensors": "local",
    "tokenizers": "local",
    "torch": "local",
    "torchvision": "local",
    "transformers": "local",
    "trl": "train",
    "peft": "train",
    "tensorboard": "train",
    "scipy": "audit",
    "gradio": "ui",
}
"""Packages that an extra of the installation brings, each with its extra."""
_EXTRAS_IN_TRAIN = {"local", "train", "audit"}
_TRAINING_COMMANDS = (
    "train.",
    "sandbox.crucial_frames",
    "sandbox.demo",
    "sandbox.learning",
    "sandbox.observations",
    "sandbox.warm_up",
)
"""Commands that need all of the extra `train`, whichever package of it is missed first."""
_ONCE_MORE = "the same command again resumes"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}
_OTHER_KIND = {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EIO, errno.ENOTEMPTY}


def say(text: str, file: IO[str] | None = None) -> None:
    """Print lines that may hold text of others, at once; on stderr by default.

    What would act on a terminal (control characters, marks of direction) is shown as escapes.
    """
    print(visible(text), file=sys.stderr if file is None else file, flush=True)


class CommandStopped(Exception):
    """A command was stopped, and the same command again does not resume. The message says what
    is left."""


class UsageError(Exception):
    """Wrong usage or input. The message is one sentence: what was given, expected, and to do."""


def run_command(
    prog: str,
    main: Callable[[], int],
    *,
    usage_errors: tuple[type[Exception], ...] = (),
) -> NoReturn:
    """Run a command's `main` and exit with its status.

    `UsageError` and the exceptions in `usage_errors` (those that the user can mend) end in one
    sentence and status 2; `Ctrl-C`, a full disk, a file that may not be written and a closed pipe
    of the output (`... | head`) in status 3.
    """
    streams_are_open()
    interrupts_are_handled()
    mendable: tuple[type[Exception], ...] = (UsageError, *usage_errors)
    try:
        status = main()
        sys.stdout.flush()
    except mendable as error:
        exit_with_usage_error(prog, error)
    except LedgerWriteError as error:
        _last_words(f"{prog}: stopped: {redact(str(error))}")
        status = EXIT_STOPPED
    except ModuleNotFoundError as error:
        sentence = missing_extra(error, prog)
        if sentence is None:
            raise
        exit_with_usage_error(prog, UsageError(f"this command {sentence}"))
    except BrokenPipeError:
        if has_reader():
            raise  # another pipe than the one that the user reads
        status = EXIT_STOPPED
    except OSError as error:
        sentence = _disk_sentence(error)
        if sentence is None:
            raise
        _last_words(f"{prog}: stopped: {sentence}")
        status = EXIT_STOPPED
    except CommandStopped as stop:
        _last_words(f"{prog}: stopped; {stop}")
        status = EXIT_STOPPED
    except KeyboardInterrupt:
        _last_words(f"{prog}: stopped; {_ONCE_MORE}")
        status = EXIT_STOPPED
    sys.exit(status)


def exit_with_usage_error(prog: str, error: Exception) -> NoReturn:
    """One line on stderr, and exit status 2."""
    _last_words(f"{prog}: error: {redact(' '.join(str(error).split()))}")
    sys.exit(EXIT_USAGE)


def _last_words(text: str) -> None:
    """`say`, also where nothing can be written any more: the status says the same."""
    with suppress(OSError):
        say(text)


def missing_extra(error: ModuleNotFoundError, prog: str = "") -> str | None:
    """What to install for the command `prog`, in one sentence; None where no extra of ours brings
    the module."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRA_OF_PACKAGE.get(package)
    if extra is None:
        return None
    if extra in _EXTRAS_IN_TRAIN and prog.startswith(_TRAINING_COMMANDS):
        extra = "train"
    install = f'pip install "{DISTRIBUTION}[{extra}]"'
    return f"needs the package {package}, which is not installed: {install}"


def require_packages(*names: str) -> None:
    """Raise ModuleNotFoundError for the first that is not installed; none of them is imported."""
    for name in names:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def nothing_to_resume(what_is_left: str) -> Iterator[None]:
    """Ctrl-C inside ends the command with this sentence instead of "the same command resumes"."""
    try:
        yield
    except KeyboardInterrupt:
        raise CommandStopped(what_is_left) from None


def _disk_sentence(error: OSError) -> str | None:
    """What is wrong with the disk or the file, and what to do; None for other errors."""
    path = error.filename2 or error.filename
    if error.errno in _NO_ROOM:
        place = path or "the output"
        return f"no space is left on the disk of {place}; make room, and {_ONCE_MORE}"
    if path is None:
        return None
    if error.errno in _NO_RIGHT:
        return (
            f"{path} cannot be read or written ({error.strerror}); give this user the right to, and"
            f" {_ONCE_MORE}"
        )
    if error.errno in _OTHER_KIND:
        return f"{path} cannot be used ({error.strerror}); mend that, and {_ONCE_MORE}"
    return None


def has_reader() -> bool:
    """Whether stdout is still read; if not, the interpreter's last flush is silenced."""
    try:
        number = sys.stdout.fileno()
    except io.UnsupportedOperation:  # a text buffer in its place
        return True
    poll = select.poll()
    poll.register(number, 0)  # poll reports errors and hang-ups without being asked for them
    if not poll.poll(0):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return False
