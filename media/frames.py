"""What a file becomes: encoded frames, each with index and time, or an error with its reason."""

from dataclasses import dataclass
from typing import Literal

from media.sampling import FrameSpec
from schemas.samples import Reason

Kind = Literal["video", "image"]

# An 8192 x 8192 picture. Checked against the file's header, before any pixel is decoded.
MAX_SOURCE_PIXELS = 8192 * 8192


class MediaError(Exception):
    """A file that cannot be used, and why: `reason` from the closed list, `detail` for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}"


@dataclass(frozen=True)
class EncodedFrames:
    """The frames that `spec` takes of one file, upright, as JPEG, in order of time.

    `indices` count the frames of the file in the order of display; `times` are seconds on the
    file's own clock (see `media.video.display_times`), strictly increasing and never negative: a
    clip that starts at 8.3 s has its first frame at 8.3, which is also its `start_seconds`.
    `duration_seconds` runs from there to the end of its last frame. Where `spec` has a span, it
    runs from the first to the end of the last frame inside of that; all else is said of the file.
    `source_width` and `source_height` are the upright picture's, its pixels square, before it is
    scaled down. A still image is one frame at time 0 with duration 0.
    """

    media_id: str
    kind: Kind
    spec: FrameSpec
    jpegs: tuple[bytes, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    width: int
    height: int
    source_width: int
    source_height: int
    num_source_frames: int
    duration_seconds: float
    reader: str
    start_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.jpegs) == len(self.indices) == len(self.times) > 0:
            raise ValueError(
                f"each frame needs its bytes, index and time: got {len(self.jpegs)} JPEGs, "
                f"{len(self.indices)} indices and {len(self.times)} times"
            )

    def __len__(self) -> int:
        return len(self.jpegs)

    def __repr__(self) -> str:
        return (
            f"EncodedFrames({self.media_id}, {self.spec.policy}, {len(self)} of "
            f"{self.num_source_frames} frames, {self.width}x{self.height}, read by {self.reader})"
        )

    @property
    def num_bytes(self) -> int:
        """The size of the JPEGs together."""
        return sum(map(len, self.jpegs))

    def image_id(self, i: int) -> str:
        """Names file, encoding and frame of the i-th JPEG: what a call's key is made of."""
        return f"{self.media_id}/{self.spec.frame_spec_id}/{self.indices[i]}"


def check_source_size(width: int, height: int) -> None:
    """Refuse a picture whose header claims more than `MAX_SOURCE_PIXELS`."""
    if width * height > MAX_SOURCE_PIXELS:
        raise MediaError(
            Reason.TOO_LARGE,
            f"its header says {width}x{height} pixels; at most {MAX_SOURCE_PIXELS} are decoded: "
            "scale it down first",
        )
