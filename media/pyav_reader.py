"""PyAV: lists the frames of every clip, and reads them where it is the chosen reader."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from PIL import Image

from media.frames import MAX_SOURCE_PIXELS, MediaError, check_source_size
from media.orientation import Orientation, with_square_pixels
from media.random_access import RandomAccess
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
# Containers that list nothing: only the claimed duration shows that a part is missing.
_UNLISTED = frozenset({"matroska", "flv", "asf"})

_MATRIX = "DISPLAYMATRIX"

# Seeking empties the decoder's pipeline; a shorter way is decoded through.
_SHORTEST_JUMP_FRAMES = 48

# Pictures about a video, which are no video: covers of music and films, thumbnails of chapters.
_NOT_THE_CLIP = Disposition.attached_pic | Disposition.timed_thumbnails


def list_frames(path: str) -> VideoIndex:
    """The frames that a clip's container lists, after its claimed size is known to be sane.

    Reads all packets, but decodes only up to the first picture, which tells its true size and how
    it must be turned and scaled.
    """
    try:
        with av.open(path, options=_OPTIONS) as container:
            stream = _video_stream(container)
            index = _index(container, stream)
        if index.orientation != Orientation():
            _check_turned_by_container(path)
        return index
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
                if _orientation(frame) != index.orientation:
                    raise MediaError(
                        Reason.UNDECODABLE, "its pictures are to be turned, not all in one way"
                    )
                upright = index.orientation.apply(_as_picture(frame))
                yield with_square_pixels(upright, index.upright_size)
    except FFmpegError as error:
        raise _undecodable(error) from error


def _video_stream(container: InputContainer) -> VideoStream:
    clips = [one for one in container.streams.video if not one.disposition & _NOT_THE_CLIP]
    if not clips:
        kinds = sorted({stream.type for stream in container.streams if stream.type != "video"})
        raise MediaError(
            Reason.NO_FRAMES, f"it holds no video stream (only: {', '.join(kinds) or 'nothing'})"
        )
    # Some covers are not marked as such: a track of one picture beside another one.
    moving = [clip for clip in clips if clip.frames != 1] or clips
    best = container.streams.best("video")
    stream = next((clip for clip in moving if clip is best), moving[0])
    context = stream.codec_context
    check_source_size(context.width, context.height)
    context.options = {"max_pixels": str(MAX_SOURCE_PIXELS)}
    context.thread_count = 1
    return stream


@dataclass
class _Listing:
    """What came by while all packets of a container were read."""

    packets: list[Packet] = field(default_factory=list)
    # Of each stream, by its place in the container.
    num_packets: Counter[int] = field(default_factory=Counter)
    # The decoder's header changes on the way: what follows cannot be decoded alone.
    has_new_header: bool = False
    first_picture: av.VideoFrame | None = None
    last_duration: int = 0
    # Of each stream, in its time base.
    ends: dict[int, int] = field(default_factory=dict)


def _list_packets(container: InputContainer, stream: VideoStream) -> _Listing:
    is_timeless = bool(_formats(container) & _TIMELESS)
    listing = _Listing()
    random_access = _random_access(container, stream)
    for packet in container.demux():
        if packet.size and packet.pts is not None:
            end = packet.pts + (packet.duration or 0)
            listing.ends[packet.stream_index] = max(listing.ends.get(packet.stream_index, 0), end)
        listing.num_packets[packet.stream_index] += bool(packet.size)
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
                is_beginning=random_access is not None
                and random_access.is_beginning(memoryview(packet)),
            )
        )
        listing.has_new_header |= packet.has_sidedata("new_extradata")
        listing.last_duration = packet.duration or 0
    return listing


def _shown_by_decoders(listing: _Listing, *, is_timeless: bool) -> list[Packet]:
    """The packets; those shown before the first picture that comes out of a decoder are not shown.

    A recording that begins in the middle of a group, or a cut through an open one, lacks what these
    pictures need.
    """
    first = None if listing.first_picture is None or is_timeless else listing.first_picture.pts
    if first is None:
        return listing.packets
    return [
        replace(packet, is_shown=False)
        if packet.pts is not None and packet.pts < first and packet.is_shown
        else packet
        for packet in listing.packets
    ]


def _random_access(container: InputContainer, stream: VideoStream) -> RandomAccess | None:
    """None where no reader will jump, whatever the pictures say."""
    if not _formats(container) & _EXACT:
        return None
    context = stream.codec_context
    codec = context.codec
    return RandomAccess(
        codec.canonical_name, context.extradata or b"", is_intra_only=codec.intra_only
    )


def _check_complete(container: InputContainer, stream: VideoStream, listing: _Listing) -> None:
    formats = _formats(container)
    claimed = Fraction(container.duration or 0, av.time_base)
    bases = {one.index: one.time_base or Fraction(0) for one in container.streams}
    missing = claimed - max((end * bases[i] for i, end in listing.ends.items()), default=0)
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
    formats = _formats(container)
    packets = _shown_by_decoders(listing, is_timeless=bool(formats & _TIMELESS))
    pts = shown_pts(packets)
    time_base = stream.time_base or Fraction(0)
    times = display_times(pts, time_base)
    picture = listing.first_picture
    if picture is None:
        raise MediaError(
            Reason.NO_FRAMES, f"no picture comes out of its {stream.codec_context.name} stream"
        )
    check_source_size(picture.width, picture.height)
    place = {stamp: index for index, stamp in enumerate(pts)}
    keyframes = tuple(
        place[packet.pts]
        for packet in packets
        if packet.is_beginning and packet.is_shown and packet.pts is not None
    )
    index = VideoIndex(
        container=container.format.name,
        codec=stream.codec_context.name,
        width=picture.width,
        height=picture.height,
        orientation=_orientation(picture),
        pixel_aspect=stream.sample_aspect_ratio
        or stream.codec_context.sample_aspect_ratio
        or Fraction(1),
        times=times,
        pts=None if formats & _TIMELESS else tuple(pts),
        keyframes=keyframes,
        num_packets=len(packets),
        has_exact_seek=bool(formats & _EXACT)
        and keyframes[:1] == (0,)
        and all(packet.is_shown for packet in packets)
        and all(packet.is_beginning for packet in packets if packet.is_keyframe)
        and not listing.has_new_header
        and not has_leading_pictures(packets),
        has_double=_has_double(container, stream, listing),
        duration_seconds=clip_duration(pts, time_base, listing.last_duration),
    )
    check_source_size(*index.upright_size)
    return index


def _has_double(container: InputContainer, stream: VideoStream, listing: _Listing) -> bool:
    return any(
        {other.width, other.height} == {stream.width, stream.height}
        and listing.num_packets[other.index] == len(listing.packets)
        for other in container.streams.video
        if other.index != stream.index
    )


def _orientation(picture: av.VideoFrame) -> Orientation:
    side_data: Any = picture.side_data  # its stub knows of motion vectors only
    if _MATRIX not in side_data:
        return Orientation()
    return Orientation.of_matrix(bytes(side_data[_MATRIX]))


def _check_turned_by_container(path: str) -> None:
    """Refuse pictures that carry their orientation themselves (SEI 47): it may change with each.

    A decoder that knows nothing of the container finds out.
    """
    with av.open(path, options=_OPTIONS) as container:
        stream = _video_stream(container)
        context = stream.codec_context
        alone = av.CodecContext.create(context.codec.name, "r")
        assert isinstance(alone, VideoCodecContext)  # its stream is one
        alone.extradata = context.extradata
        alone.thread_count = 1
        pictures = (frame for packet in container.demux(stream) for frame in alone.decode(packet))
        first = next(pictures, None)
        if first is not None and _orientation(first) != Orientation():
            raise MediaError(
                Reason.UNDECODABLE,
                "its pictures, not its container, say how they are turned: encode it upright",
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
