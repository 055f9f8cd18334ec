"""decord reads the chosen frames of a clip, only by ways in which it returns the frames asked for.

decord finds a frame by jumping to a key frame and counting from there. That is exact only where the
container seeks exactly, what it takes for key frames are proved to be some, and no picture after
one is shown before it; elsewhere it returns other frames than asked, without an error. So it jumps
only where `VideoIndex.has_exact_seek`, and where its own times and key frames agree with the
container's; other clips are read from the first frame to the last, which shows whether one was left
out. For a frame that does not come it repeats the last one, unless a limit is set: one is set. It
also chooses its video track alone, and would follow play lists: it only sees files that
`media.pyav_reader.list_frames` has accepted, and none with two tracks that look the same.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

import decord
import numpy as np
import numpy.typing as npt
from decord import DECORDError, DECORDLimitReachedError
from PIL import Image

from media.frames import MediaError
from media.orientation import Orientation, with_square_pixels
from media.video import VideoIndex
from schemas.samples import Reason

Pixels = npt.NDArray[np.uint8]

# Seconds by which decord's times (32-bit floats) may differ from the container's.
_TIME_TOLERANCE = 2e-3
# The share of frames that decord may repeat for others that do not come. (0 would mean any number.)
_NO_REPEATED_FRAME = 1e-9
_BATCH_BYTES = 64 * 1024 * 1024

# Where reading from the first frame on gives all frames in order. (In MPEG transport streams decord
# does not begin with the first frame.)
_READ_IN_ORDER = frozenset({"mp4", "matroska", "avi", "asf", "mpeg", "flv"})
# decord turns pictures itself by the metadata of these, and of no other container.
_TURNS_ITSELF = frozenset({"mp4"})

_FAULTS = (DECORDError, DECORDLimitReachedError, RuntimeError, IndexError, AssertionError)
_NOISE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: |Check failed: |Stack trace.*", re.DOTALL)


def read_frames(path: str, index: VideoIndex, chosen: Sequence[int]) -> Iterator[Image.Image]:
    """The chosen frames (places in the order of display, increasing), upright, one at a time."""
    decord.logging.set_level(decord.logging.QUIET)
    formats = set(index.container.split(","))
    if not formats & _READ_IN_ORDER:
        raise _undecodable(index, f"it does not seek exactly in {index.container}")
    if index.has_double:
        raise _undecodable(index, "it holds two video tracks of one size and length")
    if not index.orientation.is_exact:
        raise _undecodable(index, "its pictures are to be turned by an angle that is no quarter")
    turned = index.orientation.angle_alone if formats & _TURNS_ITSELF else Orientation()
    width, height = turned.size(index.width, index.height)
    to_turn = index.orientation.after(turned)
    try:
        # The class checks its frame count with an assertion: 0 frames.
        reader = decord.VideoReader(
            path, ctx=decord.cpu(0), num_threads=1, fault_tol=_NO_REPEATED_FRAME
        )
        if len(reader) != index.num_packets:
            raise _undecodable(
                index, f"it counts {len(reader)} frames, the container lists {index.num_packets}"
            )
        is_exact = (
            index.has_exact_seek
            and _has_these_times(reader, index.times)
            and set(reader.get_key_indices()) <= set(index.keyframes)
        )
        pictures = (
            _by_jumps(reader, chosen, 3 * width * height)
            if is_exact
            else _in_order(reader, chosen, len(index.times))
        )
        for pixels in pictures:
            if pixels.shape != (height, width, 3):
                raise _undecodable(
                    index, f"a picture of shape {pixels.shape} came instead of {width}x{height}"
                )
            upright = to_turn.apply(Image.fromarray(pixels))
            yield with_square_pixels(upright, index.upright_size)
    except _FAULTS as error:
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


def _in_order(
    reader: "decord.VideoReader", chosen: Sequence[int], num_frames: int
) -> Iterator[Pixels]:
    """Frames say nothing of their time here: only the count of all shows that none was left out."""
    wanted = set(chosen)
    count = 0
    # Where some are hidden it would repeat the last one in their stead.
    with suppress(StopIteration, DECORDLimitReachedError):
        while True:
            pixels = reader.next()
            if count in wanted:
                yield pixels.asnumpy()
            count += 1
    if count != num_frames:
        raise IndexError(f"of {num_frames} frames it gives {count}")


def _undecodable(index: VideoIndex, words: str) -> MediaError:
    return MediaError(
        Reason.UNDECODABLE,
        f"decord cannot read this {index.codec} clip: {words or 'no reason given'} "
        "(--video-decoder decord-then-pyav tries PyAV then)",
    )


def _words(error: Exception, path: str) -> str:
    words = _NOISE.sub("", str(error)).replace(f"[{path}]", "").replace(path, "the file")
    return " ".join(words.split())[:120]
