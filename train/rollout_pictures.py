"""Frames on a page: the temporal cells of a question's videos, as pictures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from schemas.pages import data_uri
from train.frame_loader import DecodedMedia

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WIDTH = 160  # pixels at most
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class ShownCell:
    """One temporal cell: its frames, one under another, and when it begins."""

    source: str
    time: str
    is_crucial: bool


def shown_cells(
    clips: Sequence[DecodedMedia], times: Sequence[float], crucial: Sequence[bool]
) -> tuple[ShownCell, ...]:
    """The temporal cells of a question's videos, one video after another, at `times` in seconds."""
    videos = [clip for clip in clips if clip.kind == "video"]
    if not videos or not times:
        return ()
    per_cell = _frames_per_cell(videos, len(times))
    pictures = [
        clip.pixels[first : first + per_cell]
        for clip in videos
        for first in range(0, len(clip), per_cell)
    ]
    return tuple(
        ShownCell(picture_uri(frames), f"{time:.1f} s", bool(crucial) and crucial[number])
        for number, (frames, time) in enumerate(zip(pictures, times, strict=True))
    )


def _frames_per_cell(videos: Sequence[DecodedMedia], num_cells: int) -> int:
    """How many frames the model merges into one cell: found from their numbers."""
    for per_cell in range(1, max(map(len, videos)) + 1):
        if sum(-(-len(clip) // per_cell) for clip in videos) == num_cells:
            return per_cell
    raise ValueError(
        f"{[len(clip) for clip in videos]} frames cannot make {num_cells} temporal cells"
    )


def picture_uri(frames: "NDArray[np.uint8]") -> str:
    """Frames [n, H, W, 3] one under another, as a data URI."""
    image = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return data_uri(buffer.getvalue(), "image/jpeg")
