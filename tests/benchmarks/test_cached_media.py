"""Cached clips and pictures are read as if a decoder had stored them."""

from pathlib import Path

import pytest

from benchmarks.cached_media import CACHE, READER, write_cached
from media.sampling import FrameSpec
from schemas.questions import MediaRef
from train.data.frame_loader import FrameLoader

SPEC = FrameSpec("uniform:6", max_pixels=64 * 32)


@pytest.mark.parametrize(("name", "frames"), [("0.mp4", 6), ("0.png", 1)])
def test_a_loader_finds_what_was_never_decoded(tmp_path: Path, name: str, frames: int) -> None:
    write_cached(tmp_path, name, SPEC, size=(64, 32), seed=0)
    kind = "image" if frames == 1 else "video"
    with FrameLoader(tmp_path, spec=SPEC, cache_dir=tmp_path / CACHE, reader=READER) as loader:
        media = loader.load(MediaRef(kind=kind, path=name))
    assert media.pixels.shape == (frames, 64, 32, 3)
    assert media.times_seconds == tuple(0.5 * place for place in range(frames))
    assert media.pixels.std() > 0


def test_clips_differ_by_their_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cached(tmp_path, f"{seed}.mp4", SPEC, size=(64, 32), seed=seed)
    with FrameLoader(tmp_path, spec=SPEC, cache_dir=tmp_path / CACHE, reader=READER) as loader:
        one, other = (loader.load(MediaRef(kind="video", path=f"{n}.mp4")) for n in (0, 1))
    assert one.media_id != other.media_id
    assert (one.pixels != other.pixels).any()
