"""Shared clips whose pictures carry their own number: each frame is the one asked for, upright."""

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from helpers.media_clips import decode_here
from PIL import Image

from media.decoding import ReaderName
from media.frames import MediaError
from media.sampling import FrameSpec

pytestmark = pytest.mark.data

READERS: list[ReaderName] = ["decord", "pyav"]
SPARSE = FrameSpec("uniform:16")
BITS = 10


class Expected(NamedTuple):
    """What a clip becomes. `first` is the number of its first frame, which starts at `start`."""

    num_frames: int
    size: tuple[int, int] = (160, 96)
    mirror: Image.Transpose | None = None
    first: int = 0
    start: float = 0.0
    decord: str = ""


CLIPS = {
    "ev_all_sync_h264.mp4": Expected(120),
    "ev_all_sync_h265.mp4": Expected(120),
    "ev_all_sync_h265_600.mp4": Expected(600, (192, 128)),
    "ev_intra_refresh.mp4": Expected(120),
    "ev_hflip.mp4": Expected(24, mirror=Image.Transpose.FLIP_LEFT_RIGHT),
    "ev_vflip.mp4": Expected(24, mirror=Image.Transpose.FLIP_TOP_BOTTOM),
    # 96 x 160 with pixels of 80:27: 96 * 80 / 27 = 284.4.
    "ev_sar.mp4": Expected(12, (284, 160)),
    "ev_small.mp4": Expected(24),
    # Cut out of a broadcast 6 pictures before a key frame.
    "ev_live_cut.ts": Expected(12, first=12, start=1.96, decord="does not seek exactly in mpegts"),
    "ev_two_tracks.mp4": Expected(24, decord="two video tracks of one size and length"),
}


def number_of(picture: Image.Image) -> int:
    """Ten bits across the picture, the lowest at the left, at three eighths of its height."""
    grey = np.asarray(picture.convert("L"))
    height, width = grey.shape
    row = grey[height * 3 // 8]
    return sum(1 << bit for bit in range(BITS) if row[(2 * bit + 1) * width // (2 * BITS)] > 128)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", CLIPS)
def test_each_frame_is_the_one_asked_for_and_upright(
    shared_data: Path, name: str, reader: ReaderName
) -> None:
    expected = CLIPS[name]
    path = shared_data / "faults" / name
    if reader == "decord" and expected.decord:
        with pytest.raises(MediaError, match=expected.decord):
            decode_here(path, reader, SPARSE)
        return
    frames = decode_here(path, reader, SPARSE)
    assert frames.num_source_frames == expected.num_frames
    assert (frames.source_width, frames.source_height) == expected.size
    assert frames.start_seconds == pytest.approx(expected.start)
    for index, jpeg in zip(frames.indices, frames.jpegs, strict=True):
        picture = Image.open(BytesIO(jpeg))
        stored = picture if expected.mirror is None else picture.transpose(expected.mirror)
        assert number_of(stored) == expected.first + index
        # A red block at the top left, a green one at the bottom left.
        assert np.argmax(stored.getpixel((3, 3))) == 0
        assert np.argmax(stored.getpixel((3, stored.height - 4))) == 1


def test_no_clip_of_the_folder_is_left_out(shared_data: Path) -> None:
    assert {path.name for path in (shared_data / "faults").glob("ev_*")} == set(CLIPS)
