"""Clips and pictures of noise that are in a frame cache already, as if they had been decoded.

No file is encoded and none decoded, so neither decord nor PyAV is needed: what a loader finds under
`READER` in the cache is what it would have stored itself.
"""

from pathlib import Path

from media.encoding import encode_frame
from media.frames import EncodedFrames, Kind
from media.sampling import FrameSpec

CACHE = "cache"
READER = "pyav"
_SECONDS_PER_FRAME = 0.5


def write_cached(
    folder: Path, name: str, spec: FrameSpec, *, size: tuple[int, int], seed: int
) -> None:
    """A stand-in file in `folder` and its frames in the folder's `CACHE`: a picture if its name
    ends in .png, else a clip of as many frames as `spec` takes, of (height, width) pixels."""
    import numpy as np
    from PIL import Image

    from media.cache import FrameCache
    from media.hashes import FileHashes
    from media.paths import find_file

    draw = np.random.default_rng(seed)
    kind: Kind = "image" if name.endswith(".png") else "video"
    number = 1 if kind == "image" else spec.max_frames
    (folder / name).write_bytes(f"{kind} {seed}".encode())
    content = FileHashes(None).hash(find_file(folder, name, follow_symlinks=False), None)
    height, width = size
    jpegs = []
    for _ in range(number):
        picture = np.full((height, width, 3), draw.integers(0, 255, 3), np.uint8)
        picture[: height // 2, : width // 2] = draw.integers(0, 255, 3)
        jpegs.append(encode_frame(Image.fromarray(picture), spec))
    FrameCache(folder / CACHE).write(
        EncodedFrames(
            media_id=f"{kind}-{content}",
            kind=kind,
            spec=spec,
            jpegs=tuple(jpegs),
            indices=tuple(range(number)),
            times=tuple(_SECONDS_PER_FRAME * place for place in range(number)),
            width=width,
            height=height,
            source_width=width,
            source_height=height,
            num_source_frames=number,
            duration_seconds=0.0 if kind == "image" else _SECONDS_PER_FRAME * number,
            reader="pillow" if kind == "image" else READER,
        )
    )
