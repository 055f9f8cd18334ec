"""Draws at random what happens in a clip or a still: which things come when, where, and do what."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from sandbox.world.clips import COLOURS, PLACES, SHAPES, Clip, Thing, Word, WorldConfig


def draw_clip(config: WorldConfig, rng: random.Random, name: str = "clip") -> Clip:
    """A clip of `config`'s world. The same state of `rng` draws the same clip."""
    while True:
        things = _try_things(config, rng)
        if things and any(thing.is_momentary for thing in things):
            words = _words(config, rng)
            return Clip(name, "video", things, words, rng.randrange(2**31))


def draw_still(config: WorldConfig, rng: random.Random, name: str = "still") -> Clip:
    """One picture with at most one thing in each place."""
    places = rng.sample(PLACES, rng.randint(2, 4))
    things = tuple(
        Thing(colour, shape, place, 0, 1, **_looks(config, rng, 0))
        for (colour, shape), place in zip(_names(rng, len(places)), places, strict=True)
    )
    texts = rng.sample(config.words, rng.randint(1, 3)) if config.words else []
    words = tuple(
        Word(text, place, 0, 1)
        for text, place in zip(texts, rng.sample(PLACES, len(texts)), strict=True)
    )
    return Clip(name, "image", things, words, rng.randrange(2**31))


def _looks(config: WorldConfig, rng: random.Random, slot: int) -> dict[str, Any]:
    """Size and jitter in pixels. Where a place has two slots, both fit side by side."""
    scale, has_room = config.pixels / 56, config.slots_per_place == 1
    radius = rng.uniform(7, 10) if has_room else rng.uniform(4.5, 5.5)
    jitter = 3.0 if has_room else 1.0
    return {
        "slot": slot,
        "radius": round(radius * scale, 2),
        "dx": round(rng.uniform(-jitter, jitter) * scale, 2),
        "dy": round(rng.uniform(-jitter, jitter) * scale, 2),
    }


def _names(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Colours drawn independently, so that one thing's colour does not predict another's.

    Shapes are drawn among those that the colour has not had yet: names stay distinct.
    """
    names: list[tuple[str, str]] = []
    for _ in range(count):
        colour = rng.choice(COLOURS)
        left = [shape for shape in SHAPES if (colour, shape) not in names]
        if not left:
            return _names(rng, count)
        names.append((colour, rng.choice(left)))
    return names


def _words(config: WorldConfig, rng: random.Random) -> tuple[Word, ...]:
    """A lasting word and one that is shown for a single cell, at another place."""
    if not config.words:
        return ()
    texts, places = rng.sample(config.words, 2), rng.sample(PLACES, 2)
    lasts = rng.randint(config.cells // 2, config.cells)
    start, moment = rng.randint(0, config.cells - lasts), rng.randrange(config.cells)
    return (
        Word(texts[0], places[0], start, start + lasts),
        Word(texts[1], places[1], moment, moment + 1),
    )


def _try_things(config: WorldConfig, rng: random.Random) -> tuple[Thing, ...]:
    """One draw of a clip's things; nothing when they do not fit."""
    count = rng.randint(*config.num_things)
    least, most = config.num_momentary
    num_momentary = rng.randint(least, min(most, max(least, count - 1)))
    times = rng.sample(range(config.cells), count) if config.has_distinct_times else []
    names = _names(rng, count)
    taken: list[Thing] = []
    for i, (colour, shape) in enumerate(names):
        is_momentary = i < num_momentary
        thing = Thing(colour, shape, "", 0, 1, **_looks(config, rng, config.slots_per_place - 1))
        if is_momentary:
            enters = times[i] if times else rng.randrange(config.cells)
            thing = replace(thing, enters=enters, leaves=enters + 1)
        else:
            thing = replace(thing, slot=0)
            is_actor = i == num_momentary
            fitted = _lasting(config, rng, thing, times[i] if times else None, is_actor)
            if fitted is None:
                return ()
            thing = fitted
        placed = _placed(rng, thing, taken)
        if placed is None:
            return ()
        taken.append(placed)
    return tuple(sorted(taken, key=lambda thing: (thing.enters, thing.leaves, thing.name)))


def _lasting(
    config: WorldConfig, rng: random.Random, thing: Thing, enters: int | None, is_actor: bool
) -> Thing | None:
    """When a lasting thing comes and goes, and what it does if it is the clip's actor."""
    deed = rng.choice(config.deeds) if is_actor else "stays"
    times = rng.randint(1, 3) if deed == "blinks" else 1
    least = {"stays": 1, "moves": 3}.get(deed, 2 * times + 1)
    cells = max(least, rng.randint(*config.lasting_cells))
    if enters is None:
        enters = rng.randint(0, config.cells - cells)
    leaves = min(config.cells, enters + cells)
    if leaves - enters < 2:
        return None
    thing = replace(thing, enters=enters, leaves=leaves, deed=deed)
    if deed == "moves":
        # It leaves right after its move: no other cell shows where it went.
        moves = rng.randint(enters + 2, leaves - 1)
        return replace(thing, deed_cells=(moves,), leaves=moves + 1)
    if deed in ("hides", "blinks"):
        return replace(thing, deed_cells=_apart(rng, range(enters + 1, leaves - 1), times))
    return thing


def _apart(rng: random.Random, cells: Sequence[int], count: int) -> tuple[int, ...]:
    """`count` of `cells`, no two of them neighbours: between two blinks a thing is seen."""
    while True:
        picks = sorted(rng.sample(cells, count))
        if all(b - a > 1 for a, b in pairwise(picks)):
            return tuple(picks)


def _placed(rng: random.Random, thing: Thing, taken: list[Thing]) -> Thing | None:
    """`thing` at a place (and goal, if it moves) whose slot no other thing uses meanwhile."""
    used = {
        place
        for other in taken
        if other.slot == thing.slot and other.enters < thing.leaves and thing.enters < other.leaves
        for place in (other.place, other.moves_to)
    }
    places = [place for place in PLACES if place not in used]
    if len(places) < 1 + (thing.deed == "moves"):
        return None
    rng.shuffle(places)
    return replace(thing, place=places[0], moves_to=places[1] if thing.deed == "moves" else "")
