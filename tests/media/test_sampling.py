"""Frame policies: which frames of a clip are taken."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.sampling import FrameSpec, choose_frames

steady = st.builds(
    lambda count, rate, start: [start + i / rate for i in range(count)],
    st.integers(1, 400),
    st.sampled_from([10, 24, 24000 / 1001, 25, 29.97, 30, 50, 60]),
    st.floats(0, 1e4),
)
uneven = st.lists(st.floats(0.001, 20), min_size=1, max_size=200).map(
    lambda gaps: list(accumulate(gaps))
)
policies = st.one_of(
    st.integers(1, 64).map(lambda n: f"uniform:{n}"),
    st.builds(
        lambda rate, most: f"fps:{rate},max={most}",
        st.sampled_from(["0.1", "0.5", "1", "2", "4", "29.97", "120"]),
        st.integers(1, 64),
    ),
)


@given(policies, st.one_of(steady, uneven))
def test_chosen_frames_are_distinct_ordered_and_in_range(policy: str, times: list[float]) -> None:
    chosen = choose_frames(FrameSpec(policy), times)
    assert chosen
    assert all(earlier < later for earlier, later in pairwise(chosen))
    assert chosen[0] >= 0
    assert chosen[-1] < len(times)
    assert len(chosen) <= FrameSpec(policy).max_frames


@given(st.integers(1, 64), st.one_of(steady, uneven))
def test_uniform_takes_n_frames_or_all(count: int, times: list[float]) -> None:
    chosen = choose_frames(FrameSpec(f"uniform:{count}"), times)
    assert len(chosen) == min(count, len(times))


@given(st.integers(1, 64), st.integers(1, 400))
def test_uniform_on_a_steady_clip_is_the_middle_of_each_nth_part(count: int, frames: int) -> None:
    chosen = choose_frames(FrameSpec(f"uniform:{count}"), [i / 25 for i in range(frames)])
    if frames > count:
        for k, index in enumerate(chosen):
            middle = (2 * k + 1) * frames / (2 * count)
            assert index - 0.0501 <= middle < index + 1  # 5 % early is on time


@pytest.mark.parametrize(
    ("frames", "expected"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2, 3])]
)
def test_a_clip_no_longer_than_n_gives_all_its_frames(frames: int, expected: list[int]) -> None:
    assert choose_frames(FrameSpec("uniform:4"), [i / 30 for i in range(frames)]) == expected


def test_uniform_is_even_in_time_not_in_frame_numbers() -> None:
    """Ten frames in the first second, then one every two seconds: bug seen, index-even choice."""
    times = [i / 10 for i in range(10)] + [2.0, 4.0, 6.0, 8.0]
    # The mean distance is 8 / 13: the clip ends at 8.62, middles are 1.08, 3.23, 5.38, 7.54.
    assert choose_frames(FrameSpec("uniform:4"), times) == [9, 10, 11, 12]


def test_fps_takes_the_frame_on_screen_at_each_tick() -> None:
    times = [i / 30 for i in range(90)]
    assert choose_frames(FrameSpec("fps:2,max=64"), times) == [0, 15, 30, 45, 60, 75]
    # 0.4 s ticks on a clip of 0.25 s frames: on screen at 0, 0.4, 0.8, 1.2, 1.6.
    slow = [i / 4 for i in range(8)]
    assert choose_frames(FrameSpec("fps:2.5,max=64"), slow) == [0, 1, 3, 4, 6]


def test_fps_counts_from_the_first_frame() -> None:
    times = [8.333 + i / 30 for i in range(60)]
    assert choose_frames(FrameSpec("fps:1,max=8"), times) == [0, 30]


def test_fps_beyond_the_clip_s_own_rate_takes_each_frame_once() -> None:
    assert choose_frames(FrameSpec("fps:120,max=64"), [i / 25 for i in range(10)]) == [*range(10)]


def test_fps_with_more_than_max_frames_is_uniform() -> None:
    times = [i / 30 for i in range(300)]
    assert choose_frames(FrameSpec("fps:2,max=5"), times) == [30, 90, 150, 210, 270]


@pytest.mark.parametrize("policy", ["uniform:16", "fps:1,max=4", "fps:0.5,max=1"])
def test_one_frame_is_chosen_once(policy: str) -> None:
    assert choose_frames(FrameSpec(policy), [3.5]) == [0]


@pytest.mark.parametrize(
    "policy",
    ["", "uniform", "uniform:0", "uniform:-1", "uniform:1.5", "fps:2", "fps:0,max=3", "fps:2,max=0",
     "fps:-1,max=3", "fps:nan,max=3", "every:3", "uniform:16 ", "UNIFORM:16"],
)  # fmt: skip
def test_an_unknown_policy_is_refused_with_an_example(policy: str) -> None:
    with pytest.raises(ValueError, match="for example uniform:16 or fps:2,max=64"):
        FrameSpec.parse(policy)


def test_a_pixel_cap_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        FrameSpec.parse("uniform:4", 0)


def test_spec_ids_tell_settings_apart_and_spellings_not() -> None:
    """An id is stored in caches and ledgers: the first one may change only with what it names."""
    assert FrameSpec().frame_spec_id == FrameSpec.parse("uniform:16", 128 * 28 * 28).frame_spec_id
    assert FrameSpec("fps:2.0,max=8") == FrameSpec("fps:2,max=8")
    specs = [
        FrameSpec(),
        FrameSpec("uniform:8"),
        FrameSpec(max_pixels=1),
        FrameSpec("fps:1,max=16"),
    ]
    assert len({spec.frame_spec_id for spec in specs}) == 4


def test_the_id_of_whole_files_is_that_of_existing_caches() -> None:
    assert FrameSpec("uniform:4").frame_spec_id == "frames-d6c4f885da5cc48258ccd43bc2b67f31"
    one, other = (FrameSpec("uniform:4").within((1.0, end)).frame_spec_id for end in (2.0, 3.0))
    assert len({FrameSpec("uniform:4").frame_spec_id, one, other}) == 3


@given(policies, steady, st.floats(0, 8), st.floats(0.01, 8))
def test_a_span_gives_the_frames_of_a_clip_that_holds_it_alone(
    policy: str, times: list[float], begins: float, lasts: float
) -> None:
    start = times[0] + begins
    end = start + lasts
    inside = [place for place, time in enumerate(times) if start <= time < end]
    found = choose_frames(FrameSpec(policy, span=(start, end)), times)
    if not inside:
        assert found == []
        return
    alone = choose_frames(FrameSpec(policy), [times[place] for place in inside])
    assert found == [inside[place] for place in alone]


def test_a_span_begins_with_its_start_and_ends_before_its_end() -> None:
    times = [0.0, 0.5, 1.0, 1.5, 2.0]
    assert choose_frames(FrameSpec("uniform:9", span=(0.5, 1.5)), times) == [1, 2]
    assert choose_frames(FrameSpec("uniform:9", span=(1.6, 9.0)), times) == [4]
    assert choose_frames(FrameSpec("uniform:9", span=(0.6, 0.9)), times) == []
