"""What runs in a decoder process: one file in, its encoded frames out."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from media.frames import EncodedFrames, Kind, MediaError
from media.paths import FileState, opened
from media.sampling import FrameSpec, choose_frames, frames_inside, mean_distance
from schemas.samples import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from media.video import VideoIndex

ReaderName = Literal["decord", "pyav", "pillow"]


@dataclass(frozen=True)
class DecodeJob:
    """A file that was found safe and hashed, and what to make of it.

    `root` is the folder in which it must still lie when it is opened (None: symlinks are followed);
    `state` the one in which it was hashed.
    """

    real_path: str
    root: "Path | None"
    state: FileState
    media_id: str
    kind: Kind
    spec: FrameSpec
    reader: ReaderName


def import_readers(readers: Iterable[ReaderName]) -> None:
    """Import ahead what `decode` will use, so that no file's time limit pays for it."""
    import media.encoding
    import media.pyav_reader
    import media.still

    if "decord" in readers:
        import media.decord_reader  # noqa: F401


def decode(job: DecodeJob) -> EncodedFrames:
    """Read the frames that `job.spec` takes of the file. Raises MediaError."""
    with opened(job.real_path, job.root) as (descriptor, state):
        if state != job.state:
            raise MediaError(Reason.UNDECODABLE, "it was changed while it was read: run again")
        return (
            _decode_still(job, descriptor)
            if job.kind == "image"
            else _decode_video(job, descriptor)
        )


def _decode_still(job: DecodeJob, descriptor: int) -> EncodedFrames:
    from media.encoding import encode_frame, target_size
    from media.still import read_still

    with os.fdopen(os.dup(descriptor), "rb") as file:
        picture = read_still(file)
    width, height = target_size(*picture.size, job.spec.max_pixels)
    return EncodedFrames(
        media_id=job.media_id,
        kind="image",
        spec=job.spec,
        jpegs=(encode_frame(picture, job.spec),),
        indices=(0,),
        times=(0.0,),
        width=width,
        height=height,
        source_width=picture.width,
        source_height=picture.height,
        num_source_frames=1,
        duration_seconds=0.0,
        reader=job.reader,
    )


def _decode_video(job: DecodeJob, descriptor: int) -> EncodedFrames:
    from media.encoding import encode_frame, target_size
    from media.pyav_reader import list_frames

    # The open file itself, whatever its path names by now.
    own_path = f"/proc/self/fd/{descriptor}"
    path = own_path if os.path.exists(own_path) else job.real_path
    index = list_frames(path)
    chosen = choose_frames(job.spec, index.times)
    if not chosen:
        raise _nothing_inside(job.spec, index)
    pictures: Iterator[Image]
    if job.reader == "decord":
        from media import decord_reader

        pictures = decord_reader.read_frames(path, index, chosen)
    else:
        from media import pyav_reader

        pictures = pyav_reader.read_frames(path, index, chosen)
    jpegs = tuple(encode_frame(picture, job.spec) for picture in pictures)
    source_width, source_height = index.upright_size
    width, height = target_size(source_width, source_height, job.spec.max_pixels)
    return EncodedFrames(
        media_id=job.media_id,
        kind="video",
        spec=job.spec,
        jpegs=jpegs,
        indices=tuple(chosen),
        times=tuple(index.times[i] for i in chosen),
        width=width,
        height=height,
        source_width=source_width,
        source_height=source_height,
        num_source_frames=len(index.times),
        duration_seconds=_duration(job.spec, index),
        reader=job.reader,
        start_seconds=index.times[0],
    )


def _duration(spec: FrameSpec, index: "VideoIndex") -> float:
    """Seconds that the clip lasts; a part of a file ends where its last frame does."""
    if spec.span is None:
        return index.duration_seconds
    inside = frames_inside(spec.span, index.times)
    lasts = mean_distance(index.times) or index.duration_seconds
    return index.times[inside[-1]] - index.times[inside[0]] + lasts


def _nothing_inside(spec: FrameSpec, index: "VideoIndex") -> MediaError:
    assert spec.span is not None, "a whole file has a frame, or list_frames refuses it"
    start, end = spec.span
    return MediaError(
        Reason.NO_FRAMES,
        f"no frame begins between its start {start:g} and its end {end:g} s: the file's"
        f" {len(index.times)} frames begin between {index.times[0]:.3f} and"
        f" {index.times[-1]:.3f} s",
    )
