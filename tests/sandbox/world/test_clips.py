"""The scripted world: same seed same world, balanced answers, and frames that matter."""

import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sandbox.world.balanced_draw import Deck, Drawn, balance_keys, draw_media, draw_question
from sandbox.world.clips import COLOURS, FULL, TINY, Clip, WorldConfig
from sandbox.world.facts import facts_of
from sandbox.world.questions import (
    LETTERS,
    answer_value,
    balance_key,
    crucial_cells,
    crucial_facts,
    parse_query,
    problem_type,
    queries_of,
    question_row,
    video_question,
)
from sandbox.world.render import render
from sandbox.world.scenes import draw_clip, draw_still
from schemas.questions import ProblemType

pytestmark = pytest.mark.heavy

BOTH = pytest.mark.parametrize("config", [FULL, TINY], ids=lambda config: config.name)


def dealt(config: WorldConfig, count: int, *, seed: int = 0, clips: int = 60) -> list[Drawn]:
    media = draw_media(config, clips=clips, stills=clips // 3, seed=seed)
    return list(Deck(media, config, config.kinds + config.still_kinds, seed).deal(count))


@BOTH
def test_the_same_seed_draws_the_same_world_and_another_seed_another(config: WorldConfig) -> None:
    assert dealt(config, 120) == dealt(config, 120)
    assert dealt(config, 120) != dealt(config, 120, seed=1)


@BOTH
def test_a_clip_survives_its_truth_file(config: WorldConfig) -> None:
    rng = random.Random(3)
    for clip in (draw_clip(config, rng), draw_still(config, rng)):
        assert Clip.from_json(clip.to_json()) == clip
    assert WorldConfig.from_json(config.to_json()) == config


@BOTH
def test_answers_of_each_kind_differ_in_number_by_at_most_one(config: WorldConfig) -> None:
    counts: dict[str, Counter[str]] = {}
    for drawn in dealt(config, 900):
        key = balance_key(drawn.query, drawn.value, config)
        counts.setdefault(drawn.query.kind, Counter())[key] += 1
    assert set(counts) == {*config.kinds, *config.still_kinds}
    for kind, answers in counts.items():
        assert set(answers) == set(balance_keys(kind, config)), kind
        assert max(answers.values()) - min(answers.values()) <= 1, (kind, answers)


@BOTH
def test_single_drawn_questions_are_balanced_too(config: WorldConfig) -> None:
    rng, count = random.Random(5), 600
    answers = Counter(
        balance_key(drawn.query, drawn.value, config)
        for drawn in (draw_question(config, rng, ["where"]) for _ in range(count))
    )
    expected, deviation = count / 4, math.sqrt(count * 0.25 * 0.75)
    assert all(abs(answers[letter] - expected) < 4 * deviation for letter in LETTERS[:4])


def test_every_problem_type_is_asked() -> None:
    assert {problem_type(d.query, FULL) for d in dealt(FULL, 60)} == set(ProblemType)


@BOTH
def test_a_question_reads_back_as_what_it_asks(config: WorldConfig) -> None:
    for drawn in dealt(config, 400, clips=6):
        assert parse_query(drawn.query.text) == drawn.query
    assert parse_query("What is the colour of the sky?") is None


def test_questions_are_numbered_when_the_clips_run_out_of_them() -> None:
    rows = [
        question_row(d.query, d.value, d.clip, FULL, d.facts, i)
        for i, d in enumerate(dealt(FULL, 2000, clips=6))
    ]
    assert any(row["problem"].startswith("Question 2: ") for row in rows)
    assert len({video_question(row).question_id for row in rows}) == len(rows)


def _without(clip: Clip, name: str) -> Clip:
    """`clip` as if the thing or word of that name did not exist."""
    return replace(
        clip,
        things=tuple(thing for thing in clip.things if thing.name != name),
        words=tuple(word for word in clip.words if word.text != name),
    )


def _counterfactual(drawn: Drawn) -> Clip:
    """The clip with what was asked about taken out, and everything else as it was."""
    clip, facts, query, _ = drawn
    if query.kind in ("blinks", "deed"):
        still = [replace(t, deed="stays", deed_cells=(), moves_to="") for t in clip.things]
        actors = zip(clip.things, still, strict=True)
        return replace(clip, things=tuple(b if a.name in query.args else a for a, b in actors))
    if query.kind in ("count", "sum", "compare"):
        for thing in clip.things:
            clip = _without(clip, thing.name) if thing.is_momentary else clip
        return clip
    asked = crucial_facts(query, facts)
    stated = asked[-1] if query.kind in ("colour", "shape", "object") else asked[0]
    return _without(clip, stated.word or stated.name)


SINGLE = (
    *("colour", "shape", "object", "when", "where", "span", "word", "word_span"),
    *("blinks", "deed", "count", "sum", "compare"),
)


@BOTH
def test_what_is_asked_is_seen_in_the_crucial_frames_and_in_no_other(config: WorldConfig) -> None:
    """By pixels: taking it out of the clip changes the crucial frames and leaves all others."""
    kinds, seen = [kind for kind in SINGLE if kind in config.kinds], Counter[str]()
    media = draw_media(config, clips=24, stills=0, seed=2)
    for drawn in Deck(media, config, kinds, 2).deal(5 * len(kinds)):
        whole, rest = render(drawn.clip, config), render(_counterfactual(drawn), config)
        changed = np.flatnonzero((whole != rest).any(axis=(1, 2, 3)))
        cells = crucial_cells(drawn.query, drawn.clip, drawn.facts)
        assert tuple(changed) == config.frames_of(cells), drawn.query
        assert len(changed) < config.frames, drawn.query
        seen[drawn.query.kind] += 1
    assert set(seen) == set(kinds)


@pytest.mark.parametrize("kind", ["after", "gap"])
def test_questions_about_two_things_hinge_on_the_moments_when_both_appear(kind: str) -> None:
    rng = random.Random(4)
    for _ in range(20):
        clip, facts, query, _ = draw_question(FULL, rng, [kind])
        moments = {fact.t for fact in crucial_facts(query, facts)}
        assert moments == set(crucial_cells(query, clip, facts))


@BOTH
def test_the_answer_does_not_follow_from_what_the_other_seconds_show(config: WorldConfig) -> None:
    """Who misses the crucial seconds cannot say what began in them: at best it can be guessed."""
    lucky = asked = 0
    for clip, facts, query, value in dealt(config, 800):
        if clip.kind == "image":
            continue
        cells = crucial_cells(query, clip, facts)
        rest = tuple(fact for fact in facts if fact.t not in cells)
        asked += 1
        lucky += answer_value(query, rest, config) == value
    assert lucky / asked < 0.2


def test_the_other_things_of_a_clip_do_not_tell_the_colour_of_the_asked_one() -> None:
    """A guesser sees all things but the asked one and says the colour seen most, or least."""
    rng, count = random.Random(6), 1500
    hits = Counter[str]()
    for _ in range(count):
        clip, facts, query, value = draw_question(FULL, rng, ["colour"])
        asked = crucial_facts(query, facts)[-1]
        others = Counter(thing.colour for thing in clip.things if thing.name != asked.name)
        hits["most"] += value == max(COLOURS, key=lambda colour: others[colour])
        hits["least"] += value == min(COLOURS, key=lambda colour: others[colour])
    limit = count * 0.25 + 4 * math.sqrt(count * 0.25 * 0.75)
    assert hits["most"] < limit
    assert hits["least"] < limit


def test_things_never_cover_each_other_and_always_show_in_their_seconds() -> None:
    """Each thing changes pixels in all cells in which it is said to be seen, and in no other."""
    rng = random.Random(7)
    for _ in range(12):
        clip = draw_clip(FULL, rng)
        whole = render(clip, FULL)
        for thing in clip.things:
            if thing.deed != "stays":
                continue
            rest = render(_without(clip, thing.name), FULL)
            changed = np.flatnonzero((whole != rest).any(axis=(1, 2, 3)))
            assert tuple(changed) == FULL.frames_of(thing.visible_cells)


@BOTH
def test_every_answer_of_every_kind_occurs(config: WorldConfig) -> None:
    """Otherwise drawing for it would never end."""
    rng = random.Random(8)
    for kind in (*config.kinds, *config.still_kinds):
        draw = draw_still if kind.startswith("still_") else draw_clip
        found = set[str]()
        for _ in range(3000):
            clip = draw(config, rng)
            queries = queries_of(clip, config, kind, facts_of(clip, config))
            found |= {balance_key(query, value, config) for query, value in queries}
            if found == set(balance_keys(kind, config)):
                break
        assert found == set(balance_keys(kind, config)), kind
