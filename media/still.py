"""Still images: one upright RGB picture of any file that Pillow can be trusted with.

EXIF orientation is honoured, transparency is laid on white, 16-bit greys are scaled to 8 bits. Of
an animated GIF, PNG or WebP the first frame is taken: who wants the others names the file as a
video.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from media.frames import MediaError, check_source_size
from schemas.samples import Reason

# Formats whose decoders only decode: Pillow would also run Ghostscript on EPS. ("JPEG" includes
# the MPO of phones.)
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

_NUMBER = re.compile("[0-9]+")

# What Pillow's decoders raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)


def read_still(file: BufferedReader) -> Image.Image:
    """The picture in an open file. Its claimed size is checked before a pixel is decoded."""
    with _damage_is_undecodable(), Image.open(file, formats=_FORMATS) as image:
        check_source_size(*image.size)
        image.load()
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            kind = "floating-point" if image.mode == "F" else "32-bit"
            raise MediaError(
                Reason.UNDECODABLE,
                f"its pixels are {kind} numbers of unknown range: save it with 8 bits",
            )
        upright = ImageOps.exif_transpose(image)
        return _as_rgb(upright)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        levels = np.clip(np.asarray(image), 0, 65535)
        return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


@contextmanager
def _damage_is_undecodable() -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError as error:
        raise MediaError(
            Reason.TOO_LARGE,
            f"its header says {_NUMBER.findall(str(error))[0]} pixels: scale it down first",
        ) from error
    except _DAMAGE as error:
        words = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            words = f"it is none of {', '.join(_FORMATS)}"
        raise MediaError(Reason.UNDECODABLE, f"Pillow cannot read it: {words[:120]}") from error
