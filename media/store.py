"""`FrameStore`: from a media reference to its encoded frames, each file decoded once.

The way of a reference: path safety, memory, the hash of the file, the cache on disk, a decoder
process. What is known of a path is kept while the file's state (inode, size, time of change) stays
the same, which one `stat` per load tells. A failure is kept for the whole run: a file has one
outcome in it.
"""

import asyncio
import importlib.util
import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

from media.cache import DEFAULT_MAX_BYTES, FrameCache
from media.decoding import DecodeJob, ReaderName
from media.frames import EncodedFrames, Kind, MediaError
from media.hashes import FileHashes
from media.isolation import DecoderPool
from media.paths import FileState, SafeFile, find_file
from media.sampling import FrameSpec
from schemas.questions import MediaRef
from schemas.samples import Reason

ReaderChoice = Literal["decord", "pyav", "decord-then-pyav"]

_READERS: dict[ReaderChoice, tuple[ReaderName, ...]] = {
    "decord": ("decord",),
    "pyav": ("pyav",),
    "decord-then-pyav": ("decord", "pyav"),
}
# With "decord-then-pyav": what decord could not do and PyAV might.
_WORTH_ANOTHER_READER = frozenset({Reason.UNDECODABLE, Reason.DECODE_TIMEOUT, Reason.DECODER_DIED})

_MEMORY_BYTES = 256 * 1024 * 1024
# Hashing and the cache on disk wait for the disk, not for a processor.
_DISK_THREADS = 4


@dataclass
class _Known:
    """What is known of a reference while its file stays as it is."""

    path: str
    file: SafeFile
    media_id: str | None = None


class FrameStore:
    """Frames of the files under `media_root`, for one event loop at a time. Close it at the end.

    `cache_dir` None keeps nothing on disk. `reader` is who decodes videos; stills are Pillow's.
    `timeout_seconds` is the limit for decoding one file by one reader, and for reading it once to
    name it by its content.
    """

    def __init__(
        self,
        media_root: Path,
        *,
        spec: FrameSpec,
        cache_dir: Path | None,
        reader: ReaderChoice = "decord",
        timeout_seconds: float = 60,
        workers: int = 2,
        follow_symlinks: bool = False,
        cache_max_bytes: int = DEFAULT_MAX_BYTES,
        memory_max_bytes: int = _MEMORY_BYTES,
    ) -> None:
        if not media_root.is_dir():
            raise ValueError(f"the media root {str(media_root)!r} is not a directory")
        if reader not in get_args(ReaderChoice):
            raise ValueError(f"{reader!r} is no reader: write {', '.join(get_args(ReaderChoice))}")
        if timeout_seconds <= 0 or workers < 1:
            raise ValueError(
                "timeout_seconds must be above 0 and workers at least 1, got "
                f"{timeout_seconds} and {workers}"
            )
        if "decord" in _READERS[reader] and importlib.util.find_spec("decord") is None:
            raise ValueError(
                "decord is not installed (it has no wheel for some machines): use the reader 'pyav'"
            )
        self._root = Path(os.path.realpath(media_root))
        self._follow_symlinks = follow_symlinks
        self._confined_to = None if follow_symlinks else self._root
        self._spec = spec
        self._readers = _READERS[reader]
        self._cache = FrameCache(cache_dir, cache_max_bytes) if cache_dir else None
        self._hashes = FileHashes(cache_dir, timeout_seconds)
        self._decoders = DecoderPool(workers, timeout_seconds, self._readers)
        self._disk = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="frames")
        self._known: dict[MediaRef, _Known] = {}
        self._failures: dict[MediaRef, MediaError] = {}
        self._loading: dict[MediaRef, asyncio.Task[EncodedFrames | MediaError]] = {}
        self._memory = _Memory(memory_max_bytes)

    @property
    def spec(self) -> FrameSpec:
        """What is taken of each file."""
        return self._spec

    def check(self, ref: MediaRef) -> None:
        """Whether the path is safe and names a regular file that is not empty; decodes nothing.

        Raises MediaError. A path that was checked before costs one `stat`.
        """
        self._check(ref)

    async def load(self, ref: MediaRef) -> EncodedFrames:
        """The frames of a file. Raises MediaError, the same one for each load of this path."""
        known = self._check(ref)
        frames = self._memory.get(known.media_id, self._spec.within(ref.span))
        if frames is not None:
            return frames
        task = self._loading.get(ref)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = asyncio.create_task(self._load(ref, known))
            self._loading[ref] = task
            task.add_done_callback(lambda done: self._forget_task(ref, done))
        outcome = await asyncio.shield(task)  # a caller that gives up leaves it to the others
        if isinstance(outcome, MediaError):
            raise MediaError(outcome.reason, outcome.detail)
        return outcome

    def close(self) -> None:
        """Stop the decoder processes and threads. What is on disk stays."""
        self._hashes.stop()
        self._decoders.close()
        self._disk.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, ref: MediaRef) -> _Known:
        failure = self._failures.get(ref)
        if failure is not None:
            raise MediaError(failure.reason, failure.detail)
        known = self._known.get(ref)
        if known is not None and _state(known.path) == known.file.state:
            return known
        try:
            file = find_file(self._root, ref.path, follow_symlinks=self._follow_symlinks)
        except MediaError as error:
            self._failures[ref] = error.with_traceback(None)
            raise
        known = _Known(os.path.join(self._root, ref.path), file)
        self._known[ref] = known
        return known

    async def _load(self, ref: MediaRef, known: _Known) -> EncodedFrames | MediaError:
        spec = self._spec.within(ref.span)
        loop = asyncio.get_running_loop()
        try:
            media_id, frames = await loop.run_in_executor(
                self._disk, self._from_disk, ref.kind, known.file, spec
            )
            if frames is None:
                frames = await self._decode(ref.kind, known.file, media_id, spec)
                if self._cache is not None:
                    await loop.run_in_executor(self._disk, self._cache.write, frames)
        except MediaError as error:
            failure = MediaError(error.reason, f"{ref.path!r}: {error.detail}")
            self._failures[ref] = failure
            return failure
        self._memory.put(frames)
        known.media_id = media_id
        return frames

    def _from_disk(
        self, kind: Kind, file: SafeFile, spec: FrameSpec
    ) -> tuple[str, EncodedFrames | None]:
        media_id = f"{kind}-{self._hashes.hash(file, self._confined_to)}"
        frames = self._memory.get(media_id, spec)
        if frames is None and self._cache is not None:
            for reader in self._readers_of(kind):
                frames = frames or self._cache.read(media_id, spec, reader)
        return media_id, frames

    async def _decode(
        self, kind: Kind, file: SafeFile, media_id: str, spec: FrameSpec
    ) -> EncodedFrames:
        *others, last = self._readers_of(kind)
        for reader in others:
            try:
                return await self._decode_with(reader, kind, file, media_id, spec)
            except MediaError as error:
                if error.reason not in _WORTH_ANOTHER_READER:
                    raise
        return await self._decode_with(last, kind, file, media_id, spec)

    async def _decode_with(
        self, reader: ReaderName, kind: Kind, file: SafeFile, media_id: str, spec: FrameSpec
    ) -> EncodedFrames:
        job = DecodeJob(
            real_path=file.real_path,
            root=self._confined_to,
            state=file.state,
            media_id=media_id,
            kind=kind,
            spec=spec,
            reader=reader,
        )
        return await asyncio.wrap_future(self._decoders.submit(job))

    def _readers_of(self, kind: Kind) -> tuple[ReaderName, ...]:
        return self._readers if kind == "video" else ("pillow",)

    def _forget_task(self, ref: MediaRef, task: "asyncio.Task[EncodedFrames | MediaError]") -> None:
        if self._loading.get(ref) is task:
            del self._loading[ref]


class _Memory:
    """The frames last used, up to a number of bytes. Safe for the loop and the disk threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._frames: OrderedDict[tuple[str, FrameSpec], EncodedFrames] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, media_id: str | None, spec: FrameSpec) -> EncodedFrames | None:
        if media_id is None:
            return None
        with self._lock:
            frames = self._frames.get((media_id, spec))
            if frames is not None:
                self._frames.move_to_end((media_id, spec))
            return frames

    def put(self, frames: EncodedFrames) -> None:
        with self._lock:
            key = (frames.media_id, frames.spec)
            replaced = self._frames.pop(key, None)
            self._bytes += frames.num_bytes - (replaced.num_bytes if replaced else 0)
            self._frames[key] = frames
            while self._bytes > self._max_bytes:
                self._bytes -= self._frames.popitem(last=False)[1].num_bytes


def _state(path: str) -> FileState | None:
    try:
        return FileState.of(os.stat(path))
    except OSError:
        return None
