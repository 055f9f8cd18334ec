"""PyAV: lists the frames of every clip, and reads them where it is the chosen reader."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image

from media.frames import MAX_SOURCE_PIXELS, MediaError, check_source_size
from media.video import (
    Packet,
    VideoIndex,
    clip_duration,
    display_times,
    has_leading_pictures,
    shown_pts,
)
from schemas.samples import Reason

# A file is opened only as one of these. FFmpeg would also follow play lists, whatever a file's
# name: a row could then have any file of this machine read and sent to a server.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,gif,ogg,mxf,nut,dv,"
    "rm,apng"
)
_OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}

# Containers that seek to a key frame exactly, and those without presentation times.
_EXACT = frozenset({"mp4", "matroska"})
_TIMELESS = frozenset({"avi"})
# Containers that list nothing: only the claimed duration tells that a part is missing.
_UNLISTED = frozenset({"matroska", "flv", "asf"})

# Seeking empties the decoder's pipeline; a shorter way is decoded through.
_SHORTEST_JUMP_FRAMES = 48


def list_frames(path: str) -> VideoIndex:
    """The frames that a clip's container lists, after its claimed size is known to be sane.

    Reads all packets, but decodes only up to the first picture, which tells its true size and how
    it must be turned.
    """
    try:
        with av.open(path, options=_OPTIONS) as container:
            stream = _video_stream(container)
            return _index(container, stream)
    except FFmpegError as error:
        raise _undecodable(error) from error


def read_frames(path: str, index: VideoIndex, chosen: Sequence[int]) -> Iterator[Image.Image]:
    """The chosen frames (places in the order of display, increasing), upright, one at a time."""
    try:
        with av.open(path, options=_OPTIONS) as container:
            stream = _video_stream(container)
            frames = (
                _by_count(container, stream, chosen)
                if index.pts is None
                else _by_time(container, stream, index, index.pts, chosen)
            )
            for frame in frames:
                if (frame.width, frame.height) != (index.width, index.height):
                    raise MediaError(
                        Reason.UNDECODABLE,
                        f"its pictures change size, from {index.width}x{index.height} to "
                        f"{frame.width}x{frame.height}",
                    )
                yield turn_upright(_as_picture(frame), index.rotation)
    except FFmpegError as error:
        raise _undecodable(error) from error


def turn_upright(picture: Image.Image, rotation: int) -> Image.Image:
    """Turn a picture counter-clockwise by a multiple of 90 degrees."""
    turns = {
        90: Image.Transpose.ROTATE_90,
        180: Image.Transpose.ROTATE_180,
        270: Image.Transpose.ROTATE_270,
    }
    return picture.transpose(turns[rotation]) if rotation in turns else picture


def _video_stream(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        kinds = sorted({stream.type for stream in container.streams})
        raise MediaError(
            Reason.NO_FRAMES, f"it holds no video stream (only: {', '.join(kinds) or 'nothing'})"
        )
    context = stream.codec_context
    check_source_size(context.width, context.height)
    context.options = {"max_pixels": str(MAX_SOURCE_PIXELS)}
    context.thread_count = 1
    return stream


@dataclass
class _Listing:
    """What came by while all packets of a container were read."""

    packets: list[Packet] = field(default_factory=list)
    first_picture: av.VideoFrame | None = None
    last_duration: int = 0
    end_seconds: Fraction = Fraction(0)


def _list_packets(container: InputContainer, stream: VideoStream) -> _Listing:
    is_timeless = bool(_formats(container) & _TIMELESS)
    listing = _Listing()
    for packet in container.demux():
        if packet.size and packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            listing.end_seconds = max(listing.end_seconds, end)
        if packet.stream is not stream:
            continue
        if listing.first_picture is None:  # the last packet is empty: it flushes the decoder
            pictures = (frame for frame in packet.decode() if isinstance(frame, av.VideoFrame))
            listing.first_picture = next(pictures, None)
        if not packet.size:
            continue
        if packet.is_corrupt:
            raise MediaError(
                Reason.UNDECODABLE,
                f"its packet {len(listing.packets)} is damaged or cut off: truncated file?",
            )
        listing.packets.append(
            Packet(
                packet.dts if is_timeless else packet.pts,
                packet.is_keyframe,
                is_shown=not packet.is_discard,
            )
        )
        listing.last_duration = packet.duration or 0
    return listing


def _check_complete(container: InputContainer, stream: VideoStream, listing: _Listing) -> None:
    formats = _formats(container)
    claimed = Fraction(container.duration or 0, av.time_base)
    missing = claimed - listing.end_seconds
    if formats & _UNLISTED and missing > 1 and missing > claimed / 10:
        raise MediaError(
            Reason.UNDECODABLE,
            f"it is cut off: the last {float(missing):.1f} of {float(claimed):.1f} s are missing",
        )
    listed = len(stream.index_entries) if "mp4" in formats else 0
    if len(listing.packets) < listed:
        raise MediaError(
            Reason.UNDECODABLE,
            f"it is cut off: of {listed} frames, {len(listing.packets)} are there",
        )


def _index(container: InputContainer, stream: VideoStream) -> VideoIndex:
    listing = _list_packets(container, stream)
    _check_complete(container, stream, listing)
    packets = listing.packets
    pts = shown_pts(packets)
    time_base = stream.time_base or Fraction(0)
    times = display_times(pts, time_base)
    picture = listing.first_picture
    if picture is None:
        raise MediaError(
            Reason.NO_FRAMES, f"no picture comes out of its {stream.codec_context.name} stream"
        )
    check_source_size(picture.width, picture.height)
    rotation = round(picture.rotation) % 360
    place = {stamp: index for index, stamp in enumerate(pts)}
    keyframes = tuple(
        place[packet.pts]
        for packet in packets
        if packet.is_keyframe and packet.is_shown and packet.pts is not None
    )
    formats = _formats(container)
    return VideoIndex(
        container=container.format.name,
        codec=stream.codec_context.name,
        width=picture.width,
        height=picture.height,
        rotation=rotation if rotation % 90 == 0 else 0,
        times=times,
        pts=None if formats & _TIMELESS else tuple(pts),
        keyframes=keyframes,
        num_packets=len(packets),
        has_exact_seek=bool(formats & _EXACT)
        and keyframes[:1] == (0,)
        and all(packet.is_shown for packet in packets)
        and not has_leading_pictures(packets),
        duration_seconds=clip_duration(pts, time_base, listing.last_duration),
    )


def _formats(container: InputContainer) -> set[str]:
    return set(container.format.name.split(","))


def _by_count(
    container: InputContainer, stream: VideoStream, chosen: Sequence[int]
) -> Iterator[av.VideoFrame]:
    frames = enumerate(_sound_frames(container, stream))
    for wanted in chosen:
        frame = next((frame for index, frame in frames if index == wanted), None)
        if frame is None:
            raise _missing(wanted)
        yield frame


def _by_time(
    container: InputContainer,
    stream: VideoStream,
    index: VideoIndex,
    pts: Sequence[int],
    chosen: Sequence[int],
) -> Iterator[av.VideoFrame]:
    frames = _sound_frames(container, stream)
    reached = -1
    for wanted in chosen:
        if index.has_exact_seek:
            keyframe = index.keyframes[bisect_right(index.keyframes, wanted) - 1]
            if keyframe > reached + _SHORTEST_JUMP_FRAMES:
                container.seek(pts[keyframe], stream=stream)
                frames = _sound_frames(container, stream)
        frame = next((frame for frame in frames if (frame.pts or 0) >= pts[wanted]), None)
        if frame is None or frame.pts != pts[wanted]:
            raise _missing(wanted)
        reached = wanted
        yield frame


def _sound_frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise MediaError(
                Reason.UNDECODABLE, f"the {stream.codec_context.name} stream is damaged"
            )
        yield frame


def _as_picture(frame: av.VideoFrame) -> Image.Image:
    return Image.fromarray(frame.to_ndarray(format="rgb24"))


def _missing(wanted: int) -> MediaError:
    return MediaError(
        Reason.UNDECODABLE, f"the container lists frame {wanted}, the decoder does not give it"
    )


def _undecodable(error: FFmpegError) -> MediaError:
    words = error.strerror
    if isinstance(error, ArgumentError):  # what the list of containers is refused with
        words = "it is no video file, or in a container that is not read"
    return MediaError(Reason.UNDECODABLE, f"FFmpeg cannot read it: {words}")
