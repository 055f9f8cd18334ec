"""What a container reports of its video: `VideoIndex`, and the rules for times.

The rules of `display_times`, each with a test:
- Times are the container's presentation times, not `index / rate`: clips of uneven rate keep
  theirs.
- A clip that starts later than 0 keeps its start; one that starts before 0 is moved to start at 0,
  as players show it.
- AVI stores no presentation times but one slot of a constant rate for each picture, in the order of
  decoding: the i-th frame shown has the i-th used slot.
- Times of which some are missing, or two are equal, or that jump back, are refused: such a clip's
  frames cannot be distinguished by time. Pictures may be stored only a little out of order.
- The claimed duration of the file is not used: a clip ends when its last frame ends, which lasts as
  long as the others on average.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from media.frames import MediaError
from media.orientation import Orientation, square_size
from schemas.samples import Reason

# Decoders hold back at most 16 pictures (32 fields) to show them in order.
_LONGEST_REORDERING = 32


@dataclass(frozen=True)
class Packet:
    """One coded picture, in the order of the file. `pts` counts the stream's time base.

    `is_keyframe` is the container's claim. `is_beginning`: its bytes prove that decoding may begin
    with it (see `media.random_access`).
    """

    pts: int | None
    is_keyframe: bool
    is_shown: bool
    is_beginning: bool = False


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a clip in the order of display, as its container lists them.

    `width` and `height` are the stored pictures'; `orientation` and `pixel_aspect` (width over
    height of a pixel) say how they are shown. `pts` is None where a decoded frame carries no time
    of its own (AVI). `keyframes` are places in the order of display where decoding may begin, as
    the pictures' bytes prove. `has_exact_seek`: each stretch from one key frame to the next can be
    decoded alone, and the container claims no other key frames. `has_double`: the file holds
    another video track of this size and number of pictures.
    """

    container: str
    codec: str
    width: int
    height: int
    orientation: Orientation
    pixel_aspect: Fraction
    times: tuple[float, ...]
    pts: tuple[int, ...] | None
    keyframes: tuple[int, ...]
    num_packets: int
    has_exact_seek: bool
    has_double: bool
    duration_seconds: float

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as a player shows them."""
        return self.orientation.size(*square_size(self.width, self.height, self.pixel_aspect))


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
    _check_order(shown, stored)
    return sorted(stored)


def _check_order(shown: Sequence[Packet], stored: Sequence[int]) -> None:
    jumps_back = MediaError(
        Reason.BAD_TIMES, "its presentation times jump back: clips glued together?"
    )
    # Whatever is stored before a key frame is also shown before it. A claimed key frame counts
    # only where none is proved: some containers claim it of every picture.
    has_proofs = any(packet.is_beginning for packet in shown)
    latest = None
    for packet, stamp in zip(shown, stored, strict=True):
        is_keyframe = packet.is_beginning if has_proofs else packet.is_keyframe
        if is_keyframe and latest is not None and stamp <= latest:
            raise jumps_back
        latest = stamp if latest is None else max(latest, stamp)
    places = sorted(range(len(stored)), key=stored.__getitem__)
    if any(abs(place - index) > _LONGEST_REORDERING for index, place in enumerate(places)):
        raise jumps_back


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
