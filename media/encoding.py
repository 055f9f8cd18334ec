"""From a picture to the bytes that are cached and sent: scaled to the pixel cap, as JPEG."""

from io import BytesIO
from math import sqrt

from PIL import Image

from media.sampling import JPEG_QUALITY, FrameSpec


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
