"""Faults of a scripted teacher's traces: how often each occurs, and how it is made.

Most are random, independent per trace. `confused`, `off_by_one` and `delayed` are systematic label
noise: always the same mistake, so that a model trained on such traces learns it, and RL can be
measured by how much of it is unlearned.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from judges.backends.base import BackendUnavailableError
from sandbox.world.clips import COLOURS, PLACES, SHAPES, WORDS, WorldConfig
from sandbox.world.facts import Fact
from sandbox.world.question_kinds import QUESTION_KINDS
from sandbox.world.questions import Query, answer_value, crucial_facts, option_values
from schemas.questions import ProblemType

Facts = tuple[Fact, ...]
Fault = Literal["none", "wrong", "insufficient", "malformed", "leak"]
_TRIES = 12
_BY_TIME = ("when", "gap", "span", "word_span")
_BY_PLACE = ("where", "still_where")
_DEEDS = ("moves", "hides", "blinks")
_TAKEN_FOR = {"green": "yellow", "circle": "square"}
_CONCLUDED_OFF = ("when", "count")


@dataclass(frozen=True)
class ErrorRates:
    """How often the oracle errs, each as a probability per call (see `sandbox.oracle`)."""

    wrong: float = 0.0
    insufficient: float = 0.0
    malformed: float = 0.0
    leak: float = 0.0
    confusion: float = 0.0
    off_by_one: float = 0.0
    late: float = 0.0
    false_yes: float = 0.0
    false_no: float = 0.0
    blind: float = 0.0

    def fault(self, quantile: float) -> Fault:
        """The teacher's fault for a random number in [0, 1)."""
        faults: tuple[Fault, ...] = ("wrong", "insufficient", "malformed", "leak")
        for fault in faults:
            quantile -= getattr(self, fault)
            if quantile < 0:
                return fault
        return "none"


def read_rates(rest: str, spec: str) -> tuple[int, ErrorRates]:
    """Seed and rates from `7,wrong=0.15`; raises BackendUnavailableError."""
    seed, *settings = rest.split(",")
    names = [field.name for field in fields(ErrorRates)]
    given: dict[str, float] = {}
    try:
        number = int(seed)
        for setting in settings:
            name, _, value = setting.partition("=")
            given[name] = float(value)
    except ValueError:
        number, given = 0, {"": 0.0}
    rates = ErrorRates(**given) if set(given) <= set(names) else None
    if (
        rates is None
        or len(given) < len(settings)
        or not all(0 <= value <= 1 for value in given.values())
        or rates.wrong + rates.insufficient + rates.malformed + rates.leak > 1 + 1e-9
    ):
        raise BackendUnavailableError(
            f"{spec!r}: write oracle:SEED with rates between 0 and 1, the teacher's adding up to at"
            f" most 1, for example oracle:7,wrong=0.1,leak=0.05; rates are {', '.join(names)}"
        )
    return number, rates


def is_far(query: Query, gold: str, value: str) -> bool:
    """Whether the metric scores `value` as wrong: different, and far enough from `gold`."""
    problem_type = QUESTION_KINDS[query.kind].problem_type
    if problem_type is ProblemType.REGRESSION:
        return abs(float(value) - float(gold)) > 0.45 * float(gold)
    if problem_type is ProblemType.TEMPORAL_GROUNDING:
        (a, b), (c, d) = (map(int, text.split(" to ")) for text in (gold, value))
        return max(a, c) >= min(b, d)
    if query.kind == "deed":
        return value.split()[1] != gold.split()[1]
    return value != gold


def other_value(query: Query, gold: str, config: WorldConfig, rng: random.Random) -> str:
    """A wrong answer that the question allows."""
    values = [value for value in _values(query, config) if is_far(query, gold, value)]
    return rng.choice(values)


def guessed_value(query: Query, config: WorldConfig, rng: random.Random) -> str:
    """Any of the answers that the question allows, the correct one as likely as each other."""
    return rng.choice(_values(query, config))


def _values(query: Query, config: WorldConfig) -> list[str]:
    kind = QUESTION_KINDS[query.kind]
    options = option_values(query, config)
    if options:
        return list(options)
    if kind.domain:
        return list(kind.domain(config))
    if query.kind == "deed":
        moves = [f"It moves to the {place}." for place in PLACES]
        return [*moves, "It hides behind a curtain and shows again.", "It blinks twice."]
    return [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def misperceived(
    query: Query, facts: Facts, gold: str, config: WorldConfig, rng: random.Random
) -> tuple[Facts, str] | None:
    """Statements with an error that leads to another answer, and that answer; None if not found."""
    for _ in range(_TRIES):
        seen = _distorted(query, facts, config, rng)
        value = answer_value(query, seen, config)
        if value is None or not is_far(query, gold, value):
            continue
        options = option_values(query, config)
        if not options or value in options:
            return seen, value
    return None


def _distorted(query: Query, facts: Facts, config: WorldConfig, rng: random.Random) -> Facts:
    """One error in a crucial statement, carried through all statements about its subject."""
    victim = rng.choice(crucial_facts(query, facts) or facts)
    if query.kind in _BY_PLACE:
        return _replaced(facts, victim, place=rng.choice(PLACES))
    if query.kind in ("word", "still_word"):
        text = rng.choice(WORDS)
        return tuple(f._replace(word=text) if f.word == victim.word else f for f in facts)
    if query.kind == "duration":
        return _in_time(_replaced(facts, victim, t=rng.randint(0, config.cells)))
    if query.kind in _BY_TIME:
        shift = rng.choice([-3, -2, -1, 1, 2, 3])
        moved = tuple(
            f._replace(t=f.t + shift) if _is_about(f, victim) and f.verb != "ends" else f
            for f in facts
        )
        is_inside = all(0 <= f.t <= config.cells for f in moved)
        return _in_time(moved) if is_inside else facts
    if query.kind in ("deed", "blinks"):
        return _other_deed(query, facts, victim, rng)
    colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
    if any(f.name == f"{colour} {shape}" for f in facts):
        return facts
    return tuple(
        f._replace(colour=colour, shape=shape) if f.name == victim.name else f for f in facts
    )


def _replaced(facts: Facts, victim: Fact, **changes: int | str) -> Facts:
    changed = Fact(**{**victim._asdict(), **changes})
    return tuple(changed if fact == victim else fact for fact in facts)


def _in_time(facts: Facts) -> Facts:
    return tuple(sorted(facts, key=lambda fact: fact.t))


def _is_about(fact: Fact, victim: Fact) -> bool:
    return (fact.name, fact.word) == (victim.name, victim.word)


def _other_deed(query: Query, facts: Facts, victim: Fact, rng: random.Random) -> Facts:
    """The same thing doing something else, or blinking another number of times."""
    rest = [f for f in facts if not (_is_about(f, victim) and f.verb in (*_DEEDS, "shows"))]
    deed = "blinks" if query.kind == "blinks" else rng.choice(_DEEDS)
    times = rng.randint(1, 3) if deed == "blinks" else 1
    place = rng.choice(PLACES) if deed == "moves" else ""
    done = [victim._replace(verb=deed, t=victim.t + 2 * i, place=place) for i in range(times)]
    if deed == "hides":
        done.append(victim._replace(verb="shows", t=victim.t + 1, place=""))
    return _in_time((*rest, *done))


def confused(query: Query, facts: Facts, share: float, rng: random.Random) -> Facts:
    """`facts` with `share` of green mistaken for yellow and of circles for squares.

    What the question names is never mistaken, and no thing takes the name of another one.
    """
    seen: list[Fact] = []
    for fact in facts:
        colour, shape = (
            _TAKEN_FOR.get(word, word) if rng.random() < share else word
            for word in (fact.colour, fact.shape)
        )
        name = f"{colour} {shape}"
        is_clear = fact.name in query.args or any(name == other.name for other in (*facts, *seen))
        seen.append(fact if is_clear else fact._replace(colour=colour, shape=shape))
    return tuple(seen)


def off_by_one(query: Query, value: str, config: WorldConfig) -> str:
    """The option after `value` (before the last one) where a time or a number is asked for."""
    options = option_values(query, config)
    if query.kind not in _CONCLUDED_OFF or value not in options:
        return value
    at = options.index(value)
    return options[at + 1 if at + 1 < len(options) else at - 1]


def delayed(spans: Sequence[Sequence[float]], config: WorldConfig) -> list[list[float]]:
    """`spans` in seconds, each moved one second later; at the clip's end one second earlier.

    A span that fills the clip stays as it is.
    """
    moved = []
    for start, end in spans:
        shift = 1.0 if end + 1 <= config.cells else -1.0 if start >= 1 else 0.0
        moved.append([start + shift, end + shift])
    return moved


def without_crucial(query: Query, facts: Facts) -> Facts:
    """The statements without those that the question asks about: the rest gives no answer."""
    crucial = crucial_facts(query, facts)
    if query.kind in ("deed", "blinks"):
        return tuple(f for f in facts if f not in crucial and f.verb != "shows")
    asked = [fact for fact in crucial if fact.colour in query.args]
    victim = (asked or [fact for fact in crucial if fact.verb != "ends"])[-1]
    return tuple(fact for fact in facts if not _is_about(fact, victim))


def malformed(text: str, rng: random.Random) -> str:
    """`text` with one of the format errors that models make."""
    return rng.choice(list(_broken(text)))


def _broken(text: str) -> Iterator[str]:
    yield text.replace("</think>", "", 1)
    yield text[: text.index("<answer>")]
    yield text + " Does that make sense? Let me double-check."
    yield text.replace("<think>", "<think><think>", 1)
    yield text.replace("</answer>", "", 1)
