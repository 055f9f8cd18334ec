"""Path safety: which file under the media root a path names, and opening exactly that file.

Nothing is opened before its path and its type are known to be safe. Opening never follows a last
symlink and never blocks, and afterwards the open file itself is examined again: what was a regular
file when it was checked may be a FIFO or a link now.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from media.frames import MediaError
from schemas.samples import Reason

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
_TYPES = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class FileState(NamedTuple):
    """What changes when a file is replaced or written to."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileState":
        """The state that `os.stat` reports."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class SafeFile:
    """A regular, non-empty file that may be read: its path without symlinks, and its state."""

    real_path: str
    state: FileState


def find_file(root: Path, path: str, *, follow_symlinks: bool) -> SafeFile:
    """The file that `path` (POSIX, relative) names under `root`, which has no symlinks itself.

    Raises MediaError: UNSAFE_PATH, SYMLINK_OUTSIDE_ROOT, MISSING_FILE, NOT_A_FILE or EMPTY_FILE.
    """
    if path.startswith("/"):
        raise MediaError(
            Reason.UNSAFE_PATH,
            f"{path!r} is absolute: paths are relative to the media root (--strip-prefix removes a "
            "foreign prefix)",
        )
    if ".." in PurePosixPath(path).parts:
        raise MediaError(Reason.UNSAFE_PATH, f"{path!r} climbs with '..'")
    try:
        # Strict only in what a file name may be: NUL bytes, lone surrogates.
        os.fsencode(path)
        real_path = os.path.realpath(root / path)
        if not follow_symlinks and not is_inside(root, real_path):
            raise MediaError(
                Reason.SYMLINK_OUTSIDE_ROOT,
                f"{path!r} is a symlink that leaves the media root; --follow-symlinks allows it",
            )
        status = os.stat(real_path)
    except ValueError as error:
        raise MediaError(Reason.UNSAFE_PATH, f"{path!r} is no file name: {error}") from error
    except OSError as error:
        raise _not_there(path, error) from error
    _check_type(repr(path), status)
    return SafeFile(real_path, FileState.of(status))


def is_inside(root: Path, real_path: str) -> bool:
    """Whether a path without symlinks is `root` or below it."""
    return Path(real_path).is_relative_to(root)


@contextmanager
def opened(real_path: str, root: Path | None) -> Iterator[tuple[int, FileState]]:
    """Open a file that `find_file` found, and look again: yields descriptor and state.

    With a `root` (symlinks are not followed), what came open must still lie under it.
    """
    try:
        descriptor = os.open(real_path, _OPEN_FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise MediaError(
                Reason.SYMLINK_OUTSIDE_ROOT, "it became a symlink while it was read"
            ) from error
        raise MediaError(
            Reason.MISSING_FILE, f"it was there and cannot be opened: {error.strerror}"
        ) from error
    try:
        status = os.fstat(descriptor)
        _check_type("it", status)
        own_path = f"/proc/self/fd/{descriptor}"
        is_known = os.path.islink(own_path)  # Linux
        if root is not None and is_known and not is_inside(root, os.readlink(own_path)):
            raise MediaError(
                Reason.SYMLINK_OUTSIDE_ROOT, "it left the media root while it was read"
            )
        yield descriptor, FileState.of(status)
    finally:
        os.close(descriptor)


def _check_type(name: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((words for is_kind, words in _TYPES if is_kind(status.st_mode)), "no file")
        raise MediaError(Reason.NOT_A_FILE, f"{name} is {kind}, not a file")
    if status.st_size == 0:
        raise MediaError(Reason.EMPTY_FILE, f"{name} is empty (0 bytes)")


def _not_there(path: str, error: OSError) -> MediaError:
    if error.errno == errno.ENAMETOOLONG:
        return MediaError(Reason.UNSAFE_PATH, f"{path[:80]!r}... is too long for a file name")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return MediaError(Reason.MISSING_FILE, f"there is no {path!r} under the media root")
    return MediaError(Reason.MISSING_FILE, f"{path!r} cannot be opened: {error.strerror}")
