"""How a clip travels to a vLLM server: the stored JPEGs as they are, and their times.

vLLM's own `video/jpeg` takes one list of times for all clips of a request, and whole numbers only.
So a clip is one line of JSON, `{"sizes": [bytes of each JPEG], "seconds": [time of each], "total":
seconds}`, and then the JPEGs one after another. `train.rollouts.vllm.plugin` reads it in the
server. Neither side encodes a picture again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

MEDIA_TYPE = "video/p2r"
LOADER = "p2r"
"""The name of the plugin, and of its video loader in the server."""


@dataclass(frozen=True)
class Clip:
    """A clip's frames as JPEG, with the seconds that the processor is to see."""

    jpegs: tuple[bytes, ...]
    seconds: tuple[float, ...]
    total_seconds: float
    """Frames times their mean distance: what `video_metadata` calls the number of frames."""


def packed(clip: Clip) -> bytes:
    """The bytes of a clip."""
    header = {
        "sizes": [len(jpeg) for jpeg in clip.jpegs],
        "seconds": clip.seconds,
        "total": clip.total_seconds,
    }
    return b"".join([json.dumps(header).encode(), b"\n", *clip.jpegs])


def unpacked(data: bytes) -> Clip:
    """The clip of these bytes. Raises ValueError for bytes that are none."""
    line, separator, rest = data.partition(b"\n")
    try:
        header = json.loads(line)
        sizes, seconds = list(map(int, header["sizes"])), tuple(map(float, header["seconds"]))
        total = float(header["total"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"a clip begins with a line of JSON, got {line[:60]!r}") from error
    if not separator or not sizes or len(sizes) != len(seconds) or sum(sizes) != len(rest):
        raise ValueError(
            f"a clip of {len(sizes)} frames and {len(seconds)} times names {sum(sizes)} bytes,"
            f" and holds {len(rest)}"
        )
    return Clip(tuple(_parts(rest, sizes)), seconds, total)


def _parts(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    parts, start = [], 0
    for size in sizes:
        parts.append(data[start : start + size])
        start += size
    return parts
