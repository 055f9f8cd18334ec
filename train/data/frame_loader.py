"""Frames as pixels for training and evaluation: `media.store.FrameStore` behind blocking calls.

A `FrameLoader` owns a thread with the store's event loop, so any number of threads may call it.
Files come out of the frame cache that builds filled, or are decoded once.
"""

import asyncio
import io
import threading
from collections import OrderedDict
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from PIL import Image

from cli.config import UsageError
from cli.option_groups import FrameOptions
from media.cache import DEFAULT_MAX_BYTES, default_cache_dir
from media.frames import EncodedFrames, Kind
from media.sampling import FrameSpec
from media.store import FrameStore, ReaderChoice
from schemas.questions import MediaRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MEMORY_BYTES = 256 * 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True)
class DecodedMedia:
    """The frames of one file in order of time.

    `pixels` uint8 [N, H, W, 3], RGB, shared: do not write to it; `indices` count the file's frames
    in the order of display; `times_seconds` are on the file's own clock, strictly increasing: a
    clip that starts at 8.3 s has its first frame at 8.3. A still is one frame at time 0 with
    duration 0.
    """

    kind: Kind
    pixels: "NDArray[np.uint8]"
    times_seconds: tuple[float, ...]
    indices: tuple[int, ...]
    duration_seconds: float
    media_id: str
    spec: FrameSpec

    def __len__(self) -> int:
        return len(self.indices)


class FrameLoader:
    """Pixels of the files under `media_root`, for any thread. Close it at the end.

    `cache_dir` None keeps nothing on disk, else at most `cache_max_bytes`. `workers` processes
    decode what is not cached, each file within `timeout_seconds`. The most recent clips stay
    in memory, up to `memory_max_bytes`.
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
        self._store = FrameStore(
            media_root,
            spec=spec,
            cache_dir=cache_dir,
            reader=reader,
            timeout_seconds=timeout_seconds,
            workers=workers,
            follow_symlinks=follow_symlinks,
            cache_max_bytes=cache_max_bytes,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="frames", daemon=True)
        self._thread.start()
        self._memory = _Memory(memory_max_bytes)

    @classmethod
    def from_options(
        cls,
        options: FrameOptions,
        media_root: Path,
        *,
        workers: int,
        cache_max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Self:
        """The loader that a command's options describe. Raises UsageError."""
        if not media_root.is_dir():
            raise UsageError(
                f"--media-root {media_root} is not a folder; give the folder under which the paths"
                " of videos and images lie"
            )
        cache = options.frame_cache or default_cache_dir()
        try:
            return cls(
                media_root,
                spec=FrameSpec.parse(options.frames, options.max_pixels),
                cache_dir=cache,
                reader=options.video_decoder,
                timeout_seconds=options.decode_timeout_seconds,
                workers=workers,
                follow_symlinks=options.follow_symlinks,
                cache_max_bytes=cache_max_bytes,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None
        except OSError as error:
            raise UsageError(
                f"decoded frames cannot be kept in {cache} ({error.strerror}); give --frame-cache"
                " a folder that can be written"
            ) from None

    @property
    def spec(self) -> FrameSpec:
        """Which frames are taken of each file, and how large."""
        return self._store.spec

    def check(self, ref: MediaRef) -> None:
        """Whether the path is safe and names a file that is not empty; decodes nothing.

        Raises MediaError, which names the file.
        """
        self._run(self._check(ref))

    def load(self, ref: MediaRef) -> DecodedMedia:
        """The frames of a file. Raises MediaError, which names the file."""
        frames = self.encoded(ref)
        decoded = self._memory.get((frames.media_id, frames.spec))
        if decoded is None:
            decoded = _decode(frames)
            self._memory.put(decoded)
        return decoded

    def encoded(self, ref: MediaRef) -> EncodedFrames:
        """The frames of a file as they are stored. Raises MediaError, which names the file."""
        return self._run(self._store.load(ref))

    def prefetch(self, refs: Iterable[MediaRef]) -> None:
        """Start to load these files in the background; `load` raises what is wrong with one."""
        for ref in refs:
            asyncio.run_coroutine_threadsafe(self._store.load(ref), self._loop)

    def close(self) -> None:
        """Stop the decoder processes and the thread. What is on disk stays."""
        if self._loop.is_closed():
            return
        self._run(self._cancel_loading())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._store.close()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _check(self, ref: MediaRef) -> None:
        self._store.check(ref)

    async def _cancel_loading(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class _Memory:
    """The most recent clips, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._clips: OrderedDict[tuple[str, FrameSpec], DecodedMedia] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, FrameSpec]) -> DecodedMedia | None:
        with self._lock:
            clip = self._clips.get(key)
            if clip is not None:
                self._clips.move_to_end(key)
            return clip

    def put(self, clip: DecodedMedia) -> None:
        with self._lock:
            key = (clip.media_id, clip.spec)
            replaced = self._clips.pop(key, None)
            self._bytes += clip.pixels.nbytes - (replaced.pixels.nbytes if replaced else 0)
            self._clips[key] = clip
            while self._bytes > self._max_bytes:
                self._bytes -= self._clips.popitem(last=False)[1].pixels.nbytes


def _decode(frames: EncodedFrames) -> DecodedMedia:
    pixels = np.stack([_picture(jpeg) for jpeg in frames.jpegs])
    return DecodedMedia(
        kind=frames.kind,
        pixels=pixels,
        times_seconds=frames.times,
        indices=frames.indices,
        duration_seconds=frames.duration_seconds,
        media_id=frames.media_id,
        spec=frames.spec,
    )


def _picture(jpeg: bytes) -> "NDArray[np.uint8]":
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))
