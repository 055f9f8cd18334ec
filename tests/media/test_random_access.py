"""Key frames are proved by their bytes: what a container claims of them is not believed."""

import struct
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media_clips import (
    copy_packets,
    decode_here,
    make_clip,
    numbered_picture,
    read_number,
    without_key_table,
)
from PIL import Image

from media.decoding import ReaderName
from media.frames import EncodedFrames, MediaError
from media.pyav_reader import list_frames
from media.random_access import RandomAccess
from media.sampling import FrameSpec

READERS: list[ReaderName] = ["decord", "pyav"]
SPARSE = FrameSpec("uniform:8")

SPS, PPS, OTHER_PPS = b"\x67\x42\x00\x1e", b"\x68\xce\x38\x80", b"\x68\xce\x06\xe2"
IDR, PICTURE, RECOVERY_POINT = b"\x65\x88\x84", b"\x41\x9a\x02", b"\x06\x06\x01\xc4\x80"
# The record of an MP4: version, profile, lengths of 4 bytes, then the sets with their lengths.
H264_HEADER = b"\x01\x42\x00\x1e\xff\xe1" + b"\0\x04" + SPS + b"\x01\0\x04" + PPS


def packet(*units: bytes) -> memoryview:
    return memoryview(b"".join(struct.pack(">I", len(unit)) + unit for unit in units))


def with_start_codes(*units: bytes) -> memoryview:
    return memoryview(b"".join(b"\0\0\0\1" + unit for unit in units))


def beginnings(codec: str, header: bytes, *packets: memoryview) -> list[bool]:
    access = RandomAccess(codec, header, is_intra_only=False)
    return [access.is_beginning(one) for one in packets]


def test_an_idr_picture_is_a_beginning_and_a_recovery_point_is_none() -> None:
    packets = [packet(IDR), packet(PICTURE), packet(RECOVERY_POINT, PICTURE), packet(SPS, PPS, IDR)]
    assert beginnings("h264", H264_HEADER, *packets) == [True, False, False, True]


def test_start_codes_are_read_as_lengths_are() -> None:
    packets = [with_start_codes(SPS, PPS, IDR), with_start_codes(RECOVERY_POINT, PICTURE)]
    assert beginnings("h264", b"", *packets) == [True, False]


def test_a_beginning_that_needs_earlier_parameter_sets_is_none() -> None:
    """A jump past the packet that brings them would decode with the header's."""
    packets = [packet(IDR), packet(OTHER_PPS, PICTURE), packet(IDR), packet(SPS, OTHER_PPS, IDR)]
    assert beginnings("h264", H264_HEADER, *packets) == [True, False, False, True]


def test_parameter_sets_of_the_header_sent_again_change_nothing() -> None:
    packets = [packet(SPS, PPS, IDR), packet(PPS, PICTURE), packet(IDR)]
    assert beginnings("h264", H264_HEADER, *packets) == [True, False, True]


@pytest.mark.parametrize(
    ("kind", "is_beginning"),
    [(0, False), (1, False), (9, False), (16, True), (19, True), (20, True), (21, True)],
)
def test_random_access_pictures_of_h265_are_beginnings(kind: int, is_beginning: bool) -> None:
    """Trailing 0 and 1, skipped leading 9, broken link 16, IDR 19 and 20, clean access 21."""
    header = b"\x01" + bytes(20) + b"\x03\0"
    assert beginnings("hevc", header, packet(bytes([kind << 1, 1, 0]))) == [is_beginning]


@pytest.mark.parametrize(
    ("codec", "data", "is_beginning"),
    [
        ("mpeg4", b"\0\0\1\xb3\0\0\0\0\1\xb6\x10\x60", True),
        ("mpeg4", b"\0\0\1\xb6\x50\x60", False),  # predicted
        ("mpeg4", b"\0\0\1\xb6\xd0\x60", False),  # of a sprite
        ("mpeg2video", b"\0\0\1\xb3\x06\0\0\1\0\0\x08", True),
        ("mpeg2video", b"\0\0\1\0\0\x08", False),  # without a sequence header
        ("mpeg2video", b"\0\0\1\xb3\x06\0\0\1\0\0\x10", False),
        ("vp8", b"\x10\x02\0", True),
        ("vp8", b"\x11\x02\0", False),
        ("vp9", b"\x82\x49\x83", True),
        ("vp9", b"\x86\0\x40", False),
        ("vp9", b"\x88", False),  # shows an existing frame
        ("vp9", b"\xb0\x49", True),  # profile 3
        ("vp9", b"\xb2\x49", False),
        ("av1", b"\x12\0\x0a\x01\0\x32\x02\x10\0", True),
        ("av1", b"\x12\0\x32\x02\x30\0", False),
        ("av1", b"\x12\0\x32\x02\x00\0", False),  # a key frame that is not shown yet
        ("theora", b"\0\0\0", False),
        ("h264", b"", False),
        ("av1", b"\x32\x7f", False),
        ("mpeg4", b"\0\0\1\xb6", False),
    ],
)
def test_other_codecs_say_it_in_their_first_bits(
    codec: str, data: bytes, is_beginning: bool
) -> None:
    assert beginnings(codec, b"", memoryview(data)) == [is_beginning]


def test_each_picture_that_is_coded_alone_is_a_beginning() -> None:
    assert RandomAccess("mjpeg", b"", is_intra_only=True).is_beginning(memoryview(b"\xff\xd8"))


# name: codec, options, container. 200 frames each.
CLAIMS = {
    "h264": ("libx264", {"g": "24", "bf": "2"}, "mp4"),
    "h264_one_group": ("libx264", {"g": "500", "bf": "0", "sc_threshold": "0"}, "mp4"),
    "h264_intra_refresh": (
        "libx264",
        {"g": "24", "bf": "0", "x264-params": "intra-refresh=1:log-level=none"},
        "mp4",
    ),
    "h264_open_groups": (
        "libx264",
        {"g": "24", "bf": "3", "x264-params": "open-gop=1:log-level=none"},
        "mov",
    ),
    "h265": ("libx265", {"x265-params": "log-level=none:keyint=60"}, "mp4"),
    "h265_one_group": ("libx265", {"x265-params": "log-level=none:keyint=300:bframes=0"}, "mp4"),
    "h265_in_matroska": ("libx265", {"x265-params": "log-level=none:keyint=60"}, "mkv"),
    "mpeg4": ("mpeg4", {"g": "60"}, "mp4"),
    "mpeg4_b": ("mpeg4", {"g": "60", "bf": "2"}, "mov"),
    "mpeg4_in_matroska": ("mpeg4", {"g": "60"}, "mkv"),
    "vp9": ("libvpx-vp9", {"g": "60", "cpu-used": "8", "b": "400k"}, "mkv"),
}


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips whose containers claim that every picture is a key frame."""
    folder = tmp_path_factory.mktemp("claims")
    for name, (codec, options, container) in CLAIMS.items():
        honest = folder / f"{name}_honest.{container}"
        make_clip(honest, codec, num_frames=200, codec_options=options)
        if container == "mkv" or b"stss" not in honest.read_bytes():
            copy_packets(honest, folder / f"{name}.{container}", all_flagged=True)
        else:
            without_key_table(honest, folder / f"{name}.{container}")
    return folder


def numbers(frames: EncodedFrames) -> list[int]:
    return [read_number(np.asarray(Image.open(BytesIO(jpeg)))) for jpeg in frames.jpegs]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", CLAIMS)
def test_a_claimed_key_frame_never_shows_another_picture(
    claims: Path, name: str, reader: ReaderName
) -> None:
    """Bug seen: frames 72 and 97 were stored as those of 62 and 87, and rubbish of MPEG-4."""
    path = claims / f"{name}.{CLAIMS[name][2]}"
    frames = decode_here(path, reader, SPARSE)
    assert frames.indices == (12, 37, 62, 87, 112, 137, 162, 187)
    assert numbers(frames) == list(frames.indices)


@pytest.mark.parametrize("name", ["h264", "h265", "mpeg4", "vp9"])
def test_honest_key_frames_allow_jumps(claims: Path, name: str) -> None:
    """Else every clip would be decoded from its first frame on."""
    index = list_frames(str(claims / f"{name}_honest.{CLAIMS[name][2]}"))
    assert index.has_exact_seek
    assert len(index.keyframes) > 1


@pytest.mark.parametrize("name", ["h265", "mpeg4", "h265_in_matroska"])
def test_one_false_claim_forbids_jumps(claims: Path, name: str) -> None:
    index = list_frames(str(claims / f"{name}.{CLAIMS[name][2]}"))
    assert not index.has_exact_seek
    assert index.keyframes[0] == 0


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("codec", "options", "offset", "shown"),
    [
        # Cut in a group: the 14 pictures up to the next IDR picture cannot be decoded.
        ("libx264", {"g": "24", "bf": "0", "sc_threshold": "0"}, -14, 24),
        # Cut before a clean random access picture: those shown before it need the group before.
        ("libx265", {"x265-params": "log-level=none:keyint=20:min-keyint=20:bframes=3"}, 0, 20),
    ],
    ids=["h264", "h265"],
)
def test_a_clip_that_begins_inside_a_group_begins_with_its_first_whole_picture(
    tmp_path: Path,
    reader: ReaderName,
    codec: str,
    options: dict[str, str],
    offset: int,
    shown: int,
) -> None:
    """Bug seen: decord counted from the first picture it could decode, and repeated the last."""
    whole = make_clip(tmp_path / "whole.mp4", codec, num_frames=60, codec_options=options)
    with av.open(str(whole)) as container:
        flags = [packet.is_keyframe for packet in container.demux(video=0)]
    second_key = flags.index(True, 1)
    cut = copy_packets(whole, tmp_path / "cut.mp4", first=second_key + offset)
    frames = decode_here(cut, reader)
    assert numbers(frames) == [*range(shown, 60)]
    assert frames.num_source_frames == 60 - shown


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_of_two_tracks_alike_pyav_takes_the_first_and_decord_none(
    tmp_path: Path, container: str
) -> None:
    """Bug seen: decord took the other one, with the times of the first."""
    path = tmp_path / f"stereo.{container}"
    with av.open(str(path), "w") as clip:
        tracks = [clip.add_stream("libx264", rate=30) for _ in range(2)]
        for track in tracks:
            track.width, track.height, track.pix_fmt = 96, 64, "yuv420p"
        for number in range(24):
            for track, shown in zip(tracks, (number, 200 - number), strict=True):
                frame = av.VideoFrame.from_ndarray(numbered_picture(shown), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 30)
                clip.mux(track.encode(frame))
        for track in tracks:
            clip.mux(track.encode(None))
    assert numbers(decode_here(path, "pyav")) == [*range(24)]
    with pytest.raises(MediaError, match="two video tracks"):
        decode_here(path, "decord")


@pytest.mark.parametrize("reader", READERS)
def test_a_track_of_one_picture_is_not_the_clip(tmp_path: Path, reader: ReaderName) -> None:
    """A cover, here first, larger, and not marked as one."""
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as clip:
        cover = clip.add_stream("mjpeg", rate=30)
        cover.width, cover.height, cover.pix_fmt = 192, 128, "yuvj420p"
        track = clip.add_stream("libx264", rate=30)
        track.width, track.height, track.pix_fmt = 96, 64, "yuv420p"
        clip.start_encoding()
        picture = av.VideoFrame.from_ndarray(numbered_picture(255, 192, 128), format="rgb24")
        clip.mux([*cover.encode(picture), *cover.encode(None)])
        for number in range(24):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            clip.mux(track.encode(frame))
        clip.mux(track.encode(None))
    assert numbers(decode_here(path, reader)) == [*range(24)]
