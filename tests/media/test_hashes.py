"""The hash of a file: content decides, it is remembered, and hashing ends."""

import hashlib
import os
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

from media.frames import MediaError
from media.hashes import FileHashes
from media.paths import SafeFile, find_file
from schemas.samples import Reason


def rested_file(tmp_path: Path, content: bytes = b"one") -> Path:
    path = tmp_path / "media" / "a.mp4"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    return path


def found(path: Path) -> SafeFile:
    return find_file(path.parent.resolve(), path.name, follow_symlinks=False)


def test_a_hash_is_remembered_by_path_size_and_time(tmp_path: Path) -> None:
    path = rested_file(tmp_path)
    first = FileHashes(tmp_path / "cache").hash(found(path), None)
    rested_file(tmp_path, b"two")  # same path, size and time: only a reader would notice
    assert FileHashes(tmp_path / "cache").hash(found(path), None) == first
    os.utime(path, ns=(10**18 + 1, 10**18 + 1))
    assert FileHashes(tmp_path / "cache").hash(found(path), None) != first


def test_a_hash_names_content_not_path(tmp_path: Path) -> None:
    path = rested_file(tmp_path)
    copy = path.with_name("b.mp4")
    copy.write_bytes(b"one")
    hashes = FileHashes(None)
    assert hashes.hash(found(path), None) == hashes.hash(found(copy), None)


def test_the_hash_of_a_file_just_written_is_not_remembered(tmp_path: Path) -> None:
    """It may be written to again within the clock's step."""
    path = rested_file(tmp_path)
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    first = FileHashes(tmp_path / "cache").hash(found(path), None)
    path.write_bytes(b"two")
    os.utime(path, ns=(now, now))
    assert FileHashes(tmp_path / "cache").hash(found(path), None) != first


@pytest.mark.parametrize("note", [b"", b"[]", b"7", b'["a", 1', b'["/x", 3, 5, "aa"]'])
def test_a_damaged_note_is_ignored(tmp_path: Path, note: bytes) -> None:
    path = rested_file(tmp_path)
    first = FileHashes(tmp_path / "cache").hash(found(path), None)
    (remembered,) = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    remembered.write_bytes(note)
    assert FileHashes(tmp_path / "cache").hash(found(path), None) == first


def sparse_file(tmp_path: Path) -> Path:
    """A file that takes an hour to read, and no room on the disk."""
    path = tmp_path / "sparse.mp4"
    path.touch()
    os.truncate(path, 1 << 42)
    return path


def test_hashing_ends_at_its_time_limit(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(MediaError) as caught:
        FileHashes(None, timeout_seconds=0.2).hash(found(sparse_file(tmp_path)), None)
    assert time.monotonic() - start < 3
    assert caught.value.reason is Reason.DECODE_TIMEOUT
    assert "of its 4,398,046,511,104 bytes were read within 0.2 s" in caught.value.detail
    assert "--decode-timeout-seconds" in caught.value.detail


def test_a_file_that_is_read_in_one_piece_is_not_late(tmp_path: Path) -> None:
    assert FileHashes(None, timeout_seconds=1e-9).hash(found(rested_file(tmp_path)), None)


def test_hashing_can_be_stopped(tmp_path: Path) -> None:
    hashes = FileHashes(None, timeout_seconds=5)
    with ThreadPoolExecutor(1) as thread:
        hashing = thread.submit(hashes.hash, found(sparse_file(tmp_path)), None)
        threading.Event().wait(0.1)
        assert not hashing.done()
        hashes.stop()
        assert isinstance(hashing.exception(timeout=10), CancelledError)


def test_a_file_of_several_pieces_has_the_hash_of_its_bytes(tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 9
    path = rested_file(tmp_path, content)
    expected = hashlib.blake2b(content, digest_size=16).hexdigest()
    assert FileHashes(None).hash(found(path), None) == expected
