"""The frame cache on disk: each media file is decoded once, for all programs and runs.

One file per clip, named by what is in it: `frames/<frame spec>/<reader>/<xx>/<media id>`. It holds
a header and the JPEGs as they are sent. It is written aside and renamed, so that a reader sees all
of it or nothing; a digest guards its content, and an entry that does not match it is a miss and is
written anew. So any number of processes share a cache without locks; one lock keeps them from
evicting at the same time.
"""

import json
import logging
import os
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from media.frames import EncodedFrames
from media.sampling import FrameSpec
from schemas.serialization import canonical_json, digest

DEFAULT_MAX_BYTES = 64 * 1024**3

_MAGIC = b"P2R frames 1\n"
_DIGEST_CHARACTERS = 32
# After an eviction the cache is this full, so that evictions are rare ...
_FULL_SHARE = 0.9
# ... and a process looks at the whole cache again when it alone has written this share of the
# limit: up to five processes keep it together.
_SCAN_SHARE = 0.02
_STALE_SECONDS = 3600.0

logger = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """The frame cache that builds and trainers of one user share: `~/.cache/p2r/frames`."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache_home / "p2r" / "frames"


class FrameCache:
    """Encoded frames on disk, at most `max_bytes` of them; the least recently used leave first."""

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._folder = folder / "frames"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._max_bytes = max_bytes
        self._lock = FileLock(folder / "eviction.lock")
        self._written_since_scan: int | None = None
        self._can_write = True

    def read(self, media_id: str, spec: FrameSpec, reader: str) -> EncodedFrames | None:
        """The entry, or None where there is none that is whole. Reading makes it recently used."""
        path = self._path(media_id, spec, reader)
        try:
            data = path.read_bytes()
            frames = _unpack(data, spec)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("cache entry %s is damaged and will be written anew: %s", path, error)
            return None
        is_asked_for = (frames.media_id, frames.reader) == (media_id, reader)
        return frames if is_asked_for else None

    def write(self, frames: EncodedFrames) -> None:
        """Store an entry. A full disk is logged once; the run goes on without the cache."""
        if not self._can_write:
            return
        path = self._path(frames.media_id, frames.spec, frames.reader)
        aside = path.with_name(f".{uuid4().hex}.tmp")
        data = _pack(frames)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(data)
            os.replace(aside, path)
        except OSError as error:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            self._can_write = False
            logger.warning("no more frames are cached: %s cannot be written: %s", path, error)
            return
        self._keep_the_limit(len(data))

    def _path(self, media_id: str, spec: FrameSpec, reader: str) -> Path:
        return self._folder / spec.frame_spec_id / reader / media_id[-2:] / media_id

    def _keep_the_limit(self, written: int) -> None:
        if self._written_since_scan is not None:
            self._written_since_scan += written
            if self._written_since_scan < _SCAN_SHARE * self._max_bytes:
                return
        with suppress(Timeout), self._lock.acquire(blocking=False):
            self._written_since_scan = 0
            self._evict()

    def _evict(self) -> None:
        entries: list[tuple[float, int, str]] = []
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = os.path.join(folder, name)
                with suppress(FileNotFoundError):
                    status = os.stat(path)
                    is_stale = time.time() - status.st_mtime > _STALE_SECONDS
                    if not name.endswith(".tmp"):
                        entries.append((status.st_mtime_ns, status.st_size, path))
                    elif is_stale:  # left behind by a process that was killed
                        os.unlink(path)
        total = sum(size for _, size, _ in entries)
        if total <= self._max_bytes:
            return
        for _, size, path in sorted(entries):
            with suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
            if total <= _FULL_SHARE * self._max_bytes:
                return


def _pack(frames: EncodedFrames) -> bytes:
    header = {
        field.name: getattr(frames, field.name)
        for field in fields(frames)
        if field.name not in ("jpegs", "spec")
    }
    header["sizes"] = [len(jpeg) for jpeg in frames.jpegs]
    content = canonical_json(header).encode() + b"\n" + b"".join(frames.jpegs)
    return _MAGIC + digest(content).encode() + content


def _unpack(data: bytes, spec: FrameSpec) -> EncodedFrames:
    start = len(_MAGIC) + _DIGEST_CHARACTERS
    content = data[start:]
    if data[:start] != _MAGIC + digest(content).encode():
        raise ValueError("its digest does not match")
    line, _, body = content.partition(b"\n")
    header = json.loads(line)
    jpegs = []
    position = 0
    for size in header.pop("sizes"):
        jpegs.append(body[position : position + size])
        position += size
    header["indices"] = tuple(header["indices"])
    header["times"] = tuple(header["times"])
    return EncodedFrames(spec=spec, jpegs=tuple(jpegs), **header)
