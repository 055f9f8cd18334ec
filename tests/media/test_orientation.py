"""A stored picture becomes the one that players show: turned, mirrored, with square pixels."""

import struct
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from helpers.media_clips import EVERY_FRAME, decode_here, make_clip
from PIL import Image

from media.decoding import ReaderName
from media.frames import MediaError
from media.orientation import Orientation, square_size
from media.sampling import FrameSpec
from schemas.samples import Reason

READERS: list[ReaderName] = ["decord", "pyav"]
ONE = 1 << 16

# (a, b, c, d) of the matrix, and where it brings a stored picture's corners: a point x to the right
# and y down is shown at (a x + c y, b x + d y). Named by rows: "red green / blue grey" is stored.
MATRICES = {
    (1, 0, 0, 1): "RG/BW",
    (0, -1, 1, 0): "GW/RB",  # a quarter turn counter-clockwise: right comes to the top
    (-1, 0, 0, -1): "WB/GR",
    (0, 1, -1, 0): "BR/WG",
    (-1, 0, 0, 1): "GR/WB",  # left and right swapped
    (1, 0, 0, -1): "BW/RG",
    (0, 1, 1, 0): "RB/GW",  # transposed: rows become columns
    (0, -1, -1, 0): "WG/BR",
}
COLOURS = {"R": (220, 30, 30), "G": (30, 200, 30), "B": (30, 30, 220), "W": (200, 200, 200)}


def matrix(a: float, b: float, c: float, d: float) -> bytes:
    fixed = [round(value * ONE) for value in (a, b, 0, c, d, 0, 0, 0)]
    return struct.pack("=9i", *fixed, 1 << 30)


def corners(width: int = 96, height: int = 64) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    for place, name in enumerate("RGBW"):
        rows = slice(height // 2) if place < 2 else slice(height // 2, height)
        columns = slice(width // 2) if place % 2 == 0 else slice(width // 2, width)
        picture[rows, columns] = COLOURS[name]
    return picture


def seen(picture: Image.Image) -> str:
    """The colours of the four quarters, named."""
    names = []
    for y in (0.25, 0.75):
        for x in (0.25, 0.75):
            pixel = picture.getpixel((int(x * picture.width), int(y * picture.height)))
            names.append(min(COLOURS, key=lambda n: np.abs(np.subtract(COLOURS[n], pixel)).sum()))
    return "{}{}/{}{}".format(*names)


@pytest.mark.parametrize("entries", MATRICES)
def test_each_matrix_brings_the_corners_where_it_says(entries: tuple[int, ...]) -> None:
    orientation = Orientation.of_matrix(matrix(*entries))
    picture = Image.fromarray(corners())
    assert seen(orientation.apply(picture)) == MATRICES[entries]
    assert orientation.size(96, 64) == orientation.apply(picture).size
    # A matrix that also stretches turns alike.
    wide = Orientation.of_matrix(matrix(*(1.5 * entry for entry in entries)))
    assert wide == orientation


@pytest.mark.parametrize("entries", MATRICES)
def test_what_is_left_after_the_angle_alone_completes_it(entries: tuple[int, ...]) -> None:
    orientation = Orientation.of_matrix(matrix(*entries))
    done = orientation.angle_alone
    assert not done.is_mirrored
    turned = done.apply(Image.fromarray(corners()))
    assert seen(orientation.after(done).apply(turned)) == MATRICES[entries]


def test_a_matrix_of_zeros_asks_for_nothing() -> None:
    assert Orientation.of_matrix(bytes(36)) == Orientation()


@pytest.mark.parametrize("angle", [-0.6, 0.6])
def test_a_matrix_may_miss_its_quarter_turn_by_less_than_a_degree(angle: float) -> None:
    radians = np.radians(90 + angle)
    cosine, sine = np.cos(radians), np.sin(radians)
    assert Orientation.of_matrix(matrix(cosine, -sine, sine, cosine)) == Orientation(1)


def test_decord_is_not_trusted_with_an_angle_that_is_no_quarter(tmp_path: Path) -> None:
    """Bug seen: it leaves a picture that is to be turned by 180.4 degrees as it is."""
    path = make_clip(tmp_path / "off.mp4", pictures=[corners()] * 3, rotation=180.4)
    with pytest.raises(MediaError, match="no quarter"):
        decode_here(path, "decord")
    frames = decode_here(path, "pyav")
    assert seen(Image.open(BytesIO(frames.jpegs[0]))) == MATRICES[-1, 0, 0, -1]


@pytest.mark.parametrize(
    "entries", [(0.7, -0.7, 0.7, 0.7), (1, 0, 0.5, 1), (0.98, 0.17, -0.17, 0.98)]
)
def test_a_slanted_picture_is_refused(entries: tuple[float, ...]) -> None:
    with pytest.raises(MediaError) as caught:
        Orientation.of_matrix(matrix(*entries))
    assert caught.value.reason is Reason.UNDECODABLE
    assert "only quarter turns and mirrors are applied" in caught.value.detail


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(1), (96, 160)),
        (Fraction(80, 27), (284, 160)),  # 96 * 80 / 27 = 284.4
        (Fraction(8, 9), (96, 180)),
        (Fraction(640, 639), (96, 160)),  # what encoders write for a rounded size
        (Fraction(0), (96, 160)),
    ],
)
def test_pixels_become_square_by_growing(aspect: Fraction, size: tuple[int, int]) -> None:
    assert square_size(96, 160, aspect) == size


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("is_mirrored", [False, True], ids=["turned", "mirrored"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_clips_come_out_as_players_show_them(
    tmp_path: Path, reader: ReaderName, container: str, rotation: int, is_mirrored: bool
) -> None:
    """Bug seen: of a mirrored clip only the angle was read."""
    path = make_clip(
        tmp_path / f"clip.{container}",
        pictures=[corners()] * 3,
        rotation=rotation,
        is_mirrored=is_mirrored,
    )
    frames = decode_here(path, reader)
    picture = Image.open(BytesIO(frames.jpegs[1]))
    expected = Image.fromarray(np.ascontiguousarray(np.rot90(corners(), rotation // 90)))
    if is_mirrored:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert picture.size == expected.size == (frames.source_width, frames.source_height)
    assert seen(picture) == seen(expected)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize(
    ("aspect", "upright"), [(Fraction(2), (192, 64)), (Fraction(1, 2), (96, 128))]
)
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_pixels_that_are_not_square_are_made_so(
    tmp_path: Path,
    reader: ReaderName,
    container: str,
    aspect: Fraction,
    upright: tuple[int, int],
    rotation: int,
) -> None:
    """The aspect is that of the stored pixels: a turn comes after it."""
    path = make_clip(
        tmp_path / f"wide.{container}",
        pictures=[corners()] * 3,
        pixel_aspect=aspect,
        rotation=rotation,
    )
    frames = decode_here(path, reader, EVERY_FRAME)
    size = upright[::-1] if rotation else upright
    assert (frames.source_width, frames.source_height) == size
    picture = Image.open(BytesIO(frames.jpegs[0]))
    assert picture.size == size == (frames.width, frames.height)
    assert seen(picture) == ("GW/RB" if rotation else "RG/BW")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("order", ["rotate=180", "flip=horizontal"])
def test_a_clip_whose_pictures_themselves_say_how_they_are_turned_is_refused(
    tmp_path: Path, reader: ReaderName, order: str
) -> None:
    """Bug seen: decord showed such a clip upright in Matroska and upside down in MP4."""
    plain = make_clip(tmp_path / "plain.mp4", pictures=[corners()] * 3)
    path = tmp_path / "turned.mp4"
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        turn = BitStreamFilterContext(
            f"h264_metadata=display_orientation=insert:{order}", old.streams.video[0], stream
        )
        for packet in old.demux(video=0):
            for turned in turn.filter(packet if packet.size else None):
                turned.stream = stream
                new.mux(turned)
    with pytest.raises(MediaError, match="not its container, say how they are turned"):
        decode_here(path, reader)


@pytest.mark.parametrize("reader", READERS)
def test_the_pixel_cap_holds_for_square_pixels(tmp_path: Path, reader: ReaderName) -> None:
    path = make_clip(tmp_path / "wide.mp4", pictures=[corners()] * 3, pixel_aspect=Fraction(4))
    frames = decode_here(path, reader, FrameSpec("uniform:2", max_pixels=96 * 64))
    # 384 x 64 scaled by sqrt(6144 / 24576) = 1 / 2.
    assert (frames.width, frames.height) == (192, 32)


@pytest.mark.parametrize("reader", READERS)
def test_a_clip_whose_pixels_are_absurdly_wide_is_refused(
    tmp_path: Path, reader: ReaderName
) -> None:
    path = make_clip(
        tmp_path / "absurd.mkv", pictures=[corners(1024, 512)] * 2, pixel_aspect=Fraction(255)
    )
    with pytest.raises(MediaError) as caught:
        decode_here(path, reader)
    assert caught.value.reason is Reason.TOO_LARGE
