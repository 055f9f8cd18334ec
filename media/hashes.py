"""The hash of a file's content, remembered by path, size and time of change.

Reading a file takes as long as it is large, and a sparse file of no bytes on disk may claim
terabytes: so hashing has a time limit and can be stopped.
"""

import hashlib
import json
import os
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from uuid import uuid4

from media.frames import MediaError
from media.paths import FileState, SafeFile, opened
from schemas.samples import Reason
from schemas.serialization import digest

_DIGEST_BYTES = 16
# A file changed again within the clock's step keeps its time: a hash is remembered only when the
# file has been at rest for this long.
_REST_SECONDS = 2.0
# The clock is looked at, and a stop obeyed, once for this many bytes.
_PIECE_BYTES = 4 * 1024 * 1024


class FileHashes:
    """Hashes files, and remembers that beyond the run in small files under `folder` (if any).

    A file that is not read within `timeout_seconds` raises MediaError.
    """

    def __init__(self, folder: Path | None, timeout_seconds: float = float("inf")) -> None:
        self._folder = folder / "hashes" if folder else None
        self._timeout_seconds = timeout_seconds
        self._is_stopped = threading.Event()

    def stop(self) -> None:
        """Give up what other threads are hashing, with CancelledError."""
        self._is_stopped.set()

    def hash(self, file: SafeFile, root: Path | None) -> str:
        """BLAKE2b (128 bits, hex) of the file's bytes. Reads them unless its state is known."""
        note = self._note(file.real_path)
        if note is not None:
            known = _read_note(note, file)
            if known is not None:
                return known
        with opened(file.real_path, root) as (descriptor, state):
            if state != file.state:
                raise MediaError(Reason.UNDECODABLE, "it was changed while it was read: run again")
            content = self._content_hash(descriptor, state.size)
            if FileState.of(os.fstat(descriptor)) != state:
                raise MediaError(Reason.UNDECODABLE, "it was changed while it was read: run again")
        if note is not None and time.time() - state.mtime_ns / 1e9 > _REST_SECONDS:
            _write_note(note, file, content)
        return content

    def _content_hash(self, descriptor: int, size: int) -> str:
        content = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        end = time.monotonic() + self._timeout_seconds
        done = 0
        piece = memoryview(bytearray(min(size, _PIECE_BYTES)))
        with os.fdopen(os.dup(descriptor), "rb", buffering=0) as stream:
            while count := stream.readinto(piece):
                content.update(piece[:count])
                done += count
                if self._is_stopped.is_set():
                    raise CancelledError("hashing was stopped")
                if done < size and time.monotonic() > end:
                    raise MediaError(
                        Reason.DECODE_TIMEOUT,
                        f"only {done:,} of its {size:,} bytes were read within "
                        f"{self._timeout_seconds:g} s (--decode-timeout-seconds)",
                    )
        return content.hexdigest()

    def _note(self, real_path: str) -> Path | None:
        if self._folder is None:
            return None
        name = digest(os.fsencode(real_path))
        return self._folder / name[:2] / name


def _read_note(note: Path, file: SafeFile) -> str | None:
    try:
        path, size, mtime_ns, content = json.loads(note.read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    known = (path, size, mtime_ns) == (file.real_path, file.state.size, file.state.mtime_ns)
    return content if known and isinstance(content, str) else None


def _write_note(note: Path, file: SafeFile, content: str) -> None:
    aside = note.with_name(f".{uuid4().hex}.tmp")
    line = json.dumps([file.real_path, file.state.size, file.state.mtime_ns, content])
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(line, encoding="ascii")
        os.replace(aside, note)
    except OSError:
        # Only the next run's time is lost; the frame cache beside it reports a disk that is full.
        return
