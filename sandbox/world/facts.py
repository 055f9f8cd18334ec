"""Facts about a clip: the grammar that states them, and how right an observation is.

    At t=2 a red square appears at the top left.     A red square is at the top left.  (stills)
    At t=4 the red square moves to the bottom right. At t=5 the red square leaves.
    At t=3 the red square hides.                     At t=4 the red square shows again.
    At t=3 the red square blinks.                    At t=8 the video ends.
    At t=3 the word KITE is shown at the top left.   At t=4 the word KITE goes away.
    The word KITE is written at the top left.  (stills)

Times are whole seconds since the clip's start. `read_facts` reads what `say` writes.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sandbox.world.clips import COLOURS, PLACES, SHAPES, Clip, Thing, WorldConfig

_VERBS = (
    *("appears", "moves", "hides", "shows", "blinks", "leaves"),
    *("word", "gone", "is", "written", "ends"),
)


class Fact(NamedTuple):
    """One statement. `verb` is its kind; the other fields are its attributes, or empty."""

    verb: str
    t: int = -1
    colour: str = ""
    shape: str = ""
    place: str = ""
    word: str = ""

    @property
    def name(self) -> str:
        """Colour and shape of its subject."""
        return f"{self.colour} {self.shape}"


_SENTENCES = {
    "appears": "At t={0.t} a {0.colour} {0.shape} appears at the {0.place}.",
    "moves": "At t={0.t} the {0.colour} {0.shape} moves to the {0.place}.",
    "hides": "At t={0.t} the {0.colour} {0.shape} hides.",
    "shows": "At t={0.t} the {0.colour} {0.shape} shows again.",
    "blinks": "At t={0.t} the {0.colour} {0.shape} blinks.",
    "leaves": "At t={0.t} the {0.colour} {0.shape} leaves.",
    "word": "At t={0.t} the word {0.word} is shown at the {0.place}.",
    "gone": "At t={0.t} the word {0.word} goes away.",
    "ends": "At t={0.t} the video ends.",
    "is": "A {0.colour} {0.shape} is at the {0.place}.",
    "written": "The word {0.word} is written at the {0.place}.",
}


def say(fact: Fact) -> str:
    """The sentence of `fact`."""
    return _SENTENCES[fact.verb].format(fact)


def say_all(facts: Sequence[Fact]) -> str:
    """The sentences of `facts`, joined by spaces."""
    return " ".join(map(say, facts))


_PLACE, _COLOUR, _SHAPE = "|".join(PLACES), "|".join(COLOURS), "|".join(SHAPES)
_STATEMENT = re.compile(
    rf"\bAt t=(?P<t>\d{{1,3}}) (?:"
    rf"the word (?P<word>[A-Z]+) "
    rf"(?:is (?P<shown>shown) at the (?P<at>{_PLACE})|goes (?P<gone>away))"
    rf"|the video (?P<ends>ends)"
    rf"|(?:a|the) (?P<colour>{_COLOUR}) (?P<shape>{_SHAPE}) "
    rf"(?:(?P<moved>appears at|moves to) the (?P<place>{_PLACE})"
    rf"|(?P<verb>hides|shows again|blinks|leaves)))\."
    rf"|\bA (?P<colour2>{_COLOUR}) (?P<shape2>{_SHAPE}) is at the (?P<place2>{_PLACE})\."
    rf"|\bThe word (?P<word2>[A-Z]+) is written at the (?P<at2>{_PLACE})\."
)


def _fact(match: re.Match[str]) -> Fact:
    part = match.groupdict(default="")
    if part["colour2"]:
        return Fact("is", -1, part["colour2"], part["shape2"], part["place2"])
    if part["word2"]:
        return Fact("written", -1, place=part["at2"], word=part["word2"])
    t = int(part["t"])
    if part["word"]:
        return Fact("word" if part["shown"] else "gone", t, place=part["at"], word=part["word"])
    if part["ends"]:
        return Fact("ends", t)
    verb = (part["verb"] or part["moved"]).split()[0]
    return Fact(verb, t, part["colour"], part["shape"], part["place"])


class FoundFact(NamedTuple):
    """A statement found in a text, and where: characters [start, end)."""

    fact: Fact
    start: int
    end: int


def find_facts(text: str) -> Iterator[FoundFact]:
    """All statements of the grammar in `text`, in order; other text is skipped."""
    return (FoundFact(_fact(match), *match.span()) for match in _STATEMENT.finditer(text))


def read_facts(text: str) -> tuple[Fact, ...]:
    """As `find_facts`, without the positions."""
    return tuple(found.fact for found in find_facts(text))


def facts_of(clip: Clip, config: WorldConfig) -> tuple[Fact, ...]:
    """Everything that can be seen in `clip`, in order of time."""
    if clip.kind == "image":
        things = [Fact("is", -1, t.colour, t.shape, t.place) for t in clip.things]
        words = [Fact("written", -1, place=w.place, word=w.text) for w in clip.words]
        return tuple(things + words)
    facts = [Fact("appears", t.enters, t.colour, t.shape, t.place) for t in clip.things]
    if config.tells_leaving:
        facts += [fact for thing in clip.things for fact in _later(thing, config)]
        for w in clip.words:
            facts.append(Fact("word", w.enters, place=w.place, word=w.text))
            if w.leaves < config.cells:
                facts.append(Fact("gone", w.leaves, word=w.text))
        facts.append(Fact("ends", config.cells))
    return tuple(sorted(facts, key=lambda f: (f.t, _VERBS.index(f.verb))))


def _later(thing: Thing, config: WorldConfig) -> list[Fact]:
    """What a thing does after it has appeared."""
    c, s = thing.colour, thing.shape
    facts = []
    for cell in thing.deed_cells:
        if thing.deed == "moves":
            facts.append(Fact("moves", cell, c, s, thing.moves_to))
        else:
            facts.append(Fact(thing.deed, cell, c, s))
        if thing.deed == "hides":
            facts.append(Fact("shows", cell + 1, c, s))
    if thing.leaves < config.cells:
        facts.append(Fact("leaves", thing.leaves, c, s))
    return facts


@dataclass(frozen=True)
class ObservationScore:
    """How right an observation is. `by_attribute`: time, colour, ... -> (right, in the truth)."""

    is_all_right: bool
    share: float
    by_attribute: dict[str, tuple[int, int]]


_ATTRIBUTES = {"t": "time", "colour": "colour", "shape": "shape", "place": "place", "word": "word"}


def _attributes(fact: Fact) -> dict[str, str | int]:
    """The attributes that a statement of this kind has."""
    return {
        name: value
        for field, name in _ATTRIBUTES.items()
        if (value := getattr(fact, field)) not in ("", -1)
    }


def _shared(said: Fact, true: Fact) -> float:
    """Share of a statement's attributes that are right; 0 between statements of different kinds."""
    if said.verb != true.verb:
        return 0.0
    a, b = _attributes(said), _attributes(true)
    return sum(a.get(key) == value for key, value in b.items()) / len(b)


def _aligned(said: Sequence[Fact], true: Sequence[Fact]) -> list[tuple[Fact, Fact]]:
    """Pairs of statements, in order on both sides, with the most attributes right."""
    best = [[0.0] * (len(true) + 1) for _ in range(len(said) + 1)]
    for i in reversed(range(len(said))):
        for j in reversed(range(len(true))):
            pair = best[i + 1][j + 1] + _shared(said[i], true[j])
            best[i][j] = max(pair, best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(said) and j < len(true):
        if best[i][j] == best[i + 1][j + 1] + _shared(said[i], true[j]):
            pairs.append((said[i], true[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _in_order(facts: Sequence[Fact]) -> list[Fact]:
    """By time, then by place: the order of simultaneous statements does not matter."""
    return sorted(facts, key=lambda f: (f.t, _VERBS.index(f.verb), f.place))


def compare_observation(text: str, truth: Sequence[Fact]) -> ObservationScore:
    """Compare the statements in `text` with everything that can be seen.

    `share` counts right attributes of statements aligned in order of time, divided by the larger
    number of statements: omissions cost as much as inventions. `is_all_right` means the same
    statements, in any order.
    """
    said, true = _in_order(read_facts(text)), _in_order(truth)
    pairs = _aligned(said, true)
    totals: dict[str, tuple[int, int]] = {}
    for fact in true:
        for key in _attributes(fact):
            right, total = totals.get(key, (0, 0))
            totals[key] = (right, total + 1)
    for a, b in pairs:
        if a.verb == b.verb:
            mine = _attributes(a)
            for key, value in _attributes(b).items():
                right, total = totals[key]
                totals[key] = (right + (mine.get(key) == value), total)
    most = max(len(said), len(true))
    share = sum(_shared(a, b) for a, b in pairs) / most if most else 0.0
    return ObservationScore(sorted(said) == sorted(true), share, totals)
