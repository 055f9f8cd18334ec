"""The rules for times: which are kept, which are moved, which are refused."""

from fractions import Fraction

import pytest

from media.frames import MediaError
from media.video import Packet, clip_duration, display_times, has_leading_pictures, shown_pts
from schemas.samples import Reason

MS = Fraction(1, 1000)


def packets(*pts: int | None, keyframes: tuple[int, ...] = (0,)) -> list[Packet]:
    return [Packet(stamp, i in keyframes, is_shown=True) for i, stamp in enumerate(pts)]


def refusal(*pts: int | None, keyframes: tuple[int, ...] = (0,)) -> MediaError:
    with pytest.raises(MediaError) as caught:
        display_times(shown_pts(packets(*pts, keyframes=keyframes)), MS)
    return caught.value


def test_frames_are_ordered_by_the_time_they_are_shown() -> None:
    """Stored as I P B B: shown as I B B P."""
    assert shown_pts(packets(0, 120, 40, 80)) == [0, 40, 80, 120]


def test_a_late_start_is_kept() -> None:
    assert display_times([8333, 8366, 8400], MS) == (8.333, 8.366, 8.4)


def test_a_negative_start_is_moved_to_zero() -> None:
    assert display_times([-200, -160, 40], MS) == (0.0, 0.04, 0.24)


def test_uneven_times_are_kept() -> None:
    assert display_times([0, 10, 500, 4000], MS) == (0.0, 0.01, 0.5, 4.0)


def test_a_missing_time_is_refused() -> None:
    error = refusal(0, None, 80)
    assert error.reason is Reason.BAD_TIMES
    assert "1 of 3 frames have no presentation time" in error.detail


def test_all_times_missing_is_refused() -> None:
    assert refusal(None, None).reason is Reason.BAD_TIMES


def test_two_frames_at_one_time_are_refused() -> None:
    error = refusal(0, 40, 40, 80)
    assert error.reason is Reason.BAD_TIMES
    assert "frames 1 and 2 are both shown at 0.04 s" in error.detail


def test_times_that_begin_anew_are_refused() -> None:
    """Two clips glued together: sorting would shuffle their frames into each other."""
    error = refusal(0, 40, 80, 10, 50, 90, keyframes=(0, 3))
    assert error.reason is Reason.BAD_TIMES
    assert "jump back" in error.detail


def test_times_too_fine_for_a_float_are_refused() -> None:
    with pytest.raises(MediaError, match="both shown at"):
        display_times([2**60, 2**60 + 1], Fraction(1, 3))


def test_a_stream_without_a_frame_to_show_has_no_frames() -> None:
    with pytest.raises(MediaError) as caught:
        shown_pts([Packet(0, True, is_shown=False)])
    assert caught.value.reason is Reason.NO_FRAMES


def test_frames_cut_away_by_an_edit_list_do_not_count() -> None:
    hidden = Packet(-80, True, is_shown=False)
    assert shown_pts([hidden, *packets(0, 40)]) == [0, 40]


def test_duration_ends_with_the_last_frame() -> None:
    assert clip_duration([0, 40, 80, 120], MS, 0) == 0.16
    assert clip_duration([8333, 8366, 8400], MS, 0) == pytest.approx(0.1005, abs=1e-12)


def test_a_single_frame_lasts_as_long_as_it_claims() -> None:
    assert clip_duration([500], MS, 40) == 0.04


def test_pictures_shown_before_their_key_frame_are_noticed() -> None:
    assert has_leading_pictures(packets(0, 120, 40, 160, 140, keyframes=(0, 3)))
    assert not has_leading_pictures(packets(0, 80, 40, 120, 200, 160, keyframes=(0, 3)))
