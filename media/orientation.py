"""How a stored picture becomes the one that players show: turned, mirrored, pixels made square.

A container's display matrix (ISO/IEC 14496-12, 6.2.2) may turn and mirror; an angle alone cannot
say "mirrored". Pixels that are not square are made so as browsers and mpv do: the picture grows
along one axis and shrinks along none.
"""

import struct
from dataclasses import dataclass, field
from fractions import Fraction
from math import atan2, degrees, hypot

from PIL import Image

from media.frames import MediaError
from schemas.samples import Reason

_TURNS = {
    1: Image.Transpose.ROTATE_90,
    2: Image.Transpose.ROTATE_180,
    3: Image.Transpose.ROTATE_270,
}
# Degrees by which a matrix may miss a quarter turn, as FFmpeg's own program allows.
_ANGLE_TOLERANCE = 1.0
_EXACT_ANGLE = 1e-5
# Encoders round sizes and write the rest into the pixels' aspect: less than this is no difference
# that anybody sees, and not worth another scaling.
_ASPECT_TOLERANCE = Fraction(1, 100)


@dataclass(frozen=True)
class Orientation:
    """First `quarter_turns` (0 to 3) counter-clockwise, then left and right swapped if mirrored.

    `is_exact`: the matrix misses the quarter turn by nothing.
    """

    quarter_turns: int = 0
    is_mirrored: bool = False
    is_exact: bool = field(default=True, compare=False)

    @classmethod
    def of_matrix(cls, matrix: bytes) -> "Orientation":
        """What a display matrix (nine 32-bit integers) asks for.

        Raises MediaError for a matrix that is no quarter turn; one of zeros asks for nothing.
        """
        a, b, _, c, d, _, _, _, _ = struct.unpack("=9i", matrix[:36])
        if not hypot(a, c) or not hypot(b, d):
            return cls()
        is_mirrored = a * d - b * c < 0
        # A point (x right, y down) is shown at (a x + c y, b x + d y). Undo the mirror first.
        x, y = (-a, -c) if is_mirrored else (a, c)
        angles = degrees(atan2(y, x)), degrees(atan2(-b, d))
        turns = round(angles[0] / 90)
        off = max(abs(_wrapped(angle - 90 * turns)) for angle in angles)
        if off > _ANGLE_TOLERANCE:
            raise MediaError(
                Reason.UNDECODABLE,
                f"it is to be shown turned by {angles[0]:.0f} degrees or slanted; only quarter "
                "turns and mirrors are applied: encode it upright",
            )
        return cls(turns % 4, is_mirrored, off < _EXACT_ANGLE)

    @property
    def angle_alone(self) -> "Orientation":
        """The turn that remains of it for a reader that takes a matrix for an angle."""
        misread = 2 if self.is_mirrored and self.quarter_turns % 2 == 0 else 0
        return Orientation((self.quarter_turns + misread) % 4)

    def after(self, done: "Orientation") -> "Orientation":
        """What is left to do to a picture that was turned (not mirrored) by `done` already."""
        return Orientation((self.quarter_turns - done.quarter_turns) % 4, self.is_mirrored)

    def apply(self, picture: Image.Image) -> Image.Image:
        """The picture, turned and mirrored."""
        if self.quarter_turns:
            picture = picture.transpose(_TURNS[self.quarter_turns])
        if self.is_mirrored:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return picture

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture of this size, once turned."""
        return (height, width) if self.quarter_turns % 2 else (width, height)


def square_size(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Width and height when each pixel, `pixel_aspect` times as wide as high, becomes square."""
    if pixel_aspect <= 0 or abs(pixel_aspect - 1) < _ASPECT_TOLERANCE:
        return width, height
    if pixel_aspect > 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def with_square_pixels(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture scaled to its size with square pixels, if it has not that size already."""
    if picture.size == size:
        return picture
    return picture.resize(size, Image.Resampling.BICUBIC)


def _wrapped(angle: float) -> float:
    return (angle + 180) % 360 - 180
