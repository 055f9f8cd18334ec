"""Clips on the wire: bytes and times come out as they went in, and other bytes are refused."""

import pytest

from train.rollouts.vllm.clip_format import Clip, packed, unpacked

CLIP = Clip((b"one", b"", b"th\nree"), (0.0, 1 / 3, 0.7), 1.05)


def test_frames_and_times_come_back_to_the_bit() -> None:
    assert unpacked(packed(CLIP)) == CLIP


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"[]\n", b'{"sizes": [2], "seconds": [0, 1], "total": 1}\nab']
)
def test_bytes_that_are_no_clip_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="a clip "):
        unpacked(data)


def test_a_clip_that_was_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="names 9 bytes, and holds 8"):
        unpacked(packed(CLIP)[:-1])
