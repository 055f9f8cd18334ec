"""The grammar of observations, and how right an observation is."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.world.clips import FULL, TINY
from sandbox.world.facts import (
    Fact,
    compare_observation,
    facts_of,
    read_facts,
    say,
    say_all,
)
from sandbox.world.scenes import draw_clip, draw_still

TRUTH = (
    Fact("appears", 0, "red", "square", "top left"),
    Fact("appears", 2, "blue", "circle", "bottom right"),
)


def scored(text: str, truth: Sequence[Fact]) -> tuple[bool, float]:
    """Whether `text` states exactly `truth`, and the share of attributes that are right."""
    score = compare_observation(text, truth)
    return score.is_all_right, score.share


@given(seed=st.integers(0, 10**9), is_full=st.booleans(), is_still=st.booleans())
def test_what_is_said_of_a_clip_is_read_back(seed: int, is_full: bool, is_still: bool) -> None:
    config = FULL if is_full else TINY
    clip = (draw_still if is_still else draw_clip)(config, random.Random(seed))
    facts = facts_of(clip, config)
    assert read_facts(f"I see this. {say_all(facts)} So it is.") == facts
    assert scored(say_all(facts), facts) == (True, 1.0)


@pytest.mark.parametrize(
    "sentence",
    [
        "At t=2 a red square appears at the top.",
        "At t=2 a pink square appears at the top left.",
        "At t=2 a red square appears at the top left",
        "at some point a red square appears at the top left.",
        "The answer is B.",
        "At t=1 the video goes away.",
        "",
    ],
)
def test_other_sentences_state_nothing(sentence: str) -> None:
    assert read_facts(sentence) == ()


def test_one_wrong_colour_of_two_events_costs_one_eighth() -> None:
    # two statements with four attributes each, seven of eight right
    text = say(TRUTH[0]._replace(colour="green")) + " " + say(TRUTH[1])
    assert scored(text, TRUTH) == (False, 7 / 8)
    by_attribute = compare_observation(text, TRUTH).by_attribute
    assert by_attribute == {"time": (2, 2), "colour": (1, 2), "shape": (2, 2), "place": (2, 2)}


def test_leaving_out_costs_as_much_as_making_up() -> None:
    # one of two statements: 4 of 8; two right ones among four: 8 of 16
    assert scored(say(TRUTH[1]), TRUTH) == (False, 0.5)
    invented = [Fact("appears", 1, "green", "cross", "top right"), Fact("ends", 4)]
    assert scored(say_all([*TRUTH, *invented]), TRUTH) == (False, 0.5)


def test_simultaneous_statements_may_come_in_any_order() -> None:
    together = [fact._replace(t=1) for fact in TRUTH]
    assert scored(say_all(together[::-1]), together) == (True, 1.0)


def test_the_same_event_stated_twice_is_not_all_right() -> None:
    assert scored(say_all([*TRUTH, TRUTH[1]]), TRUTH) == (False, 2 / 3)


def test_an_empty_observation_is_worth_nothing_and_does_not_fail() -> None:
    assert scored("", TRUTH) == (False, 0.0)
    assert scored("", ()) == (True, 0.0)
