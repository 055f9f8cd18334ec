"""Draws clips and questions so that answers are balanced: answers first, then clips.

Within each kind of question the answers are dealt like cards from a shuffled deck, and clips are
drawn so that every answer occurs. So no constant answer is a better guess than another.
"""

import heapq
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sandbox.world.clips import COLOURS, Clip, WorldConfig
from sandbox.world.facts import Fact, facts_of
from sandbox.world.question_kinds import QUESTION_KINDS
from sandbox.world.questions import (
    LETTERS,
    Query,
    balance_key,
    is_about_stills,
    option_values,
    queries_of,
)
from sandbox.world.scenes import draw_clip, draw_still
from schemas.questions import ProblemType

_PILOT = 200
_MOST_TRIES = 20_000
_DEED_KEYS = ("moves", "hides", "blinks")


class Drawn(NamedTuple):
    """A clip with a question about it and the question's answer in words."""

    clip: Clip
    facts: tuple[Fact, ...]
    query: Query
    value: str


def balance_keys(kind_name: str, config: WorldConfig) -> tuple[str, ...]:
    """All answers between which a kind is balanced."""
    kind = QUESTION_KINDS[kind_name]
    if kind.problem_type is ProblemType.FREE_FORM:
        return _DEED_KEYS if kind_name == "deed" else COLOURS
    options = option_values(Query(kind_name, COLOURS[: len(kind.arg_types)]), config)
    if options:
        return tuple(LETTERS[: len(options)])
    return tuple(kind.domain(config)) if kind.domain else ()


def _matches(clip: Clip, config: WorldConfig, kind: str, key: str) -> list[Drawn]:
    """The questions of `kind` about `clip` whose answer is `key`."""
    facts = facts_of(clip, config)
    found = queries_of(clip, config, kind, facts)
    return [Drawn(clip, facts, q, v) for q, v in found if balance_key(q, v, config) == key]


def draw_question(
    config: WorldConfig, rng: random.Random, kinds: Sequence[str] | None = None, name: str = "clip"
) -> Drawn:
    """A new clip with one question: the kind is drawn first, then the answer, then the clip."""
    kind = rng.choice(list(kinds or config.kinds))
    return _draw_for(config, rng, kind, rng.choice(balance_keys(kind, config)), name)


def _draw_for(config: WorldConfig, rng: random.Random, kind: str, key: str, name: str) -> Drawn:
    draw = draw_still if is_about_stills(kind) else draw_clip
    for _ in range(_MOST_TRIES):
        matches = _matches(draw(config, rng, name), config, kind, key)
        if matches:
            return rng.choice(matches)
    raise ValueError(
        f"no clip of the {config.name!r} world in {_MOST_TRIES} has a {kind!r} question whose"
        f" answer is {key!r}: take that answer out of the kind's domain"
    )


def draw_media(config: WorldConfig, *, clips: int, stills: int, seed: int) -> list[Clip]:
    """`clips` clips, then `stills` stills. Each is drawn for one answer of one kind, rarest first.

    So every answer occurs in some clip as soon as there are as many clips as answers; common
    answers need no clip of their own.
    """
    media: list[Clip] = []
    for stem, count, kinds in (
        ("clip", clips, config.kinds),
        ("still", stills, config.still_kinds),
    ):
        rng = random.Random(f"sandbox/{config.name}/{stem}/{seed}")
        pairs = _rarest_first(config, kinds) if count else []
        for i in range(count):
            kind, key = pairs[i % len(pairs)]
            media.append(_draw_for(config, rng, kind, key, f"{stem}_{i:05d}").clip)
    return media


def _rarest_first(config: WorldConfig, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """All (kind, answer) pairs, by how few of a pilot's clips have them."""
    rng = random.Random(f"sandbox/pilot/{config.name}")
    seen: Counter[tuple[str, str]] = Counter()
    for _ in range(_PILOT):
        clip = (draw_still if is_about_stills(kinds[0]) else draw_clip)(config, rng)
        facts = facts_of(clip, config)
        for kind in kinds:
            found = queries_of(clip, config, kind, facts)
            seen.update({(kind, balance_key(q, v, config)) for q, v in found})
    pairs = [(kind, key) for kind in kinds for key in balance_keys(kind, config)]
    return sorted(pairs, key=lambda pair: (seen[pair], pair))


class _Offer(NamedTuple):
    """A question that a clip allows; the heap's order prefers what was asked least."""

    uses: int
    load: int
    order: float
    clip_index: int
    drawn: Drawn


class Deck:
    """Deals any number of balanced questions about given clips, as a stream.

    A question dealt again is numbered ("Question 2: ...") and so differs from the first.
    """

    def __init__(
        self, media: Sequence[Clip], config: WorldConfig, kinds: Sequence[str], seed: int
    ) -> None:
        self._config = config
        self._rng = random.Random(f"sandbox/deck/{config.name}/{seed}")
        self._load = [0] * len(media)
        self._offers: dict[str, dict[str, list[_Offer]]] = {}
        for index, clip in enumerate(media):
            facts = facts_of(clip, config)
            for kind in kinds:
                for query, value in queries_of(clip, config, kind, facts):
                    key = balance_key(query, value, config)
                    offers = self._offers.setdefault(kind, {}).setdefault(key, [])
                    drawn = Drawn(clip, facts, query, value)
                    offers.append(_Offer(0, 0, self._rng.random(), index, drawn))
        for by_key in self._offers.values():
            for offers in by_key.values():
                heapq.heapify(offers)
        self.kinds = [kind for kind in kinds if kind in self._offers]

    def deal(self, count: int) -> Iterator[Drawn]:
        """`count` questions: kinds in turn, answers of a kind in shuffled rounds."""
        rounds: dict[str, list[str]] = {kind: [] for kind in self.kinds}
        for i in range(count):
            kind = self.kinds[i % len(self.kinds)]
            if not rounds[kind]:
                rounds[kind] = sorted(self._offers[kind])
                self._rng.shuffle(rounds[kind])
            yield self._take(self._offers[kind][rounds[kind].pop()])

    def _take(self, offers: list[_Offer]) -> Drawn:
        """The offer used least, of those the one whose clip was asked least."""
        while True:
            offer = heapq.heappop(offers)
            load = self._load[offer.clip_index]
            if load > offer.load:
                heapq.heappush(offers, offer._replace(load=load))
                continue
            self._load[offer.clip_index] += 1
            heapq.heappush(offers, offer._replace(uses=offer.uses + 1, load=load + 1))
            drawn = offer.drawn
            return drawn._replace(query=drawn.query._replace(variant=offer.uses))
