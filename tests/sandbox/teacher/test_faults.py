"""Systematic label noise: always the same mistakes, at the given rates; what the question names is
seen right.
"""

import random

import pytest

from sandbox.teacher.faults import confused, delayed, off_by_one, read_rates
from sandbox.world.balanced_draw import draw_question
from sandbox.world.clips import TINY
from sandbox.world.facts import Fact
from sandbox.world.questions import Query

GREEN_CIRCLE = Fact("appears", 1, "green", "circle", "top left")
RED_CROSS = Fact("appears", 2, "red", "cross", "top right")


def seen_by(share: float, query: Query, facts: tuple[Fact, ...], draws: int = 1) -> list[Fact]:
    rng = random.Random(0)
    return [fact for _ in range(draws) for fact in confused(query, facts, share, rng)]


def test_green_is_taken_for_yellow_and_a_circle_for_a_square_and_nothing_else() -> None:
    query = Query("colour", ("first",))
    assert seen_by(1.0, query, (GREEN_CIRCLE, RED_CROSS)) == [
        GREEN_CIRCLE._replace(colour="yellow", shape="square"),
        RED_CROSS,
    ]
    assert seen_by(0.0, query, (GREEN_CIRCLE, RED_CROSS)) == [GREEN_CIRCLE, RED_CROSS]


def test_it_happens_at_the_given_rate() -> None:
    seen = seen_by(0.6, Query("colour", ("first",)), (GREEN_CIRCLE,), draws=2000)
    # standard error 0.011
    assert sum(fact.colour == "yellow" for fact in seen) / 2000 == pytest.approx(0.6, abs=0.05)
    assert sum(fact.shape == "square" for fact in seen) / 2000 == pytest.approx(0.6, abs=0.05)


def test_what_the_question_names_is_seen_right() -> None:
    query = Query("when", ("green circle",))
    assert seen_by(1.0, query, (GREEN_CIRCLE,), draws=20) == [GREEN_CIRCLE] * 20


def test_two_things_never_become_one() -> None:
    there = GREEN_CIRCLE._replace(t=3, colour="yellow", shape="square")
    assert seen_by(1.0, Query("count", ("green",)), (GREEN_CIRCLE, there)) == [GREEN_CIRCLE, there]
    rng = random.Random(1)
    for _ in range(300):
        drawn = draw_question(TINY, rng)
        names = [fact.name for fact in confused(drawn.query, drawn.facts, 0.6, rng)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("query", "value", "concluded"),
    [
        (Query("when", ("red cross",)), "t=1", "t=2"),
        (Query("when", ("red cross",)), "t=3", "t=2"),
        (Query("count", ("red",)), "0", "1"),
        (Query("colour", ("first",)), "green", "green"),
        (Query("where", ("red cross",)), "top left", "top left"),
    ],
)
def test_times_and_numbers_are_concluded_one_off(query: Query, value: str, concluded: str) -> None:
    assert off_by_one(query, value, TINY) == concluded


def test_late_spans_are_a_second_late_and_stay_inside_of_the_clip() -> None:
    spans = [[0.0, 1.0], [1.0, 3.0], [TINY.cells - 1.0, float(TINY.cells)]]
    late = [[1.0, 2.0], [2.0, 4.0], [TINY.cells - 2.0, TINY.cells - 1.0]]
    assert delayed(spans, TINY) == late
    assert delayed([[0.0, float(TINY.cells)]], TINY) == [[0.0, float(TINY.cells)]]


def test_label_noise_has_rates_of_the_oracle() -> None:
    _, rates = read_rates("3,confusion=0.6,off_by_one=0.5", "oracle:3,confusion=0.6,off_by_one=0.5")
    assert (rates.confusion, rates.off_by_one) == (0.6, 0.5)
