"""Still images: one upright RGB picture of whatever a folder of images holds."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from helpers.media_clips import decode_here
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from media.encoding import target_size, thumbnail
from media.frames import EncodedFrames, MediaError
from media.sampling import FrameSpec
from schemas.samples import Reason

SPEC = FrameSpec()


def still(path: Path, spec: FrameSpec = SPEC) -> EncodedFrames:
    return decode_here(path, "pillow", spec, "image")


def colours(frames: EncodedFrames) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(frames.jpegs[0]))).astype(int)


def refusal(path: Path) -> MediaError:
    with pytest.raises(MediaError) as caught:
        still(path)
    return caught.value


def left_red_right_blue(width: int = 80, height: int = 48) -> Image.Image:
    image = Image.new("RGB", (width, height), (220, 30, 30))
    image.paste((30, 30, 220), (width // 2, 0, width, height))
    return image


def test_a_still_is_one_frame_at_time_zero(tmp_path: Path) -> None:
    left_red_right_blue().save(tmp_path / "a.png")
    frames = still(tmp_path / "a.png")
    assert (frames.indices, frames.times, frames.duration_seconds) == ((0,), (0.0,), 0.0)
    assert (frames.width, frames.height, frames.num_source_frames) == (80, 48, 1)
    assert frames.reader == "pillow"
    assert frames.image_id(0) == f"image-test/{SPEC.frame_spec_id}/0"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif", "avif", "ppm"])
def test_each_format_gives_its_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    left_red_right_blue().save(path)
    got = colours(still(path))
    assert np.abs(got[24, 20] - (220, 30, 30)).max() <= 12
    assert np.abs(got[24, 60] - (30, 30, 220)).max() <= 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    """The stored picture is what a camera held like that would store of the upright one."""
    turn_back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = left_red_right_blue()
    upright.paste((30, 200, 30), (0, 24, 40, 48))
    stored = upright if turn_back is None else upright.transpose(turn_back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    frames = still(tmp_path / "a.jpg")
    assert (frames.source_width, frames.source_height) == (80, 48)
    assert np.abs(colours(frames) - np.asarray(upright).astype(int)).mean() < 5


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 20, 40))
    image.save(tmp_path / "a.png")
    got = colours(still(tmp_path / "a.png"))
    assert got[20, 35].min() >= 250
    assert np.abs(got[20, 5] - (200, 0, 0)).max() <= 6


def test_a_transparent_palette_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.paste(1, (0, 0, 20, 40))
    image.save(tmp_path / "a.png", transparency=0)
    got = colours(still(tmp_path / "a.png"))
    assert got[20, 35].min() >= 250
    assert got[20, 5, 0] > 190


def test_grey_with_16_bits_keeps_its_levels(tmp_path: Path) -> None:
    """Bug seen: Pillow's own conversion clips to 255, and the picture is white."""
    levels = np.full((40, 40), 0x8000, np.uint16)
    levels[:, :20] = 0x2000
    Image.fromarray(levels).save(tmp_path / "a.png")
    got = colours(still(tmp_path / "a.png"))
    assert np.abs(got[20, 30] - 0x80).max() <= 2
    assert np.abs(got[20, 5] - 0x20).max() <= 2


@pytest.mark.parametrize("mode", ["L", "LA", "1", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (40, 40), "white").convert(mode).save(tmp_path / f"a.{suffix}")
    assert colours(still(tmp_path / f"a.{suffix}")).min() >= 250


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, kind: type[np.generic]) -> None:
    Image.fromarray(np.full((8, 8), 100_000).astype(kind)).save(tmp_path / "a.tiff")
    error = refusal(tmp_path / "a.tiff")
    assert error.reason is Reason.UNDECODABLE
    assert "8 bits" in error.detail


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    pictures = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / f"a.{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    got = colours(still(path))
    assert got[20, 20, 0] > 240
    assert got[20, 20, 1:].max() < 15


def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path) -> None:
    """20,000 x 20,000: 1.2 GB as RGB, 49 kB as a file."""
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png", compress_level=1)
    error = refusal(tmp_path / "a.png")
    assert error.reason is Reason.TOO_LARGE
    assert "400000000 pixels" in error.detail


def test_the_size_is_checked_before_anything_is_decoded(tmp_path: Path) -> None:
    """Decoding would find that the file holds less than its header claims, and say that."""
    left_red_right_blue().save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    assert refusal(tmp_path / "a.png").reason is Reason.TOO_LARGE


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    """Never half a picture and half grey."""
    left_red_right_blue(400, 300).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    assert refusal(tmp_path / "a.jpg").reason is Reason.UNDECODABLE


@pytest.mark.parametrize(
    "content", [b"hello\n" * 30, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_picture_is_refused_whatever_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    error = refusal(tmp_path / "a.png")
    assert error.reason is Reason.UNDECODABLE
    assert "none of JPEG" in error.detail


@given(st.integers(1, 30_000), st.integers(1, 30_000), st.integers(1, 300_000))
def test_a_scaled_size_fits_the_cap_and_never_grows(width: int, height: int, cap: int) -> None:
    scaled_width, scaled_height = target_size(width, height, cap)
    assert 1 <= scaled_width <= width
    assert 1 <= scaled_height <= height
    assert scaled_width * scaled_height <= cap
    if width * height <= cap:
        assert (scaled_width, scaled_height) == (width, height)


@given(st.integers(600, 8000), st.integers(600, 8000))
def test_a_scaled_size_keeps_its_aspect_to_a_pixel(width: int, height: int) -> None:
    scaled_width, scaled_height = target_size(width, height, SPEC.max_pixels)
    if width * height > SPEC.max_pixels:
        scale = (SPEC.max_pixels / (width * height)) ** 0.5
        assert width * scale - 1 <= scaled_width <= width * scale
        assert height * scale - 1 <= scaled_height <= height * scale


@pytest.mark.parametrize(
    ("shape", "limits", "size"),
    [
        ((40, 80, 3), {}, (80, 40)),
        ((40, 80, 3), {"max_height": 20}, (40, 20)),
        ((40, 80, 3), {"max_width": 20, "max_height": 30}, (20, 10)),
        ((3, 40, 80, 3), {"max_width": 40}, (40, 60)),
        ((1, 2000, 3), {"max_width": 100}, (100, 1)),
    ],
)
def test_a_thumbnail_is_scaled_down_to_its_limits(
    shape: tuple[int, ...], limits: dict[str, int], size: tuple[int, int]
) -> None:
    encoded = thumbnail(np.full(shape, 90, np.uint8), **limits)
    with Image.open(BytesIO(encoded)) as picture:
        assert (picture.size, picture.format) == (size, "JPEG")


def test_a_thumbnail_of_several_frames_has_them_one_under_another() -> None:
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    frames[1] = 200
    with Image.open(BytesIO(thumbnail(frames))) as picture:
        pixels = np.asarray(picture)
    assert pixels[:12].mean() < 20
    assert pixels[20:].mean() > 180
