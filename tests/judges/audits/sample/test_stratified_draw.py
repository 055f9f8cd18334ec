"""Drawing: known probabilities, kept caps, and totals that are right on average."""

import random
from collections import Counter
from math import ceil, floor, sqrt
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judges.audits.sample.stratified_draw import (
    allocation,
    dependent_rounding,
    inclusion_probabilities,
)

pytestmark = pytest.mark.heavy

CAP = 2
# Stratum "no" lives in big videos only, so the cap cuts it most; "odd" is rare.
ROWS = (
    [("yes", f"single-{n}") for n in range(30)]
    + [("no", f"big-{n // 8}") for n in range(24)]
    + [("yes", f"big-{n // 4}") for n in range(12)]
    + [("odd", "big-0"), ("odd", "single-3"), ("odd", "single-4")]
)
STRATA = [stratum for stratum, _ in ROWS]
VIDEOS = [video for _, video in ROWS]
# What is to be estimated: much larger in big videos, so that a wrong weight shows.
VALUES = [3.0 + number % 5 if video.startswith("big") else 1.0 for number, (_, video) in
          enumerate(ROWS)]  # fmt: skip


def _chances(size: int = 18, least: int = 2) -> list[float]:
    wanted = allocation(Counter(STRATA), size, least)
    return inclusion_probabilities(STRATA, VIDEOS, wanted, CAP)


def _draws(chances: list[float], count: int) -> list[list[bool]]:
    return [
        dependent_rounding(VIDEOS, STRATA, chances, random.Random(seed)) for seed in range(count)
    ]


def _z(samples: list[float], truth: float) -> float:
    return (mean(samples) - truth) / (stdev(samples) / sqrt(len(samples)))


def test_a_weighted_total_is_right_on_average_and_an_unweighted_one_is_not() -> None:
    """Horvitz and Thompson (1952): the sum of value / probability has the total as its mean.

    Bug seen: probabilities of the strata alone, without what the cap on videos does to them: the
    estimate's mean was then 17 standard errors off. The naive mean, scaled up, is shown beside.
    """
    chances = _chances()
    draws = _draws(chances, 3000)
    weighted, naive = [], []
    for drawn in draws:
        chosen = [number for number, yes in enumerate(drawn) if yes]
        weighted.append(sum(VALUES[number] / chances[number] for number in chosen))
        naive.append(len(ROWS) * mean(VALUES[number] for number in chosen))
    assert abs(_z(weighted, sum(VALUES))) < 3.5
    assert abs(_z(naive, sum(VALUES))) > 10


def test_every_row_is_drawn_as_often_as_its_probability_says() -> None:
    """Bug seen: up and down steps exchanged, which kept every other property."""
    chances = _chances()
    count = 3000
    often = [sum(column) for column in zip(*_draws(chances, count), strict=True)]
    for times, chance in zip(often, chances, strict=True):
        spread = sqrt(count * chance * (1 - chance))
        assert abs(times - count * chance) <= 4.5 * spread + 1e-6


def test_no_video_gives_more_than_its_cap_and_every_stratum_what_it_should() -> None:
    chances = _chances()
    expected: Counter[str] = Counter()
    for stratum, chance in zip(STRATA, chances, strict=True):
        expected[stratum] += chance  # type: ignore[assignment]  # fractions
    for drawn in _draws(chances, 300):
        videos = Counter(video for video, yes in zip(VIDEOS, drawn, strict=True) if yes)
        strata = Counter(stratum for stratum, yes in zip(STRATA, drawn, strict=True) if yes)
        assert max(videos.values()) <= CAP
        for stratum, number in expected.items():
            assert floor(number + 1e-6) <= strata[stratum] <= ceil(number - 1e-6)


def test_probabilities_are_equal_within_a_stratum_where_no_cap_binds() -> None:
    strata = ["a"] * 6 + ["b"] * 2
    videos = [f"v{n}" for n in range(8)]
    chances = inclusion_probabilities(strata, videos, {"a": 3.0, "b": 1.0}, 1)
    assert chances == pytest.approx([0.5] * 8, abs=1e-9)


def test_rows_that_a_cap_cuts_are_made_up_for_by_the_stratum_s_other_rows() -> None:
    """Four rows of one video and four alone, four wanted: 1 from the video, 3 from the others."""
    chances = inclusion_probabilities(
        ["a"] * 8, ["big"] * 4 + ["s1", "s2", "s3", "s4"], {"a": 4.0}, 1
    )
    assert chances == pytest.approx([0.25] * 4 + [0.75] * 4, abs=1e-6)


def test_caps_that_leave_no_room_make_the_sample_smaller() -> None:
    chances = inclusion_probabilities(["a"] * 10, ["v"] * 6 + ["w"] * 4, {"a": 8.0}, 2)
    assert sum(chances) == pytest.approx(4.0)
    assert chances == pytest.approx([2 / 6] * 6 + [2 / 4] * 4)


def test_the_allocation_is_proportional_above_its_floor() -> None:
    """60 of 1,000: strata of 20 and 4 get their floor of 5 (or all 4); 51 are left for 976, which
    the other two share by size: 700 and 276 get 36.6 and 14.4, rounded to a whole 51."""
    wanted = allocation({"a": 700, "b": 276, "c": 20, "d": 4}, 60, 5)
    assert wanted == {"a": 37.0, "b": 14.0, "c": 5.0, "d": 4.0}


def test_a_sample_larger_than_the_population_is_the_population() -> None:
    assert allocation({"a": 3, "b": 1}, 200, 5) == {"a": 3.0, "b": 1.0}


def test_more_strata_than_rows_still_leaves_no_row_without_a_chance() -> None:
    """Bug seen: rounding fractions to whole numbers, which shut small strata out for good."""
    wanted = allocation({f"s{n}": 1 + n for n in range(100)}, 20, 5)
    assert sum(wanted.values()) == pytest.approx(20)
    assert min(wanted.values()) > 0.09


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), min_size=1, max_size=40),
    st.integers(1, 30),
    st.integers(1, 3),
    st.integers(0, 10_000),
)
def test_any_population_is_drawn_within_its_caps(
    rows: list[tuple[str, int]], size: int, cap: int, seed: int
) -> None:
    strata = [stratum for stratum, _ in rows]
    videos = [str(video) for _, video in rows]
    wanted = allocation(Counter(strata), size, 2)
    chances = inclusion_probabilities(strata, videos, wanted, cap)
    assert all(0 < chance <= 1 for chance in chances)
    drawn = dependent_rounding(videos, strata, chances, random.Random(seed))
    counts = Counter(video for video, yes in zip(videos, drawn, strict=True) if yes)
    assert max(counts.values(), default=0) <= cap
    for stratum in set(strata):
        expected = sum(c for s, c in zip(strata, chances, strict=True) if s == stratum)
        got = sum(yes for s, yes in zip(strata, drawn, strict=True) if s == stratum)
        assert floor(expected + 1e-6) <= got <= ceil(expected - 1e-6)
