"""Which frames of a clip are taken, and how they are stored."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

from schemas.serialization import content_id

MAX_PIXELS = 128 * 28 * 28
JPEG_QUALITY = 95

# Part of every frame spec's id. Change it when the same policy and pixel cap would give other
# bytes: other rules for finding, choosing, turning or timing frames, another filter, another
# encoder setting.
_ENCODING = f"jpeg-{JPEG_QUALITY}-4:2:0/bicubic/rules-2"

_UNIFORM = re.compile(r"uniform:([1-9][0-9]{0,5})")
_FPS = re.compile(r"fps:([0-9]{1,4}(?:\.[0-9]{1,6})?),max=([1-9][0-9]{0,5})")

# Containers round times (Matroska to milliseconds): what is due less than this share of the frame
# distance before a frame starts is due in that frame.
_ROUNDING = 0.05


@dataclass(frozen=True)
class FrameSpec:
    """A frame policy and a pixel cap. Frames are stored as JPEG (quality 95, 4:2:0).

    `uniform:N`: the clip is cut into N equal stretches of time, and of each the frame is taken that
    is on screen in its middle; a clip of at most N frames gives all of them. `fps:R,max=N`: the
    frames on screen at 0, 1/R, 2/R ... seconds after the first one; where these would be more than
    N, `uniform:N` decides.

    With a `span` (start and end in seconds on the file's own clock) the clip is what begins inside
    of it: frames at `start <= time < end`, and no others.

    A frame larger than `max_pixels` is scaled down (bicubic, antialiased), its aspect kept; no
    frame is ever scaled up.
    """

    policy: str = "uniform:16"
    max_pixels: int = MAX_PIXELS
    span: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", _canonical_policy(self.policy))
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1, got {self.max_pixels}")

    @classmethod
    def parse(cls, policy: str, max_pixels: int = MAX_PIXELS) -> "FrameSpec":
        """The spec that a command's options name; raises ValueError, which names the fault."""
        return cls(policy, max_pixels)

    def within(self, span: tuple[float, float] | None) -> "FrameSpec":
        """The same settings for a part of the file; None is the whole file."""
        return self if span == self.span else replace(self, span=span)

    @cached_property
    def frame_spec_id(self) -> str:
        """Content id of all that decides which bytes a file's frames become."""
        settings = {"policy": self.policy, "max_pixels": self.max_pixels, "encoding": _ENCODING}
        return content_id("frames", settings | ({"span": self.span} if self.span else {}))

    @property
    def max_frames(self) -> int:
        """The most frames that this policy takes of one clip."""
        return int(re.split("[:=]", self.policy)[-1])


def frames_inside(span: tuple[float, float] | None, times_seconds: Sequence[float]) -> range:
    """Places of the frames that begin inside of `span`, start included and end excluded.

    `times_seconds` is strictly increasing. Without a span these are all frames.
    """
    if span is None:
        return range(len(times_seconds))
    return range(*(bisect_left(times_seconds, end) for end in span))


def choose_frames(spec: FrameSpec, times_seconds: Sequence[float]) -> list[int]:
    """Indices of the frames that `spec` takes of a file whose frames start at `times_seconds`.

    `times_seconds` is strictly increasing and not empty. The indices are strictly increasing: no
    frame is ever taken twice. They are empty only where no frame begins inside of the spec's span.
    """
    inside = frames_inside(spec.span, times_seconds)
    times_seconds = times_seconds[inside.start : inside.stop]
    return [inside.start + place for place in _choose(spec, times_seconds)] if inside else []


def _choose(spec: FrameSpec, times_seconds: Sequence[float]) -> list[int]:
    """Places in `times_seconds`, which are the frames of one clip."""
    match = _FPS.fullmatch(spec.policy)
    if match is None:
        return _uniform(spec.max_frames, times_seconds)
    rate = float(match.group(1))
    mean = mean_distance(times_seconds)
    slack = _ROUNDING * mean
    first = times_seconds[0]
    chosen: list[int] = []
    for index, time in enumerate(times_seconds):
        is_last = index + 1 == len(times_seconds)
        following = time + mean if is_last else times_seconds[index + 1]
        # A frame is taken when a tick of the clock falls between its start and its end.
        tick = first + ceil((time - slack - first) * rate) / rate
        if index == 0 or tick < following - slack:
            chosen.append(index)
    if len(chosen) <= spec.max_frames:
        return chosen
    return _uniform(spec.max_frames, times_seconds)


def mean_distance(times_seconds: Sequence[float]) -> float:
    """The mean distance of neighbouring frames; 0 for a single frame."""
    return (times_seconds[-1] - times_seconds[0]) / max(1, len(times_seconds) - 1)


def _uniform(count: int, times: Sequence[float]) -> list[int]:
    if len(times) <= count:
        return list(range(len(times)))
    mean = mean_distance(times)
    stretch = (times[-1] + mean - times[0]) / count
    chosen: list[int] = []
    for k in range(count):
        middle = times[0] + (k + 0.5) * stretch + _ROUNDING * mean
        on_screen = bisect_right(times, middle) - 1
        # In a clip of uneven frame rate one frame may be on screen in two middles: the next one is
        # taken then, and enough frames are left for the stretches that follow.
        lowest = chosen[-1] + 1 if chosen else 0
        chosen.append(min(max(on_screen, lowest), len(times) - (count - k)))
    return chosen


def _canonical_policy(policy: str) -> str:
    if _UNIFORM.fullmatch(policy):
        return policy
    match = _FPS.fullmatch(policy)
    if match is None or float(match.group(1)) == 0:
        raise ValueError(
            f"{policy!r} is no frame policy: write uniform:N (N frames, evenly spread) or "
            "fps:R,max=N (R frames a second, at most N), for example uniform:16 or fps:2,max=64"
        )
    return f"fps:{float(match.group(1)):g},max={match.group(2)}"
