"""Temporal grounding: intervals in real seconds, and the published integer-second reward."""

import time

import pytest
from helpers.scoring_questions import grounding_question
from hypothesis import given
from hypothesis import strategies as st

from judges.scoring.answer_score import score_answer, validate_gold
from judges.scoring.time_intervals import interval_iou, merged, published_iou, read_intervals

READ = {
    "4.4 to 5.2": [(4.4, 5.2)],
    "4.4-5.2": [(4.4, 5.2)],
    "4.4 - 5.2": [(4.4, 5.2)],
    "4.4–5.2": [(4.4, 5.2)],
    "4.4 — 5.2 s": [(4.4, 5.2)],
    "4.4s to 5.2s": [(4.4, 5.2)],
    "4.4 s - 5.2 s": [(4.4, 5.2)],
    "4 TO 5": [(4.0, 5.0)],
    "from 4 until 5 seconds": [(4.0, 5.0)],
    "between 4 and 5 seconds": [(4.0, 5.0)],
    "[4, 5]": [(4.0, 5.0)],
    "(4, 5)": [(4.0, 5.0)],
    "[[4, 5], [6, 7.5]]": [(4.0, 5.0), (6.0, 7.5)],
    "4 → 5": [(4.0, 5.0)],
    "4 ~ 5": [(4.0, 5.0)],
    ".5 to 1.": [(0.5, 1.0)],
    "0:04 to 0:05.5": [(4.0, 5.5)],
    "01:04-01:30": [(64.0, 90.0)],
    "1:00:00 to 1:00:01": [(3600.0, 3601.0)],
    "4 to 5, 8 to 9.5": [(4.0, 5.0), (8.0, 9.5)],
    "4 to 5 and 8 to 9.5": [(4.0, 5.0), (8.0, 9.5)],
    "4-5; 8-9": [(4.0, 5.0), (8.0, 9.0)],
    "- 4 to 5\n- 8 to 9": [(4.0, 5.0), (8.0, 9.0)],
    "The pancake flies from 4.4 to 5.2 seconds.": [(4.4, 5.2)],
    "5 to 4": [(5.0, 4.0)],
    "0 to 1e12": [(0.0, 1e12)],
}

REFUSED = {
    "": "nothing",
    ",": "only punctuation",
    "🙂": "no number",
    "5": "a lone number",
    "at 5 s": "a lone number",
    "4 to 5, 8": "a lone number at the end",
    "2-3-4": "two intervals or one",
    "4 5": "no connector",
    "4, 5": "a list of times",
    "4 and 5": "a list of times",
    "4 or 5": "a choice",
    "-5 to 3": "negative start",
    "5 to -3": "negative end",
    "2 to 3, -1 to 5": "negative second start",
    "1 to 2 minutes": "not in seconds",
    "1 min to 2 min": "not in seconds",
    "frames 4 to 5, frame 9": "a lone number",
    "1:75 to 2:00": "no such minute",
    "nan to inf": "no numbers",
    "0 to 1e999": "infinite",
    "0 to 1e16": "beyond any clip",
    "start 4, end 5": "no connector",
}


@pytest.mark.parametrize("text", READ)
def test_intervals_are_read_in_seconds(text: str) -> None:
    assert read_intervals(text) == tuple(READ[text])


@pytest.mark.parametrize("text", REFUSED, ids=[f"{why}-{text}" for text, why in REFUSED.items()])
def test_anything_unclear_makes_the_whole_answer_unreadable(text: str) -> None:
    assert read_intervals(text) is None
    assert score_answer(grounding_question("0 to 10"), text) == 0.0


@pytest.mark.parametrize(
    ("gold", "answer", "iou"),
    [
        ("4 to 8", "4 to 8", 1.0),
        ("4 to 8", "6 to 10", 1 / 3),  # 2 shared of 6
        ("4 to 8", "8 to 10", 0.0),  # they only touch
        ("4 to 8", "5 to 7", 0.5),
        ("0 to 2, 4 to 6", "1 to 5", 1 / 3),  # 2 s shared of 4 + 4 - 2
        ("0 to 4", "0 to 2, 2 to 4", 1.0),  # neighbours join
        ("0 to 4", "0 to 3, 1 to 4", 1.0),  # an overlap counts once
        ("0 to 4", "0 to 4, 0 to 4, 0 to 4", 1.0),  # and so does a repetition
        ("4 to 8", "8 to 4", 0.0),  # reversed covers nothing
        ("4 to 8", "5 to 5", 0.0),  # nor does a moment
        ("4 to 8", "4 to 8, 9 to 3", 1.0),
        ("0.4 to 0.8", "0.4 to 0.6", 0.5),  # below a second: no rounding
        ("0 to 1", "0 to 1e12", 1e-12),
    ],
)
def test_the_score_is_the_iou_of_the_unions_in_real_seconds(
    gold: str, answer: str, iou: float
) -> None:
    assert score_answer(grounding_question(gold), answer) == pytest.approx(iou, abs=1e-15)


times = st.floats(0, 100, allow_nan=False).map(lambda seconds: round(seconds, 1))
intervals = st.lists(st.tuples(times, times), max_size=6)


def counted_iou(left: list[tuple[float, float]], right: list[tuple[float, float]]) -> float:
    """The slow way: tenths of seconds, counted."""
    covered = [
        {tenth for start, end in side for tenth in range(round(start * 10), round(end * 10))}
        for side in (left, right)
    ]
    either = covered[0] | covered[1]
    return len(covered[0] & covered[1]) / len(either) if either else 0.0


@given(intervals, intervals)
def test_the_iou_equals_counting_tenths_of_seconds(
    left: list[tuple[float, float]], right: list[tuple[float, float]]
) -> None:
    # 1e-9: sums of a dozen floats below 100.
    assert interval_iou(left, right) == pytest.approx(counted_iou(left, right), abs=1e-9)
    assert interval_iou(left, right) == pytest.approx(interval_iou(right, left), abs=1e-12)
    assert 0.0 <= interval_iou(left, right) <= 1.0


@given(intervals)
def test_a_union_is_disjoint_ordered_and_its_own_union(side: list[tuple[float, float]]) -> None:
    union = merged(side)
    assert merged(union) == union
    flat = [moment for interval in union for moment in interval]
    assert flat == sorted(set(flat))


# Values printed by the released code for clue 13.8 to 29.8 and a clip of 90 s (100 flags).
PUBLISHED = {
    "13.8 to 29.8": 0.9999999994,
    "13 to 29": 0.9999999994,
    "13.8 TO 29.8": 0.9999999994,
    "14 to 30": 0.882352941,
    "13.8 to 29.8, 40 to 45": 0.761904762,
    "-5 to 20": 0.291666667,
    "0 to 90": 0.177777778,
    "13.8-29.8": 0.0,
    "13.8s to 29.8s": 0.0,
    "13.8  to 29.8": 0.0,
    "": 0.0,
    "29 to 13": 0.0,
    "8.4 to 8.9": 0.0,
    "95 to 99": 0.0,
    "100 to 200": 0.0,
}


@pytest.mark.parametrize("answer", PUBLISHED)
def test_integer_seconds_reproduce_the_published_rewards(answer: str) -> None:
    # 5e-10: the published values are printed with nine or ten digits.
    expected = pytest.approx(PUBLISHED[answer], abs=5e-10)
    question = grounding_question("13.8 to 29.8")
    assert score_answer(question, answer, integer_seconds=True) == expected
    assert published_iou("13.8 to 29.8", answer, horizon_seconds=100) == expected


def test_the_published_horizon_cuts_what_reaches_past_the_clip() -> None:
    # 16 s shared; the answer covers 13..99 with the horizon, 13..199 without.
    assert published_iou("13.8 to 29.8", "13 to 200", horizon_seconds=100) == pytest.approx(16 / 87)
    assert published_iou("13.8 to 29.8", "13 to 200") == pytest.approx(16 / 187)


def test_integer_seconds_and_real_seconds_differ_below_a_second() -> None:
    question = grounding_question("4.4 to 5.2")
    assert score_answer(question, "4.4 to 5.2", integer_seconds=True) == pytest.approx(1.0)
    assert score_answer(question, "4.0 to 5.9", integer_seconds=True) == pytest.approx(1.0)
    assert score_answer(question, "4.0 to 5.9") == pytest.approx(0.8 / 1.9)


@pytest.mark.parametrize("integer_seconds", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        "0 to 1e12",
        "0 to 999999999999",
        "0 to " + "9" * 100_000,
        "9" * 1_000_000,
        "9." * 500_000,
        "1." + "9" * 1_000_000,
        "0 to 1, " * 125_000,
        "- " * 500_000,
        "1:" * 500_000,
    ],
    ids=lambda answer: str(answer)[:12],
)
def test_huge_answers_neither_hang_nor_crash(answer: str, integer_seconds: bool) -> None:
    """Rasterising 1e12 seconds, or a quadratic pattern over 1 MB, would take hours."""
    started = time.process_time()
    score = score_answer(grounding_question("0 to 1"), answer, integer_seconds=integer_seconds)
    assert 0.0 <= score <= 1.0
    assert time.process_time() - started < 20


@pytest.mark.parametrize("gold", ["5", "soon", "8 to 4", "4 to 4", "-1 to 4"])
def test_a_gold_answer_without_an_interval_of_positive_length_is_named(gold: str) -> None:
    complaint = validate_gold(grounding_question(gold))
    assert complaint is not None
    assert repr(gold) in complaint


@pytest.mark.parametrize(
    "text",
    [
        *("frames 30 to 50", "Frames: 30 to 50", "from frame 30 to 50", "frame numbers [30, 50]"),
        *(
            "minutes 3 to 5",
            "minutes between 3 and 5",
            "3 to 5%",
            "3 to 5 (minutes)",
            "hours 1 - 2",
        ),
        *(
            "scenes 2 to 4",
            "frame no. 30 to 50",
            "time (frames): 30 to 50",
            "2 s to 3 s, frames 30 to 50",
        ),
    ],
)
def test_a_span_in_another_unit_is_unreadable_wherever_the_unit_stands(text: str) -> None:
    assert read_intervals(text) is None


def test_what_stands_in_front_may_be_any_other_word() -> None:
    assert read_intervals("seconds 3 to 5") == ((3.0, 5.0),)
    assert read_intervals("It happens from 3 to 5") == ((3.0, 5.0),)
    assert read_intervals("in the frame from 4 to 5 seconds") == ((4.0, 5.0),)
    assert read_intervals("clip A: between 3 and 5 s") == ((3.0, 5.0),)


@pytest.mark.parametrize(
    "text",
    [
        *("[30, 50] frames", "(30, 50) frames", '"frames": [30, 50]', "frames = [30, 50]"),
        *("frames **30 to 50**", "30 to 50** frames", "frames are 30 to 50", "frame range 30-50"),
        *("frames numbered 30 to 50", "frames from about 30 to 50", "30 to 50 [frames]"),
        *("3 to 5 milliseconds", "3 to 5, in minutes", "3 to 5 in minutes", "3 to 5 (normalized)"),
        *("3 - 5 Minuten", "3-5分钟", "3-5 мин", "第3-5帧", "3 - 5 minutos", "3-5분", "3〜5分"),
        *("3 to 5k", "3 to 5½", "3 to 5 thousand", "3 to 5 tenths of a second"),
        *("3 to 5 or 7 to 9", "either 3 to 5 or from 7 to 9", "not 3 to 5 but 7 to 9"),
    ],
)
def test_other_units_and_spans_to_choose_from_are_unreadable(text: str) -> None:
    assert read_intervals(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "3-5秒",
        "[3, 5] seconds",
        "from 3 to 5 the man runs",
        "The frames from 3 to 5 seconds",
        "3to5",
    ],
)
def test_seconds_are_read_beside_other_words(text: str) -> None:
    assert read_intervals(text) == ((3.0, 5.0),)
