"""Where decoding may begin, read from the coded pictures themselves.

A container's key flags are claims: phones and screen recorders flag every sample, and encoders that
refresh pictures bit by bit flag recovery points. A decoder that begins at such a picture gives
rubbish, or the picture of another time, without an error. So a picture counts as a beginning only
where its own bytes say that nothing before it is needed:

- H.264 (ITU-T H.264, table 7-1): an IDR picture; H.265 (ITU-T H.265, table 7-1): a random access
  picture (IDR, CRA, BLA). Parameter sets that it uses must be in the container's header or with it.
- MPEG-4 part 2: an I-VOP; MPEG-1 and MPEG-2: an I picture behind a sequence header.
- VP8, VP9, AV1: a key frame, for AV1 one that is shown.
- Codecs that code each picture alone: every picture.

Of other codecs nothing is known, and their clips are decoded from the first picture on.
"""

from collections.abc import Callable, Iterator

_START_CODE = b"\0\0\1"

# (kinds of parameter sets, kinds of coded slices, those of pictures where decoding may begin)
_H264_KINDS = (frozenset({7, 8}), frozenset(range(1, 6)), frozenset({5}))
_H265_KINDS = (frozenset({32, 33, 34}), frozenset(range(32)), frozenset(range(16, 22)))


class RandomAccess:
    """Looks at the packets of one stream, all of them and in order.

    `codec` is FFmpeg's name of the format, `header` the container's private data for the decoder
    (extradata).
    """

    def __init__(self, codec: str, header: bytes, *, is_intra_only: bool) -> None:
        self._is_beginning: Callable[[memoryview], bool]
        if codec in ("h264", "hevc"):
            self._is_beginning = _Units(header, is_h265=codec == "hevc").is_beginning
        elif is_intra_only:
            self._is_beginning = lambda _: True
        else:
            self._is_beginning = _BY_CODEC.get(codec, lambda _: False)

    def is_beginning(self, packet: memoryview) -> bool:
        """Whether the bytes of this picture prove that decoding may begin with it."""
        return len(packet) > 0 and self._is_beginning(packet)


class _Units:
    """The network units of H.264 and H.265, and which parameter sets are known at a beginning."""

    def __init__(self, header: bytes, *, is_h265: bool) -> None:
        self._is_h265 = is_h265
        self._header = header
        # A header that begins with 1 is a record that also says how many bytes each length takes;
        # else start codes stand between the units.
        place_of_size = 21 if is_h265 else 4
        has_record = len(header) > place_of_size and header[0] == 1
        self._size = (header[place_of_size] & 3) + 1 if has_record else 0
        self._relies_on_earlier_sets = False

    def is_beginning(self, packet: memoryview) -> bool:
        sets, slices, beginnings = _H265_KINDS if self._is_h265 else _H264_KINDS
        own_sets: set[int] = set()
        has_new_sets = False
        is_beginning = False
        for unit in self._units(packet):
            kind = unit[0] >> 1 & 63 if self._is_h265 else unit[0] & 31
            if kind in sets:
                own_sets.add(kind)
                has_new_sets |= bytes(unit).rstrip(b"\0") not in self._header
            elif kind in slices:
                is_beginning = kind in beginnings
                break
        is_proved = is_beginning and (own_sets == sets or not self._relies_on_earlier_sets)
        self._relies_on_earlier_sets |= has_new_sets
        return is_proved and (own_sets == sets or not has_new_sets)

    def _units(self, packet: memoryview) -> Iterator[memoryview]:
        return _by_lengths(packet, self._size) if self._size else _by_start_codes(packet)


def _by_lengths(packet: memoryview, size: int) -> Iterator[memoryview]:
    position = 0
    while position + size < len(packet):
        start = position + size
        position = start + int.from_bytes(packet[position:start], "big")
        if position > start:
            yield packet[start:position]


def _by_start_codes(packet: memoryview) -> Iterator[memoryview]:
    data = bytes(packet)
    start = data.find(_START_CODE) + 3
    while 3 <= start < len(data):
        end = data.find(_START_CODE, start)
        yield packet[start : end if end >= 0 else len(data)]
        start = end + 3


def _mpeg4(packet: memoryview) -> bool:
    data = bytes(packet)
    picture = data.find(_START_CODE + b"\xb6") + 4
    return 4 <= picture < len(data) and data[picture] >> 6 == 0


def _mpeg2(packet: memoryview) -> bool:
    data = bytes(packet)
    sequence = data.find(_START_CODE + b"\xb3")
    picture = data.find(_START_CODE + b"\0") + 4
    is_whole = 0 <= sequence < picture and picture + 1 < len(data)
    return is_whole and data[picture + 1] >> 3 & 7 == 1


def _vp8(packet: memoryview) -> bool:
    return packet[0] & 1 == 0


def _vp9(packet: memoryview) -> bool:
    marker, profile = packet[0] >> 6, (packet[0] >> 4 & 1) << 1 | packet[0] >> 5 & 1
    # Behind the profile: a reserved bit (profile 3 only), "show an existing frame", "no key frame".
    return marker == 2 and packet[0] >> (1 if profile == 3 else 2) & 3 == 0


def _av1(packet: memoryview) -> bool:
    position = 0
    while position < len(packet):
        header = packet[position]
        kind, has_extension, has_size = header >> 3 & 15, header >> 2 & 1, header >> 1 & 1
        start = position + 1 + has_extension
        size, start = _leb128(packet, start) if has_size else (len(packet) - start, start)
        if kind in (3, 6):  # a frame header, alone or with its frame
            # Not "show an existing frame", frame type 0 (key), shown.
            return size > 0 and start < len(packet) and packet[start] >> 4 == 1
        position = start + size
    return False


def _leb128(packet: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(packet[position : position + 8]):
        value |= (byte & 127) << 7 * shift
        position += 1
        if byte < 128:
            break
    return value, position


_BY_CODEC: dict[str, Callable[[memoryview], bool]] = {
    "mpeg4": _mpeg4,
    "mpeg1video": _mpeg2,
    "mpeg2video": _mpeg2,
    "vp8": _vp8,
    "vp9": _vp9,
    "av1": _av1,
}
