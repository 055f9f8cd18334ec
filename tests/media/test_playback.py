"""Which files browsers play is read from their bytes."""

from pathlib import Path

import pytest
from helpers.media_clips import make_clip

from media.playback import plays_in_browser


def plays(path: Path, root: Path | None = None, *, follow_symlinks: bool = False) -> bool:
    root = root or path.parent
    name = path.relative_to(root).as_posix()
    return plays_in_browser(root.resolve(), name, follow_symlinks=follow_symlinks)


@pytest.mark.parametrize(
    ("name", "codec", "is_played"),
    [
        ("a.mp4", "libx264", True),
        ("a.mov", "libx264", True),
        ("lies.avi.mp4", "mpeg4", False),
        ("hevc.mp4", "libx265", False),
        ("a.webm", "libvpx-vp9", True),
        ("a.mkv", "libx264", False),
        ("a.avi", "mpeg4", False),
    ],
)
def test_the_container_and_its_codec_decide(
    name: str, codec: str, is_played: bool, tmp_path: Path
) -> None:
    assert plays(make_clip(tmp_path / name, codec, num_frames=4)) is is_played


def test_the_name_of_a_file_decides_nothing(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", num_frames=4)
    assert plays(clip.rename(tmp_path / "a.bin"))
    text = tmp_path / "b.mp4"
    text.write_text("no clip, whatever it is called avc1")
    assert not plays(text)


@pytest.mark.parametrize("damage", [b"", b"\x00\x00\x00\x00moov", b"\x00\x00\x00\x01moov", b"moov"])
def test_a_damaged_file_is_not_played_and_ends(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00" + damage)
    assert not plays(path)


def test_what_may_not_be_opened_is_not_played(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "outside.mp4", num_frames=4)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.mp4").symlink_to(clip)
    assert not plays(root / "link.mp4", root)
    assert plays(root / "link.mp4", root, follow_symlinks=True)
    assert not plays(root / "missing.mp4", root)
