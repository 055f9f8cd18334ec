"""The hash of a file's content, remembered by path, size and time of change."""

import hashlib
import json
import os
import time
from pathlib import Path
from uuid import uuid4

from media.frames import MediaError
from media.paths import FileState, SafeFile, opened
from schemas.ids import digest
from schemas.samples import Reason

_DIGEST_BYTES = 16
# A file changed again within the clock's step keeps its time: a hash is remembered only when the
# file has been at rest for this long.
_REST_SECONDS = 2.0


class FileHashes:
    """Hashes files, and remembers that beyond the run in small files under `folder` (if any)."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder / "hashes" if folder else None

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
            with os.fdopen(os.dup(descriptor), "rb") as stream:
                content = hashlib.file_digest(
                    stream, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)
                ).hexdigest()
            if FileState.of(os.fstat(descriptor)) != state:
                raise MediaError(Reason.UNDECODABLE, "it was changed while it was read: run again")
        if note is not None and time.time() - state.mtime_ns / 1e9 > _REST_SECONDS:
            _write_note(note, file, content)
        return content

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
