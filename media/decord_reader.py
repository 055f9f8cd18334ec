"""decord reads the chosen frames of a clip, only by ways in which it returns the frames asked for.

decord finds a frame by jumping to a key frame and counting from there. That is exact only where the
container seeks exactly and no picture after a key frame is shown before it; elsewhere it returns
other frames than asked, without an error. So it jumps only where `VideoIndex.has_exact_seek` and
its own times agree with the container's; other clips are read from the first frame on. It also
would follow play lists: it only sees files that `media.pyav_reader.list_frames` has accepted.
"""

import re
from collections.abc import Iterator, Sequence

import decord
import numpy as np
import numpy.typing as npt
from decord import DECORDError
from PIL import Image

from media.frames import MediaError
from media.pyav_reader import turn_upright
from media.video import VideoIndex
from schemas.samples import Reason

Pixels = npt.NDArray[np.uint8]

# Seconds by which decord's times (32-bit floats) may differ from the container's.
_TIME_TOLERANCE = 2e-3
_BATCH_BYTES = 64 * 1024 * 1024

# Where reading from the first frame on gives all frames in order. (In MPEG transport streams decord
# does not begin with the first frame.)
_READ_IN_ORDER = frozenset({"mp4", "matroska", "avi", "asf", "mpeg", "flv"})
# decord turns pictures itself by the metadata of these, and of no other container.
_TURNS_ITSELF = frozenset({"mp4"})

_NOISE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: |Check failed: |Stack trace.*", re.DOTALL)


def read_frames(path: str, index: VideoIndex, chosen: Sequence[int]) -> Iterator[Image.Image]:
    """The chosen frames (places in the order of display, increasing), upright, one at a time."""
    decord.logging.set_level(decord.logging.QUIET)
    formats = set(index.container.split(","))
    if not formats & _READ_IN_ORDER:
        raise _undecodable(index, f"it does not seek exactly in {index.container}")
    own_turn = bool(formats & _TURNS_ITSELF)
    width, height = index.upright_size if own_turn else (index.width, index.height)
    try:
        # The class checks its frame count with an assertion: 0 frames.
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1, fault_tol=0)
        if len(reader) != index.num_packets:
            raise _undecodable(
                index, f"it counts {len(reader)} frames, the container lists {index.num_packets}"
            )
        is_exact = index.has_exact_seek and _has_these_times(reader, index.times)
        pictures = (
            _by_jumps(reader, chosen, 3 * width * height) if is_exact else _in_order(reader, chosen)
        )
        for pixels in pictures:
            if pixels.shape != (height, width, 3):
                raise _undecodable(
                    index, f"a picture of shape {pixels.shape} came instead of {width}x{height}"
                )
            picture = Image.fromarray(pixels)
            yield picture if own_turn else turn_upright(picture, index.rotation)
    except (DECORDError, RuntimeError, IndexError, AssertionError) as error:
        raise _undecodable(index, _words(error, path)) from error


def _has_these_times(reader: "decord.VideoReader", times: Sequence[float]) -> bool:
    own = reader.get_frame_timestamp(list(range(len(reader))))[:, 0].astype(np.float64)
    expected = np.asarray(times) - times[0]
    return len(own) == len(times) and bool(
        np.all(np.abs(own - own[0] - expected) <= _TIME_TOLERANCE + 1e-6 * expected)
    )


def _by_jumps(
    reader: "decord.VideoReader", chosen: Sequence[int], frame_bytes: int
) -> Iterator[Pixels]:
    size = max(1, _BATCH_BYTES // frame_bytes)
    for start in range(0, len(chosen), size):
        yield from reader.get_batch(list(chosen[start : start + size])).asnumpy()


def _in_order(reader: "decord.VideoReader", chosen: Sequence[int]) -> Iterator[Pixels]:
    wanted = set(chosen)
    for index in range(chosen[-1] + 1):
        try:
            pixels = reader.next()
        except StopIteration as error:
            raise IndexError(f"it ends before frame {index}") from error
        if index in wanted:
            yield pixels.asnumpy()


def _undecodable(index: VideoIndex, words: str) -> MediaError:
    return MediaError(
        Reason.UNDECODABLE,
        f"decord cannot read this {index.codec} clip: {words or 'no reason given'} "
        "(--reader decord-then-pyav tries PyAV then)",
    )


def _words(error: Exception, path: str) -> str:
    words = _NOISE.sub("", str(error)).replace(f"[{path}]", "").replace(path, "the file")
    return " ".join(words.split())[:120]
