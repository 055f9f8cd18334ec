"""Which video files a browser plays: WebM, and MP4 with H.264, AV1 or VP9.

The file's own bytes decide, never its name: a page that promises a clip shows one.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from media.frames import MediaError
from media.paths import SafeFile, find_file, opened

_EBML = b"\x1a\x45\xdf\xa3"
_WEBM = b"webm"
_HEAD_BYTES = 64
_FILE_TYPE, _MOVIE = b"ftyp", b"moov"
_PLAYED = (b"avc1", b"avc3", b"av01", b"vp09")
_MOST_MOVIE_BYTES = 32_000_000
_BOX_HEAD, _LONG_SIZE = 8, 8
_MOST_BOXES = 1000


def plays_in_browser(root: Path, path: str, *, follow_symlinks: bool) -> bool:
    """Whether browsers play the file that `path` names under `root`, which has no symlinks itself.

    What may not be opened, or is not there, is not played.
    """
    try:
        file = find_file(root, path, follow_symlinks=follow_symlinks)
        return _is_played(file, None if follow_symlinks else root)
    except MediaError:
        return False


def _is_played(file: SafeFile, root: Path | None) -> bool:
    with opened(file.real_path, root) as (descriptor, _):
        head = os.pread(descriptor, _HEAD_BYTES, 0)
        if head.startswith(_EBML):
            return _WEBM in head
        if head[4:8] != _FILE_TYPE:
            return False
        for name, start, size in _boxes(descriptor):
            if name == _MOVIE:
                movie = os.pread(descriptor, min(size, _MOST_MOVIE_BYTES), start)
                return any(codec in movie for codec in _PLAYED)
    return False


def _boxes(descriptor: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of the content of each box of an MP4 file, without entering any."""
    end, place = os.fstat(descriptor).st_size, 0
    for _ in range(_MOST_BOXES):
        head = os.pread(descriptor, _BOX_HEAD + _LONG_SIZE, place)
        if len(head) < _BOX_HEAD:
            return
        size, start = int.from_bytes(head[:4], "big"), _BOX_HEAD
        if size == 1 and len(head) == _BOX_HEAD + _LONG_SIZE:
            size, start = int.from_bytes(head[_BOX_HEAD:], "big"), _BOX_HEAD + _LONG_SIZE
        elif size == 0:  # until the end of the file
            size = end - place
        if size < start:
            return
        yield head[4:8], place + start, size - start
        place += size
