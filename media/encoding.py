"""From a picture to JPEG bytes: scaled to the pixel cap for caches and models, small for pages."""

from collections.abc import Sequence
from io import BytesIO
from math import sqrt
from typing import TYPE_CHECKING

from PIL import Image

from media.sampling import JPEG_QUALITY, FrameSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_THUMBNAIL_QUALITY = 80


def target_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """The largest size of at most `max_pixels` with this aspect; never larger than the source."""
    if width * height <= max_pixels:
        return width, height
    scale = sqrt(max_pixels / (width * height))
    # A picture thousands of times longer than wide ends one pixel wide, and would still be too
    # long.
    scaled_width = min(max(1, int(width * scale)), max_pixels)
    scaled_height = min(max(1, int(height * scale)), max_pixels // scaled_width)
    return min(scaled_width, max_pixels // scaled_height), scaled_height


def encode_frame(picture: Image.Image, spec: FrameSpec) -> bytes:
    """The JPEG of an RGB picture at the size that `spec` allows."""
    size = target_size(picture.width, picture.height, spec.max_pixels)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return buffer.getvalue()


def thumbnail(
    frames: "NDArray[np.uint8]", *, max_width: int | None = None, max_height: int | None = None
) -> bytes:
    """The JPEG of a frame [H, W, 3], or of frames [n, H, W, 3] one under another, for a page.

    It is scaled down, aspect kept, until it is within `max_width` and `max_height` pixels.
    """
    picture = Image.fromarray(frames.reshape(-1, *frames.shape[-2:]))
    scale = min(
        1.0,
        (max_width or picture.width) / picture.width,
        (max_height or picture.height) / picture.height,
    )
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", quality=_THUMBNAIL_QUALITY)
    return buffer.getvalue()


def small_jpeg(jpeg: bytes, *, max_height: int) -> bytes:
    """An encoded frame scaled down to at most `max_height` pixels, for a page."""
    picture = Image.open(BytesIO(jpeg))
    if picture.height <= max_height:
        return jpeg
    width = max(1, round(picture.width * max_height / picture.height))
    buffer = BytesIO()
    small = picture.convert("RGB").resize((width, max_height), Image.Resampling.BICUBIC)
    small.save(buffer, format="JPEG", quality=_THUMBNAIL_QUALITY)
    return buffer.getvalue()


def pixels_png(pixels: "NDArray[np.uint8]") -> bytes:
    """The PNG of a picture [H, W, 4]: red, green, blue and how opaque each pixel is."""
    buffer = BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def film_strip(jpegs: Sequence[bytes], *, height: int, gap: int = 4) -> bytes:
    """The PNG of encoded frames beside each other, all of one height, on nothing."""
    pictures = [Image.open(BytesIO(small_jpeg(jpeg, max_height=height))) for jpeg in jpegs]
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    strip = Image.new("RGBA", (width, max(picture.height for picture in pictures)))
    place = 0
    for picture in pictures:
        strip.paste(picture.convert("RGB"), (place, 0))
        place += picture.width + gap
    buffer = BytesIO()
    strip.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
