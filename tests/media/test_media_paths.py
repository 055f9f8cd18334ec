"""Path safety: what a path may name, and that nothing is opened before it is known to be safe."""

import os
import socket
import time
from pathlib import Path

import pytest

from media.frames import MediaError
from media.paths import find_file, opened
from schemas.samples import Reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = (tmp_path / "media").resolve()
    (folder / "clips").mkdir(parents=True)
    (folder / "clips" / "a.mp4").write_bytes(b"a clip")
    (tmp_path / "outside.mp4").write_bytes(b"a secret")
    return folder


def refusal(root: Path, path: str, *, follow_symlinks: bool = False) -> MediaError:
    with pytest.raises(MediaError) as caught:
        find_file(root, path, follow_symlinks=follow_symlinks)
    return caught.value


def test_a_file_under_the_root_is_found(root: Path) -> None:
    file = find_file(root, "clips/a.mp4", follow_symlinks=False)
    assert file.real_path == str(root / "clips" / "a.mp4")
    assert file.state.size == 6


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", Reason.UNSAFE_PATH),
        ("//etc/passwd", Reason.UNSAFE_PATH),
        ("../outside.mp4", Reason.UNSAFE_PATH),
        ("clips/../../outside.mp4", Reason.UNSAFE_PATH),
        ("clips/../clips/a.mp4", Reason.UNSAFE_PATH),
        ("clips/..", Reason.UNSAFE_PATH),
        ("clips/a\0.mp4", Reason.UNSAFE_PATH),
        ("clips/\ud800.mp4", Reason.UNSAFE_PATH),
        ("x" * 5000, Reason.UNSAFE_PATH),
        ("clips/" + "x" * 300 + ".mp4", Reason.UNSAFE_PATH),
        ("clips/b.mp4", Reason.MISSING_FILE),
        ("clips/a.mp4/b.mp4", Reason.MISSING_FILE),
        ("..a/b.mp4", Reason.MISSING_FILE),
        ("clips", Reason.NOT_A_FILE),
        (".", Reason.NOT_A_FILE),
        ("clips/", Reason.NOT_A_FILE),
    ],
)
@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_each_bad_path_has_its_reason(
    root: Path, path: str, reason: Reason, follow_symlinks: bool
) -> None:
    error = refusal(root, path, follow_symlinks=follow_symlinks)
    assert error.reason is reason
    assert "\n" not in error.detail
    assert len(error.detail) < 6000
    error.detail.encode()  # can be stored


def test_an_empty_file_is_refused(root: Path) -> None:
    (root / "empty.mp4").touch()
    assert refusal(root, "empty.mp4").reason is Reason.EMPTY_FILE


def test_a_symlink_out_of_the_root_needs_permission(root: Path) -> None:
    (root / "link.mp4").symlink_to(root.parent / "outside.mp4")
    error = refusal(root, "link.mp4")
    assert error.reason is Reason.SYMLINK_OUTSIDE_ROOT
    assert "--follow-symlinks" in error.detail
    found = find_file(root, "link.mp4", follow_symlinks=True)
    assert found.real_path == str(root.parent / "outside.mp4")


def test_a_linked_folder_out_of_the_root_needs_permission(root: Path) -> None:
    (root / "folder").symlink_to(root.parent)
    assert refusal(root, "folder/outside.mp4").reason is Reason.SYMLINK_OUTSIDE_ROOT


def test_a_dangling_symlink_out_of_the_root_tells_nothing_of_its_target(root: Path) -> None:
    (root / "link.mp4").symlink_to("/nowhere/secret.mp4")
    assert refusal(root, "link.mp4").reason is Reason.SYMLINK_OUTSIDE_ROOT
    assert refusal(root, "link.mp4", follow_symlinks=True).reason is Reason.MISSING_FILE


def test_a_neighbour_whose_name_begins_like_the_root_is_outside(root: Path) -> None:
    (root.parent / "media2").mkdir()
    (root.parent / "media2" / "b.mp4").write_bytes(b"secret")
    (root / "link.mp4").symlink_to(root.parent / "media2" / "b.mp4")
    assert refusal(root, "link.mp4").reason is Reason.SYMLINK_OUTSIDE_ROOT


def test_a_symlink_within_the_root_is_followed(root: Path) -> None:
    (root / "link.mp4").symlink_to("clips/a.mp4")
    found = find_file(root, "link.mp4", follow_symlinks=False)
    assert found.real_path == str(root / "clips" / "a.mp4")


def test_a_loop_of_symlinks_is_one_refusal(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    assert refusal(root, "a").reason is Reason.MISSING_FILE


def test_a_fifo_is_refused_without_waiting_for_a_writer(root: Path) -> None:
    os.mkfifo(root / "pipe.mp4")
    start = time.monotonic()
    error = refusal(root, "pipe.mp4")
    assert error.reason is Reason.NOT_A_FILE
    assert "a FIFO" in error.detail
    assert time.monotonic() - start < 5


def test_a_socket_and_a_device_are_refused(root: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s.mp4"))
        assert refusal(root, "s.mp4").reason is Reason.NOT_A_FILE
    (root / "null.mp4").symlink_to("/dev/null")
    error = refusal(root, "null.mp4", follow_symlinks=True)
    assert error.reason is Reason.NOT_A_FILE
    assert "a device" in error.detail


def opening(real_path: Path, root: Path | None) -> Reason:
    with pytest.raises(MediaError) as caught, opened(str(real_path), root):
        pass
    return caught.value.reason


def test_a_file_that_became_a_fifo_does_not_block_its_reader(root: Path) -> None:
    """Checked as a file, swapped before it is opened."""
    (root / "clips" / "a.mp4").unlink()
    os.mkfifo(root / "clips" / "a.mp4")
    assert opening(root / "clips" / "a.mp4", root) is Reason.NOT_A_FILE


def test_a_file_that_became_a_symlink_is_not_followed(root: Path) -> None:
    (root / "clips" / "a.mp4").unlink()
    (root / "clips" / "a.mp4").symlink_to(root.parent / "outside.mp4")
    assert opening(root / "clips" / "a.mp4", root) is Reason.SYMLINK_OUTSIDE_ROOT


def test_a_folder_that_became_a_symlink_is_noticed_after_opening(root: Path) -> None:
    (root / "clips").rename(root.parent / "elsewhere")
    (root / "clips").symlink_to(root.parent / "elsewhere")
    assert opening(root / "clips" / "a.mp4", root) is Reason.SYMLINK_OUTSIDE_ROOT
    with opened(str(root / "clips" / "a.mp4"), None) as (_, state):
        assert state.size == 6


def test_no_descriptor_stays_open_after_a_refusal(root: Path) -> None:
    os.mkfifo(root / "pipe.mp4")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        opening(root / "pipe.mp4", root)
    assert len(os.listdir("/proc/self/fd")) == before
