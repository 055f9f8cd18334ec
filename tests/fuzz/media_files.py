"""Media files with changed bytes, through the store, both readers and the isolated decoders.

A file becomes frames with increasing times, or one reason from the closed list, within its time;
the two readers never disagree about which frames a clip has; the decoders stay fit for whole files.
"""

import asyncio
import hashlib
import io
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from fuzz.harness import Case, Runner
from fuzz.nasty import mutated_bytes
from fuzz.texts import ACTS, promise
from helpers.media_clips import make_clip
from PIL import Image

from media.frames import EncodedFrames, MediaError
from media.sampling import FrameSpec
from media.store import FrameStore
from schemas.questions import MediaRef

_FILES_PER_CASE = 24
_TIMEOUT_SECONDS = 10.0
_SPEC = FrameSpec("uniform:6")
_READERS = ("decord", "pyav")
_CLIPS = (
    ("h264.mp4", "libx264", {}),
    ("h264.mkv", "libx264", {}),
    ("h264.ts", "libx264", {}),
    ("h264.mov", "libx264", {}),
    ("h265.mp4", "libx265", {"codec_options": {"x265-params": "log-level=none"}}),
    ("vp8.webm", "libvpx", {}),
    ("vp9.webm", "libvpx-vp9", {}),
    ("mpeg4.avi", "mpeg4", {}),
    ("mpeg2.mpg", "mpeg2video", {}),
    ("mjpeg.avi", "mjpeg", {"pixel_format": "yuvj420p"}),
    ("flv1.flv", "flv1", {}),
    ("ffv1.mkv", "ffv1", {}),
)
_STILLS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

Outcome = EncodedFrames | MediaError


def whole_files(folder: Path) -> dict[str, bytes]:
    """Small clips of several codecs and containers, and stills."""
    found: dict[str, bytes] = {}
    for name, codec, more in _CLIPS:
        if codec in av.codec.codecs_available:
            found[name] = make_clip(
                folder / name, codec, num_frames=12, rate=6, **more
            ).read_bytes()
    for form in _STILLS:
        file = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(file, form)
        found[f"still.{form.lower()}"] = file.getvalue()
    return found


def _ref(path: str) -> MediaRef:
    return MediaRef(kind="image" if "still" in path else "video", path=path)


async def _load(store: FrameStore, path: str) -> Outcome:
    try:
        return await store.load(_ref(path))
    except MediaError as error:
        return error


async def _load_all(store: FrameStore, paths: Sequence[str]) -> list[Outcome]:
    return list(await asyncio.gather(*(_load(store, path) for path in paths)))


def check_outcome(path: str, data: bytes, outcome: Outcome) -> None:
    """Frames that can be used, or a reason in one line."""
    if isinstance(outcome, MediaError):
        promise(bool(outcome.detail), f"{path}: {outcome.reason} without words")
        promise(not ACTS.search(outcome.detail), f"{path}: words that act: {outcome.detail!r}")
        return
    promise(0 < len(outcome) <= 6, f"{path}: {len(outcome)} frames")
    promise(all(b > a >= 0 for a, b in pairwise(outcome.times)), f"{path}: times {outcome.times}")
    promise(
        all(b > a >= 0 for a, b in pairwise(outcome.indices))
        and outcome.indices[-1] < outcome.num_source_frames,
        f"{path}: indices {outcome.indices} of {outcome.num_source_frames}",
    )
    for jpeg in outcome.jpegs:
        with Image.open(io.BytesIO(jpeg)) as picture:
            picture.load()
            promise(picture.size == (outcome.width, outcome.height), f"{path}: {picture.size}")
    promise(bool(hashlib.sha256(data).digest()) and bool(outcome.media_id), f"{path}: no id")


def check_same(path: str, one: Outcome, other: Outcome) -> None:
    """Where both readers decode a file, they have the same frames of it."""
    if isinstance(one, EncodedFrames) and isinstance(other, EncodedFrames):
        promise(one.media_id == other.media_id, f"{path}: two ids")
        promise(
            (one.indices, one.times) == (other.indices, other.times),
            f"{path}: {one.reader} has frames {one.indices} at {one.times}, "
            f"{other.reader} {other.indices} at {other.times}",
        )


def _write_changed(draw: random.Random, folder: Path, whole: dict[str, bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for number in range(_FILES_PER_CASE):
        name = draw.choice(sorted(whole))
        data = mutated_bytes(draw, whole[name], draw.choice((1, 2, 8, 40)))
        found[f"{number:02d}-{name}"] = data
        (folder / f"{number:02d}-{name}").write_bytes(data)
    return found


class MediaRunner:
    """The stores' processes serve all cases: what one file leaves behind would show in the next."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "media"
        self._root.mkdir()
        self._whole = whole_files(self._root)
        self._stores = [
            FrameStore(
                self._root,
                spec=_SPEC,
                cache_dir=None,
                reader=reader,  # type: ignore[arg-type]  # one of the two names
                timeout_seconds=_TIMEOUT_SECONDS,
                workers=1,
            )
            for reader in _READERS
        ]
        self._expected = self._read_whole()

    def close(self) -> None:
        """Stop the decoders."""
        for store in self._stores:
            store.close()

    def _read_whole(self) -> list[tuple[bytes, ...]]:
        clips = [name for name in self._whole if name in {"h264.mp4", "vp9.webm", "still.png"}]
        found = []
        for store in self._stores:
            for name in clips:
                # a copy under a new name: nothing is answered from memory
                fresh = self._root / f"fresh-{len(found)}-{random.getrandbits(40):x}-{name}"
                fresh.write_bytes(self._whole[name])
                outcome = asyncio.run(_load(store, fresh.name))
                fresh.unlink()
                promise(isinstance(outcome, EncodedFrames), f"the whole {name}: {outcome}")
                assert isinstance(outcome, EncodedFrames)
                found.append(outcome.jpegs)
        return found

    def __call__(self, case: Case) -> Counter[str]:
        """Some changed files, then the whole ones again."""
        folder = self._root / f"case-{case.number}"
        folder.mkdir(exist_ok=True)
        changed = _write_changed(case.draw, folder, self._whole)
        paths = {f"{folder.name}/{name}": data for name, data in changed.items()}
        both = [asyncio.run(_load_all(store, list(paths))) for store in self._stores]
        counted: Counter[str] = Counter({"media files": len(paths)})
        for outcomes in both:
            for (path, data), outcome in zip(paths.items(), outcomes, strict=True):
                is_error = isinstance(outcome, MediaError)
                counted[outcome.reason.value if is_error else "decoded"] += 1
                check_outcome(path, data, outcome)
        for path, one, other in zip(paths, *both, strict=True):
            check_same(path, one, other)
        if case.number % 8 == 0:
            promise(self._read_whole() == self._expected, "a whole file reads otherwise afterwards")
        for path in paths:
            (self._root / path).unlink()
        folder.rmdir()
        return counted


@contextmanager
def open_media(folder: Path) -> Iterator[Runner]:
    """Clips, stills, a store for each reader."""
    runner = MediaRunner(folder)
    try:
        yield runner
    finally:
        runner.close()
