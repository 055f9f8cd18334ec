"""Every real clip and every clip that breaks decoders: right frames, or one clear refusal."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from media.frames import EncodedFrames, MediaError
from media.sampling import FrameSpec
from media.store import FrameStore, ReaderChoice
from schemas.questions import MediaRef
from schemas.samples import Reason

pytestmark = [pytest.mark.data, pytest.mark.heavy]


@dataclass(frozen=True)
class Expected:
    """What a file becomes. `decord` None: decord reads it as well as PyAV does."""

    num_frames: int = 0
    size: tuple[int, int] = (0, 0)
    start: float = 0.0
    duration: float = 0.0
    decord: Reason | None = None
    pyav: Reason | None = None
    words: str = ""


UNDECODABLE = Reason.UNDECODABLE

EDGE = {
    # decord's FFmpeg has no AV1 decoder.
    "av1_video.mkv": Expected(125, (640, 360), 0, 5.0, decord=UNDECODABLE, words="video stream"),
    # Some packets are no H.264 any more; a decoder that goes on would repeat pictures.
    "corrupted.mp4": Expected(decord=UNDECODABLE, pyav=UNDECODABLE),
    "h264_10bits.mp4": Expected(30, (200, 200), 0, 1.0),
    "h265_video.mp4": Expected(10, (128, 128), 0, 1.0),
    # decord counts frames by the duration that the file does not state.
    "no_duration.webm": Expected(74, (1280, 720), 0, 4.939, decord=UNDECODABLE, words="duration"),
    # It starts at 8.333 s of its own clock and keeps that.
    "non_zero_start.mp4": Expected(12, (200, 112), 127995 / 15360, 0.4),
    "odd_height_and_width_444.mp4": Expected(25, (321, 241), 0, 1.0),
    # Stored lying (568 x 320), with the order to turn it.
    "rotated_90.mov": Expected(3, (320, 568), 0, 0.1),
    "testsrc2_vp9.webm": Expected(30, (1280, 720), 0, 1.0),
    # It was cut after its first frame, lists no other, and that one is whole.
    "truncated_mpeg4.mp4": Expected(1, (64, 64), 0, 0.04),
}
REAL = {
    "big_buck_bunny_0_30.webm": Expected(720, (1280, 720), 0.003, 30.0),
    "chaplin.mp4": Expected(241, (640, 360), 0, 9.64),
    "cockatoo.mp4": Expected(280, (1280, 720), 0, 14.0),
    "flipping_a_pancake.mkv": Expected(310, (426, 240), 0, 10.333),
    "llamafactory_1.mp4": Expected(243, (640, 360), 0, 9.72),
    # AVI with B-frames: decord's jumps return other frames than asked.
    "llamafactory_2.avi": Expected(270, (320, 240), 0, 9.025),
    "llamafactory_3.mp4": Expected(146, (640, 360), 0, 6.089),
    "llamafactory_4.mp4": Expected(150, (224, 224), 0, 5.0),
    # Stored 340 x 256, with pixels of 64:51: 427 x 256 when they are square.
    "mmaction_demo.mp4": Expected(280, (427, 256), 0, 10.0),
    # Two video streams: the larger one is the clip.
    "nasa_13013.mp4": Expected(390, (480, 270), 0, 13.013),
    "video_r1_example.mp4": Expected(491, (640, 360), 0, 22.028),
}
FILES = {f"edge/{name}": expected for name, expected in EDGE.items()} | {
    f"real/videos/{name}": expected for name, expected in REAL.items()
}

# Mean difference per pixel and colour, in levels of 255, between a stored frame and the other
# library's: JPEG makes 0.5 to 3 of it. decord's older converter of 10 bits is 3.6 levels darker.
TOLERANCE = {"edge/h264_10bits.mp4": 6.0, "edge/odd_height_and_width_444.mp4": 5.0}
USUAL_TOLERANCE = 4.0


@pytest.fixture(scope="module", params=["decord", "pyav", "decord-then-pyav"])
def store(request: pytest.FixtureRequest, shared_data: Path) -> Iterator[FrameStore]:
    with FrameStore(
        shared_data, spec=FrameSpec(), cache_dir=None, reader=request.param, workers=1
    ) as frames:
        yield frames


def reader_of(store: FrameStore) -> ReaderChoice:
    return {("decord",): "decord", ("pyav",): "pyav"}.get(store._readers, "decord-then-pyav")


@cache
def reference(path: Path, indices: tuple[int, ...], size: tuple[int, int]) -> list[np.ndarray]:
    """The frames as PyAV gives them when it decodes the whole clip, upright, at this size."""
    pictures = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        for index, frame in enumerate(container.decode(stream)):
            if index in indices:
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                picture = Image.fromarray(np.ascontiguousarray(pixels))
                pictures.append(np.asarray(picture.resize(size, Image.Resampling.BICUBIC)))
    return pictures


def pixels_of(frames: EncodedFrames) -> list[np.ndarray]:
    return [np.asarray(Image.open(BytesIO(jpeg))) for jpeg in frames.jpegs]


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_right_frames_or_one_clear_refusal(
    store: FrameStore, shared_data: Path, name: str
) -> None:
    expected = FILES[name]
    reader = reader_of(store)
    refused = expected.decord if reader == "decord" else expected.pyav
    ref = MediaRef(kind="video", path=name)
    if refused is not None:
        with pytest.raises(MediaError) as caught:
            asyncio.run(store.load(ref))
        assert caught.value.reason is refused
        assert expected.words in caught.value.detail
        assert "/proc" not in caught.value.detail
        return
    frames = asyncio.run(store.load(ref))
    by_fallback = reader == "decord-then-pyav" and expected.decord is not None
    assert frames.reader == ("pyav" if by_fallback or reader == "pyav" else "decord")
    assert frames.num_source_frames == expected.num_frames
    assert (frames.source_width, frames.source_height) == expected.size
    assert frames.start_seconds == pytest.approx(expected.start, rel=0, abs=1e-9)
    assert frames.duration_seconds == pytest.approx(expected.duration, rel=0, abs=1e-3)
    assert len(frames) == min(16, expected.num_frames)
    assert frames.width * frames.height <= 128 * 28 * 28
    assert all(earlier < later for earlier, later in pairwise(frames.times))
    assert frames.times[0] >= frames.start_seconds
    assert frames.times[-1] < frames.start_seconds + frames.duration_seconds

    size = (frames.width, frames.height)
    expected_pixels = reference(shared_data / name, frames.indices, size)
    for i, (got, wanted) in enumerate(zip(pixels_of(frames), expected_pixels, strict=True)):
        difference = np.abs(got.astype(int) - wanted.astype(int)).mean()
        assert difference < TOLERANCE.get(name, USUAL_TOLERANCE), f"frame {frames.indices[i]}"


@pytest.mark.parametrize("name", ["bird_on_branch.jpg", "lift_worker.png"])
def test_real_stills_are_one_frame(store: FrameStore, shared_data: Path, name: str) -> None:
    path = shared_data / "real" / "images" / name
    frames = asyncio.run(store.load(MediaRef(kind="image", path=f"real/images/{name}")))
    original = Image.open(path).convert("RGB")
    assert (frames.source_width, frames.source_height) == original.size
    scaled = original.resize((frames.width, frames.height), Image.Resampling.BICUBIC)
    difference = np.abs(pixels_of(frames)[0].astype(int) - np.asarray(scaled).astype(int)).mean()
    assert difference < USUAL_TOLERANCE
    assert (frames.indices, frames.times) == ((0,), (0.0,))


def test_no_file_of_the_folders_is_left_out(shared_data: Path) -> None:
    for folder in ("edge", "real/videos"):
        there = {f"{folder}/{path.name}" for path in (shared_data / folder).iterdir()}
        assert there == {name for name in FILES if name.startswith(f"{folder}/")}
