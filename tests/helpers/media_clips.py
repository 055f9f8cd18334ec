"""Makes small clips of known content with PyAV, and reads them as a reference."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from media.decoding import DecodeJob, ReaderName, decode
from media.frames import EncodedFrames, Kind
from media.paths import FileState
from media.sampling import FrameSpec

Pixels = npt.NDArray[np.uint8]

EVERY_FRAME = FrameSpec("fps:1000,max=1000")


def numbered_picture(number: int, width: int = 96, height: int = 64) -> Pixels:
    """A picture that shows its number: 8 bits as black or white columns, a colour below."""
    picture = np.zeros((height, width, 3), np.uint8)
    for bit in range(8):
        left, right = bit * width // 8, (bit + 1) * width // 8
        picture[: height // 2, left:right] = 235 if number >> bit & 1 else 20
    picture[height // 2 :] = (40 + number % 100, 120, 200 - number % 100)
    return picture


def read_number(picture: Pixels) -> int:
    """What `numbered_picture` wrote."""
    height, width, _ = picture.shape
    row = picture[height // 4].mean(axis=-1)
    return sum(1 << bit for bit in range(8) if row[(2 * bit + 1) * width // 16] > 128)


def make_clip(
    path: Path,
    codec: str = "libx264",
    *,
    pictures: Sequence[Pixels] | None = None,
    num_frames: int = 30,
    rate: int = 30,
    times_ms: Sequence[int] | None = None,
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    rotation: float = 0,
    is_mirrored: bool = False,
    pixel_aspect: Fraction | None = None,
    container_format: str | None = None,
) -> Path:
    """A clip whose i-th frame is `numbered_picture(i)`, or of the given pictures.

    They are stored as given; the container says that they are to be turned by `rotation` degrees
    counter-clockwise and then mirrored, and how wide a pixel is over its height.
    """
    if pictures is None:
        pictures = [numbered_picture(i) for i in range(num_frames)]
    time_base = Fraction(1, rate) if times_ms is None else Fraction(1, 1000)
    with av.open(
        str(path), "w", format=container_format, options=container_options or {}
    ) as container:
        stream = container.add_stream(codec, rate=rate, options=codec_options or {})
        stream.height, stream.width, _ = pictures[0].shape
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        if rotation or is_mirrored:
            stream.set_display_rotation(rotation, hflip=is_mirrored)
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for i, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = i if times_ms is None else times_ms[i]
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def copy_packets(
    source: Path,
    path: Path,
    *,
    first: int = 0,
    all_flagged: bool = False,
    container_options: dict[str, str] | None = None,
) -> Path:
    """The clip without its packets before `first`, all claimed to be key frames if asked."""
    with (
        av.open(str(source)) as old,
        av.open(str(path), "w", options=container_options or {}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.size and number >= first:
                packet.stream = stream
                packet.is_keyframe |= all_flagged
                new.mux(packet)
    return path


def without_key_table(source: Path, path: Path) -> Path:
    """A copy of an MP4 file without its list of key frames: each picture counts as one then."""
    data = source.read_bytes()
    assert data.count(b"stss") == 1
    path.write_bytes(data.replace(b"stss", b"skip"))
    return path


def make_huge_clip(path: Path) -> Path:
    """One grey frame of 8208 x 8208 pixels, a little more than is decoded."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width = stream.height = 8208
        stream.pix_fmt = "yuvj420p"
        frame = av.VideoFrame(8208, 8208, "yuvj420p")
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_sound(path: Path) -> Path:
    """One second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode_here(
    path: Path,
    reader: ReaderName = "decord",
    spec: FrameSpec = EVERY_FRAME,
    kind: Kind = "video",
) -> EncodedFrames:
    """What a decoder process would make of the file, in this process."""
    real = path.resolve()
    return decode(
        DecodeJob(
            real_path=str(real),
            root=real.parent,
            state=FileState.of(real.stat()),
            media_id=f"{kind}-test",
            kind=kind,
            spec=spec,
            reader=reader,
        )
    )
