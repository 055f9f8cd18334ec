"""The frame cache on disk: content decides, damage is a miss, the limit holds."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.folders import TESTS

from media.cache import FrameCache
from media.frames import EncodedFrames
from media.sampling import FrameSpec

SPEC = FrameSpec("uniform:2")


def clip(name: str = "video-0a", size: int = 1000, reader: str = "decord") -> EncodedFrames:
    return EncodedFrames(
        media_id=name,
        kind="video",
        spec=SPEC,
        jpegs=(b"\xff\xd8" + bytes([1]) * size, b"\xff\xd8\n" + bytes([2]) * size),
        indices=(3, 9),
        times=(0.1, 1 / 3),
        width=4,
        height=3,
        source_width=8,
        source_height=6,
        num_source_frames=12,
        duration_seconds=0.4,
        reader=reader,
        start_seconds=0.05,
    )


def entries(folder: Path) -> list[Path]:
    return [path for path in (folder / "frames").rglob("*") if path.is_file()]


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    FrameCache(tmp_path).write(clip())
    assert FrameCache(tmp_path).read("video-0a", SPEC, "decord") == clip()


def test_other_content_spec_or_reader_is_a_miss(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path)
    cache.write(clip())
    assert cache.read("video-0b", SPEC, "decord") is None
    assert cache.read("video-0a", FrameSpec("uniform:3"), "decord") is None
    assert cache.read("video-0a", FrameSpec("uniform:2", max_pixels=9), "decord") is None
    assert cache.read("video-0a", SPEC, "pyav") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data + b"x",
        lambda data: data[:-500] + b"\0" + data[-499:],
        lambda data: data.replace(b"[3,9]", b"[3,8]"),
        lambda data: b"P2R frames 9\n" + data[13:],
        lambda data: b"{}",
    ],
    ids=["byte short", "half", "empty", "byte long", "flipped", "header", "version", "other"],
)
def test_a_damaged_entry_is_a_miss_and_is_written_anew(
    tmp_path: Path, damage, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FrameCache(tmp_path)
    cache.write(clip())
    (entry,) = entries(tmp_path)
    damaged = damage(entry.read_bytes())
    assert damaged != entry.read_bytes()
    entry.write_bytes(damaged)
    assert cache.read("video-0a", SPEC, "decord") is None
    assert "written anew" in caplog.text
    cache.write(clip())
    assert cache.read("video-0a", SPEC, "decord") == clip()


def test_an_entry_under_another_s_name_is_a_miss(tmp_path: Path) -> None:
    """Whole, but not what was asked for: a copy by hand."""
    cache = FrameCache(tmp_path)
    cache.write(clip("video-0a"))
    (entry,) = entries(tmp_path)
    entry.rename(entry.with_name("video-ba"))
    assert cache.read("video-ba", SPEC, "decord") is None


def test_the_limit_is_kept_and_the_least_recently_used_leave(tmp_path: Path) -> None:
    entry_bytes = 2300
    cache = FrameCache(tmp_path, max_bytes=10 * entry_bytes)
    for i in range(40):
        cache.write(clip(f"video-{i:02x}"))
        cache.read("video-00", SPEC, "decord")
        total = sum(path.stat().st_size for path in entries(tmp_path))
        assert total <= 10 * entry_bytes
    assert cache.read("video-00", SPEC, "decord") is not None
    assert cache.read("video-27", SPEC, "decord") is not None
    assert cache.read("video-01", SPEC, "decord") is None


def test_leftovers_of_killed_writers_are_removed_when_old(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, max_bytes=100_000)
    cache.write(clip())
    (entry,) = entries(tmp_path)
    old, new = entry.with_name(".a.tmp"), entry.with_name(".b.tmp")
    for path in (old, new):
        path.write_bytes(b"half an entry")
    os.utime(old, (time.time() - 7200,) * 2)
    cache.write(clip("video-0b"))
    assert not old.exists()
    assert new.exists()


def test_a_disk_that_takes_no_entry_is_logged_once_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FrameCache(tmp_path)
    (tmp_path / "frames" / SPEC.frame_spec_id).write_text("in the way")
    with caplog.at_level(logging.WARNING):
        cache.write(clip())
        cache.write(clip("video-0b"))
    assert len(caplog.records) == 1
    assert "no more frames are cached" in caplog.text


_WRITER = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_frame_cache import SPEC, clip
from media.cache import FrameCache
cache = FrameCache(Path({folder!r}), max_bytes=40_000)
hits = 0
for i in range(300):
    wanted = clip(f"video-{{i % 20:02x}}", size=100 * (i % 20) + 10)
    found = cache.read(wanted.media_id, SPEC, "decord")
    assert found in (None, wanted), found
    hits += found is not None
    if found is None or i % 7 == 0:
        cache.write(wanted)
print(hits)
"""


def test_processes_share_a_small_cache_without_a_broken_read(tmp_path: Path) -> None:
    """Three writers over one limit: entries appear, are replaced and evicted under each other."""
    here = Path(__file__).resolve().parent
    source = _WRITER.format(paths=[str(TESTS), str(here)], folder=str(tmp_path))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", source],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "damaged" not in err
        assert int(out) > 0
    # While one process evicts, the two others may each add an entry that it has not counted.
    total = sum(path.stat().st_size for path in entries(tmp_path))
    assert total <= 40_000 + 2 * 4_400
    assert not [path for path in entries(tmp_path) if path.suffix == ".tmp"]
