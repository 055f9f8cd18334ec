"""Kinds of questions: wording, problem type, and the rule that answers them.

A rule reads statements, not pixels: it answers from a clip's truth and from an observation alike,
and returns None if the statements do not determine the answer.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.world.clips import COLOURS, PLACES, SHAPES, WORDS, WorldConfig
from sandbox.world.facts import Fact
from schemas.questions import ProblemType

Args = tuple[str, ...]
Facts = Sequence[Fact]
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
VALUES = {colour: i + 1 for i, colour in enumerate(COLOURS)}
TIMES = ("once", "twice", "three times")
SAME = "the same number"
_PRICES = "Red counts 1, blue 2, green 3 and yellow 4: what is the sum over all objects"


@dataclass(frozen=True)
class QuestionKind:
    """One kind of question. `{0}` and `{1}` in `wording` stand for arguments of `arg_types`.

    `crucial` picks the statements without which the answer cannot be known.
    """

    name: str
    problem_type: ProblemType
    wording: str
    arg_types: tuple[str, ...]
    answer: Callable[[Facts, Args, WorldConfig], str | None]
    crucial: Callable[[Facts, Args], list[Fact]]
    options: Callable[[Args, WorldConfig], Sequence[str]] | None = None
    domain: Callable[[WorldConfig], Sequence[str]] | None = None


def appearances(facts: Facts) -> list[Fact]:
    """Statements that a thing appears, by time."""
    return sorted((f for f in facts if f.verb == "appears"), key=lambda f: f.t)


def things(facts: Facts) -> list[Fact]:
    """Statements that a thing is seen for the first time, in a clip or in a still."""
    return [f for f in facts if f.verb in ("appears", "is")]


def nth(facts: Facts, ordinal: str) -> Fact | None:
    """The appearance that `ordinal` names; None when others share its time."""
    seen, i = appearances(facts), ORDINALS.index(ordinal)
    if i >= len(seen) or sum(f.t == seen[i].t for f in seen) > 1:
        return None
    return seen[i]


def _up_to(facts: Facts, args: Args) -> list[Fact]:
    return appearances(facts)[: ORDINALS.index(args[0]) + 1]


def named(facts: Facts, name: str) -> Fact | None:
    """The one thing of that name; None if there is none, or more than one."""
    found = [f for f in things(facts) if f.name == name]
    return found[0] if len(found) == 1 else None


def next_after(facts: Facts, name: str) -> Fact | None:
    """What appears right after the thing of that name; None when two do at once."""
    anchor = named(facts, name)
    later = [f for f in appearances(facts) if anchor and f.t > anchor.t]
    if not later or (len(later) > 1 and later[1].t == later[0].t):
        return None
    return later[0]


def _bounds(facts: Facts, args: Args) -> list[Fact]:
    """Statements of when the thing or word of that name appears and leaves, or the clip ends."""
    mine = [f for f in facts if args[0] in (f.name, f.word)]
    gone = [f for f in mine if f.verb in ("leaves", "gone")]
    ends = gone or [f for f in facts if f.verb == "ends"]
    return [f for f in mine if f.verb in ("appears", "word")] + ends


def _deeds(facts: Facts, args: Args) -> list[Fact]:
    return [f for f in facts if f.name == args[0] and f.verb in ("moves", "hides", "blinks")]


def _interval(facts: Facts, name: str) -> tuple[int, int] | None:
    """From when to when a thing or word is there."""
    begins = [f.t for f in facts if f.verb in ("appears", "word") and name in (f.name, f.word)]
    gone = [f.t for f in facts if f.verb in ("leaves", "gone") and name in (f.name, f.word)]
    ends = gone or [f.t for f in facts if f.verb == "ends"]
    return (begins[0], ends[0]) if len(begins) == len(ends) == 1 else None


def _span(facts: Facts, args: Args, config: WorldConfig) -> str | None:
    interval = _interval(facts, args[0])
    return f"{interval[0]} to {interval[1]}" if interval else None


def _duration(facts: Facts, args: Args, config: WorldConfig) -> str | None:
    interval = _interval(facts, args[0])
    return str(interval[1] - interval[0]) if interval else None


def _gap(facts: Facts, args: Args, config: WorldConfig) -> str | None:
    a, b = (named(facts, name) for name in args)
    return str(b.t - a.t) if a and b and b.t > a.t else None


def _after(facts: Facts, args: Args, config: WorldConfig) -> str | None:
    found = next_after(facts, args[0])
    return found.colour if found else None


def _after_crucial(facts: Facts, args: Args) -> list[Fact]:
    return [f for f in (named(facts, args[0]), next_after(facts, args[0])) if f]


def _compare(facts: Facts, args: Args, config: WorldConfig) -> str | None:
    seen = Counter(f.colour for f in things(facts))
    a, b = (seen[colour] for colour in args)
    return SAME if a == b else args[a < b]


def _count(facts: Facts, args: Args, config: WorldConfig) -> str | None:
    return str(sum(f.colour == args[0] for f in things(facts)))


def _sum(facts: Facts, args: Args, config: WorldConfig) -> str | None:
    return str(sum(VALUES[f.colour] for f in things(facts)))


def _blinks(facts: Facts, args: Args, config: WorldConfig) -> str | None:
    return str(sum(f.verb == "blinks" and f.name == args[0] for f in facts))


def _word(facts: Facts, args: Args, config: WorldConfig) -> str | None:
    found = _word_at(facts, args)
    return found[0].word if len(found) == 1 else None


def _word_at(facts: Facts, args: Args) -> list[Fact]:
    return [f for f in facts if f.verb in ("word", "written") and f.place == args[0]]


def _deed(facts: Facts, args: Args, config: WorldConfig) -> str | None:
    mine = _deeds(facts, args)
    if not mine or (mine[0].verb == "blinks" and len(mine) > len(TIMES)):
        return None
    return {
        "moves": f"It moves to the {mine[0].place}.",
        "hides": "It hides behind a curtain and shows again.",
        "blinks": f"It blinks {TIMES[min(len(mine), len(TIMES)) - 1]}.",
    }[mine[0].verb]


def _by_order(field: str) -> Callable[[Facts, Args, WorldConfig], str | None]:
    def answer(facts: Facts, args: Args, config: WorldConfig) -> str | None:
        found = nth(facts, args[0])
        return str(getattr(found, field)) if found else None

    return answer


def _by_name(wanted: Callable[[Fact], str]) -> Callable[[Facts, Args, WorldConfig], str | None]:
    def answer(facts: Facts, args: Args, config: WorldConfig) -> str | None:
        found = named(facts, args[0])
        return wanted(found) if found else None

    return answer


def _at(facts: Facts, args: Args) -> list[Fact]:
    return [f for f in facts if f.verb == "is" and f.place == args[0]]


def _by_place(wanted: Callable[[Fact], str]) -> Callable[[Facts, Args, WorldConfig], str | None]:
    def answer(facts: Facts, args: Args, config: WorldConfig) -> str | None:
        found = _at(facts, args)
        return wanted(found[0]) if len(found) == 1 else None

    return answer


def _object(facts: Facts, args: Args, config: WorldConfig) -> str | None:
    found = nth(facts, args[0])
    return found.name if found else None


def _the(facts: Facts, args: Args) -> list[Fact]:
    return [f for f in things(facts) if f.name in args]


def _all(facts: Facts, args: Args) -> list[Fact]:
    return things(facts)


def _colours(args: Args, config: WorldConfig) -> Sequence[str]:
    return COLOURS


def _shapes(args: Args, config: WorldConfig) -> Sequence[str]:
    return SHAPES


def _places(args: Args, config: WorldConfig) -> Sequence[str]:
    return PLACES


def _moments(args: Args, config: WorldConfig) -> Sequence[str]:
    return [f"t={cell}" for cell in range(config.cells)]


def _either(args: Args, config: WorldConfig) -> Sequence[str]:
    return (*args, SAME)


def _numbers(*values: int) -> Callable[[WorldConfig], Sequence[str]]:
    return lambda config: [str(value) for value in values]


def _sums(config: WorldConfig) -> Sequence[str]:
    return [str(value) for value in config.sums]


def _still_sums(config: WorldConfig) -> Sequence[str]:
    return [str(value) for value in config.still_sums]


_MC, _NUM, _OCR = ProblemType.MULTIPLE_CHOICE, ProblemType.NUMERICAL, ProblemType.OCR
_FREE, _REG, _TG = ProblemType.FREE_FORM, ProblemType.REGRESSION, ProblemType.TEMPORAL_GROUNDING
_ORD, _NAME, _COL, _PLC = ("ordinal",), ("name",), ("colour",), ("place",)

_ALL_KINDS = (
    QuestionKind("colour", _MC, "What is the colour of the {0} object?", _ORD,
                 _by_order("colour"), _up_to, options=_colours),
    QuestionKind("shape", _MC, "What is the shape of the {0} object?", _ORD,
                 _by_order("shape"), _up_to, options=_shapes),
    QuestionKind("when", _MC, "When does the {0} appear?", _NAME,
                 _by_name(lambda f: f"t={f.t}"), _the, options=_moments),
    QuestionKind("where", _MC, "Where does the {0} appear?", _NAME,
                 _by_name(lambda f: f.place), _the, options=_places),
    QuestionKind("after", _MC, "What is the colour of the object that appears right after the {0}?",
                 _NAME, _after, _after_crucial, options=_colours),
    QuestionKind("compare", _MC, "Which colour do more objects have, {0} or {1}?",
                 ("colour", "colour"), _compare, _all, options=_either),
    QuestionKind("count", _NUM, "How many {0} objects appear?", _COL,
                 _count, _all, domain=_numbers(0, 1, 2, 3)),
    QuestionKind("sum", _NUM, _PRICES + " that appear?", (), _sum, _all, domain=_sums),
    QuestionKind("blinks", _NUM, "How many times does the {0} blink?", _NAME,
                 _blinks, _deeds, domain=_numbers(1, 2, 3)),
    QuestionKind("word", _OCR, "Which word is shown at the {0}?", _PLC, _word, _word_at,
                 domain=lambda config: config.words),
    QuestionKind("object", _FREE, "Which object appears {0}?", _ORD, _object, _up_to),
    QuestionKind("deed", _FREE, "What does the {0} do?", _NAME, _deed, _deeds),
    QuestionKind("duration", _REG, "For how many seconds is the {0} visible?", _NAME,
                 _duration, _bounds, domain=_numbers(1, 3, 5, 7)),
    QuestionKind("gap", _REG, "How many seconds after the {0} does the {1} appear?",
                 ("name", "name"), _gap, _the, domain=_numbers(1, 2, 3, 4, 5)),
    QuestionKind("span", _TG, "During which seconds is the {0} visible?", _NAME, _span, _bounds,
                 domain=lambda config: [f"{t} to {t + 1}" for t in range(config.cells)]),
    QuestionKind("word_span", _TG, "During which seconds is the word {0} shown?", ("word",),
                 _span, _bounds,
                 domain=lambda config: [f"{t} to {t + 1}" for t in range(config.cells)]),
    QuestionKind("still_colour", _MC, "What is the colour of the object at the {0}?", _PLC,
                 _by_place(lambda f: f.colour), _at, options=_colours),
    QuestionKind("still_shape", _MC, "What is the shape of the object at the {0}?", _PLC,
                 _by_place(lambda f: f.shape), _at, options=_shapes),
    QuestionKind("still_where", _MC, "Where is the {0}?", _NAME,
                 _by_name(lambda f: f.place), _the, options=_places),
    QuestionKind("still_count", _NUM, "How many {0} objects are there?", _COL,
                 _count, _all, domain=_numbers(0, 1, 2)),
    QuestionKind("still_sum", _NUM, _PRICES + " in the picture?", (), _sum, _all,
                 domain=_still_sums),
    QuestionKind("still_word", _OCR, "Which word is written at the {0}?", _PLC, _word, _word_at,
                 domain=lambda config: config.words),
    QuestionKind("still_object", _FREE, "Which object is at the {0}?", _PLC,
                 _by_place(lambda f: f.name), _at),
)  # fmt: skip
QUESTION_KINDS = {kind.name: kind for kind in _ALL_KINDS}

_ARGUMENTS = {
    "ordinal": "|".join(ORDINALS),
    "name": f"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})",
    "colour": "|".join(COLOURS),
    "place": "|".join(PLACES),
    "word": "|".join(WORDS),
}


def wording_pattern(kind: QuestionKind) -> re.Pattern[str]:
    """Matches the questions of `kind` as a whole; its groups are their arguments."""
    text = re.escape(kind.wording)
    for i, arg_type in enumerate(kind.arg_types):
        text = text.replace(rf"\{{{i}\}}", f"({_ARGUMENTS[arg_type]})")
    return re.compile(text)
