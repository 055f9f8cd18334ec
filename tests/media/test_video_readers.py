"""Both readers on generated clips: the frame at an index is the one that was drawn there."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from helpers.media_clips import (
    EVERY_FRAME,
    decode_here,
    make_clip,
    make_huge_clip,
    make_sound,
    numbered_picture,
    read_number,
)
from PIL import Image

from media.decoding import ReaderName
from media.frames import EncodedFrames, MediaError
from media.sampling import FrameSpec
from schemas.samples import Reason

READERS: list[ReaderName] = ["decord", "pyav"]
SPARSE = FrameSpec("uniform:8")

GROUPS_OF_12 = {"g": "12"}
# name: codec, options, pixel format. 150 frames each, so that 8 of them need jumps.
FORMATS = {
    "closed_groups.mp4": ("libx264", {**GROUPS_OF_12, "bf": "3"}, "yuv420p"),
    "open_groups.mp4": (
        "libx264",
        {**GROUPS_OF_12, "bf": "3", "x264-params": "open-gop=1:log-level=none"},
        "yuv420p",
    ),
    "one_group.mp4": ("libx264", {"g": "500", "bf": "2"}, "yuv420p"),
    "h265.mp4": ("libx265", {"x265-params": "log-level=none:keyint=12"}, "yuv420p"),
    "h264.mkv": ("libx264", {**GROUPS_OF_12, "bf": "2"}, "yuv420p"),
    "h264.mov": ("libx264", {**GROUPS_OF_12, "bf": "2"}, "yuv420p"),
    "vp8.webm": ("libvpx", {"g": "24", "auto-alt-ref": "1", "b": "400k"}, "yuv420p"),
    "vp9.webm": ("libvpx-vp9", {"g": "24", "b": "400k", "cpu-used": "8"}, "yuv420p"),
    "b_frames.avi": ("libx264", {**GROUPS_OF_12, "bf": "3"}, "yuv420p"),
    "mpeg4.avi": ("mpeg4", {**GROUPS_OF_12, "bf": "2"}, "yuv420p"),
    "motion_jpeg.avi": ("mjpeg", {}, "yuvj420p"),
    "mpeg2.mpg": ("mpeg2video", {**GROUPS_OF_12, "bf": "2"}, "yuv420p"),
    "windows.wmv": ("wmv2", GROUPS_OF_12, "yuv420p"),
    "flash.flv": ("flv", GROUPS_OF_12, "yuv420p"),
    "transport.ts": ("libx264", {**GROUPS_OF_12, "bf": "2"}, "yuv420p"),
    "animation.gif": ("gif", {}, "rgb8"),
}
NOT_DECORDS = {"transport.ts", "animation.gif"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    for name, (codec, options, pixel_format) in FORMATS.items():
        make_clip(
            folder / name, codec, num_frames=150, codec_options=options, pixel_format=pixel_format
        )
    return folder


def numbers(frames: EncodedFrames) -> list[int]:
    return [read_number(np.asarray(Image.open(BytesIO(jpeg)))) for jpeg in frames.jpegs]


def refusal(path: Path, reader: ReaderName, spec: FrameSpec = EVERY_FRAME) -> MediaError:
    with pytest.raises(MediaError) as caught:
        decode_here(path, reader, spec)
    return caught.value


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", FORMATS)
def test_each_index_carries_the_picture_drawn_there(
    clips: Path, name: str, reader: ReaderName
) -> None:
    """Bug seen: decord jumps to other frames in AVI, MPEG, WMV and open groups of pictures."""
    if reader == "decord" and name in NOT_DECORDS:
        error = refusal(clips / name, reader)
        assert error.reason is Reason.UNDECODABLE
        assert "--video-decoder decord-then-pyav" in error.detail
        return
    frames = decode_here(clips / name, reader, SPARSE)
    assert frames.indices == (9, 28, 46, 65, 84, 103, 121, 140)
    assert numbers(frames) == list(frames.indices)
    assert frames.num_source_frames == 150
    assert frames.reader == reader


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in NOT_DECORDS])
def test_the_readers_agree_on_times_and_duration(clips: Path, name: str) -> None:
    by_decord = decode_here(clips / name, "decord", SPARSE)
    by_pyav = decode_here(clips / name, "pyav", SPARSE)
    assert by_decord.times == by_pyav.times
    assert by_decord.duration_seconds == by_pyav.duration_seconds
    start = by_decord.start_seconds
    expected = [start + index / 30 for index in by_decord.indices]
    # Matroska and FLV round to milliseconds.
    assert by_decord.times == pytest.approx(expected, rel=0, abs=1e-3)
    assert by_decord.duration_seconds == pytest.approx(5.0, rel=0, abs=2e-3)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotated_clips_come_out_upright(
    tmp_path: Path, reader: ReaderName, container: str, rotation: int
) -> None:
    """The clip is stored lying, with the order to turn it back."""
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32, :48] = (220, 30, 30)
    upright[32:, 48:] = (30, 30, 220)
    lying = np.ascontiguousarray(np.rot90(upright, -rotation // 90))
    path = make_clip(tmp_path / f"clip.{container}", pictures=[lying] * 3, rotation=rotation)
    frames = decode_here(path, reader)
    assert (frames.source_width, frames.source_height) == (96, 64)
    picture = np.asarray(Image.open(BytesIO(frames.jpegs[1]))).astype(int)
    assert picture.shape == (64, 96, 3)
    assert np.abs(picture - upright).mean() < 6  # coding twice blurs the edges


@pytest.mark.parametrize("reader", READERS)
def test_times_are_the_container_s_own(tmp_path: Path, reader: ReaderName) -> None:
    times = [0, 10, 20, 500, 520, 900, 1500, 4000, 4010]
    path = make_clip(
        tmp_path / "uneven.mp4", num_frames=9, times_ms=times, codec_options={"bf": "2"}
    )
    frames = decode_here(path, reader)
    assert frames.times == tuple(ms / 1000 for ms in times)
    assert numbers(frames) == [*range(9)]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("num_frames", [1, 3])
def test_shortest_clips_give_all_their_frames(
    tmp_path: Path, reader: ReaderName, num_frames: int
) -> None:
    path = make_clip(tmp_path / "short.mp4", num_frames=num_frames)
    frames = decode_here(path, reader, FrameSpec())
    assert frames.indices == tuple(range(num_frames))
    assert frames.duration_seconds == pytest.approx(num_frames / 30)
    assert numbers(frames) == [*range(num_frames)]


@pytest.mark.parametrize("reader", READERS)
def test_odd_sizes_stay_as_they_are(tmp_path: Path, reader: ReaderName) -> None:
    pictures = [numbered_picture(i, 99, 65) for i in range(4)]
    path = make_clip(tmp_path / "odd.mp4", pictures=pictures, pixel_format="yuv444p")
    frames = decode_here(path, reader)
    assert (frames.width, frames.height) == (99, 65)
    assert Image.open(BytesIO(frames.jpegs[0])).size == (99, 65)
    assert numbers(frames) == [0, 1, 2, 3]


@pytest.mark.parametrize("reader", READERS)
def test_frames_before_the_edit_list_s_start_are_not_shown(
    tmp_path: Path, reader: ReaderName
) -> None:
    """A clip that was cut without coding it anew: 5 frames are stored and not shown."""
    path = make_clip(
        tmp_path / "cut.mp4",
        num_frames=20,
        times_ms=[-200 + 40 * i for i in range(20)],
        container_options={"avoid_negative_ts": "disabled"},
    )
    frames = decode_here(path, reader)
    assert frames.num_source_frames == 15
    assert frames.times[0] == 0.0
    assert numbers(frames) == [*range(5, 20)]


@pytest.mark.parametrize("reader", READERS)
def test_a_clip_that_claims_to_last_for_years_has_its_frames_times(
    tmp_path: Path, reader: ReaderName
) -> None:
    path = make_clip(tmp_path / "long.mp4", num_frames=12)
    data = bytearray(path.read_bytes())
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        place = data.index(box) + offset
        data[place : place + 4] = struct.pack(">I", 0x7FFFFFFF)
    path.write_bytes(data)
    frames = decode_here(path, reader)
    assert numbers(frames) == [*range(12)]
    assert frames.duration_seconds == pytest.approx(0.4)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("name", "codec"), [("cut.mp4", "libx264"), ("cut.webm", "libvpx")])
def test_a_cut_off_file_is_refused(
    tmp_path: Path, reader: ReaderName, name: str, codec: str
) -> None:
    """Bug seen: the readable first half of a WebM file passed for the whole clip."""
    path = make_clip(
        tmp_path / name,
        codec,
        num_frames=120,
        container_options={"movflags": "faststart"} if name == "cut.mp4" else {},
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    assert refusal(path, reader).reason is Reason.UNDECODABLE


@pytest.mark.parametrize("reader", READERS)
def test_two_frames_at_one_time_are_refused(tmp_path: Path, reader: ReaderName) -> None:
    """4,000 frames a second in Matroska's milliseconds."""
    path = make_clip(tmp_path / "fast.mkv", num_frames=20, rate=4000, codec_options={"bf": "0"})
    assert refusal(path, reader).reason is Reason.BAD_TIMES


@pytest.mark.parametrize("reader", READERS)
def test_a_clip_with_missing_times_is_refused(tmp_path: Path, reader: ReaderName) -> None:
    path = make_clip(
        tmp_path / "early.mkv",
        num_frames=20,
        times_ms=[-200 + 40 * i for i in range(20)],
        container_options={"avoid_negative_ts": "disabled"},
    )
    error = refusal(path, reader)
    assert error.reason is Reason.BAD_TIMES
    assert "have no presentation time" in error.detail


@pytest.mark.parametrize("reader", READERS)
def test_a_sound_file_has_no_frames(tmp_path: Path, reader: ReaderName) -> None:
    error = refusal(make_sound(tmp_path / "sound.mp4"), reader)
    assert error.reason is Reason.NO_FRAMES
    assert "only: audio" in error.detail


@pytest.mark.parametrize("reader", READERS)
def test_a_text_named_mp4_is_refused(tmp_path: Path, reader: ReaderName) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("404: Not Found\n" * 40)
    assert refusal(path, reader).reason is Reason.UNDECODABLE


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "play_list",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{secret}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{secret}'\n",
    ],
    ids=["hls", "concat"],
)
def test_a_play_list_does_not_open_other_files(
    tmp_path: Path, reader: ReaderName, play_list: str
) -> None:
    """decord alone follows such a file, whatever its name: bug seen."""
    secret = make_clip(tmp_path / "secret.ts")
    path = tmp_path / "clip.mp4"
    path.write_text(play_list.format(secret=secret))
    assert refusal(path, reader).reason is Reason.UNDECODABLE


@pytest.mark.parametrize("reader", READERS)
def test_a_clip_of_absurd_size_is_refused_by_its_header(tmp_path: Path, reader: ReaderName) -> None:
    error = refusal(make_huge_clip(tmp_path / "huge.avi"), reader)
    assert error.reason is Reason.TOO_LARGE
    assert "8208x8208" in error.detail


@pytest.mark.parametrize("reader", READERS)
def test_large_frames_are_scaled_to_the_cap_and_keep_their_aspect(
    tmp_path: Path, reader: ReaderName
) -> None:
    path = make_clip(
        tmp_path / "large.mp4", pictures=[numbered_picture(i, 640, 360) for i in range(3)]
    )
    frames = decode_here(path, reader, FrameSpec("uniform:2", max_pixels=100 * 100))
    assert (frames.source_width, frames.source_height) == (640, 360)
    # 640 x 360 scaled by sqrt(10000 / 230400) = 0.2083: 133.3 x 75.0, rounded down.
    assert (frames.width, frames.height) == (133, 75)
    assert Image.open(BytesIO(frames.jpegs[0])).size == (133, 75)
    assert numbers(frames) == list(frames.indices)
