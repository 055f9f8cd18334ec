"""What a container says about its video: `VideoIndex`, and the rules for times.

The rules of `display_times`, each with a test:
- Times are the container's presentation times, not `index / rate`: clips of uneven rate keep
  theirs.
- A clip that starts later than 0 keeps its start; one that starts before 0 is moved to start at 0,
  as players show it.
- AVI stores no presentation times but one slot of a constant rate for each picture, in the order of
  decoding: the i-th frame shown has the i-th used slot.
- Times of which some are missing, or two are equal, or that jump back, are refused: such a clip's
  frames cannot be told apart by time.
- The claimed duration of the file is not used: a clip ends when its last frame ends, which lasts as
  long as the others on average.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from media.frames import MediaError
from schemas.samples import Reason


@dataclass(frozen=True)
class Packet:
    """One coded picture, in the order of the file. `pts` counts the stream's time base."""

    pts: int | None
    is_keyframe: bool
    is_shown: bool


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a clip in the order of display, as its container lists them.

    `rotation` is how far its pictures must be turned counter-clockwise (0, 90, 180, 270) to stand
    upright. `pts` is None where a decoded frame carries no time of its own (AVI). `keyframes` are
    places in the order of display. `has_exact_seek` says that each stretch from one key frame to
    the next can be decoded alone.
    """

    container: str
    codec: str
    width: int
    height: int
    rotation: int
    times: tuple[float, ...]
    pts: tuple[int, ...] | None
    keyframes: tuple[int, ...]
    num_packets: int
    has_exact_seek: bool
    duration_seconds: float

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as a player shows them."""
        turned = self.rotation in (90, 270)
        return (self.height, self.width) if turned else (self.width, self.height)


def shown_pts(packets: Sequence[Packet]) -> list[int]:
    """The shown packets' presentation times in the order of display, in the stream's time base."""
    shown = [packet for packet in packets if packet.is_shown]
    if not shown:
        raise MediaError(Reason.NO_FRAMES, "its video stream holds no frame to show")
    stored = [packet.pts for packet in shown if packet.pts is not None]
    if len(stored) < len(shown):
        raise MediaError(
            Reason.BAD_TIMES,
            f"{len(shown) - len(stored)} of {len(shown)} frames have no presentation time",
        )
    # Whatever is stored before a key frame is also shown before it.
    latest = None
    for packet, stamp in zip(shown, stored, strict=True):
        if packet.is_keyframe and latest is not None and stamp <= latest:
            raise MediaError(
                Reason.BAD_TIMES, "its presentation times jump back: clips glued together?"
            )
        latest = stamp if latest is None else max(latest, stamp)
    return sorted(stored)


def display_times(pts: Sequence[int], time_base: Fraction) -> tuple[float, ...]:
    """Seconds at which each frame is shown, by the rules at the top of this file."""
    shift = min(pts[0], 0)
    times = tuple(float((stamp - shift) * time_base) for stamp in pts)
    for index, (earlier, later) in enumerate(pairwise(times)):
        if later <= earlier:
            raise MediaError(
                Reason.BAD_TIMES, f"frames {index} and {index + 1} are both shown at {later:.6g} s"
            )
    return times


def clip_duration(pts: Sequence[int], time_base: Fraction, only_frame: int) -> float:
    """Seconds from the first frame's start to the last one's end.

    `only_frame` is what a single frame claims to last, in the stream's time base.
    """
    if len(pts) == 1:
        return float(only_frame * time_base)
    return float((pts[-1] - pts[0]) * Fraction(len(pts), len(pts) - 1) * time_base)


def has_leading_pictures(packets: Sequence[Packet]) -> bool:
    """Whether pictures stored after a key frame are shown before it (an open group of pictures)."""
    keyframe_pts: int | None = None
    for packet in packets:
        if packet.pts is None:
            continue
        if packet.is_keyframe:
            keyframe_pts = packet.pts
        elif keyframe_pts is not None and packet.pts < keyframe_pts:
            return True
    return False
