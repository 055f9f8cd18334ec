"""The scripted teacher's wording: what it looks for, what it saw, what it concludes.

The text is a function of statements and an answer: wrong statements give a consistent wrong trace,
a wrong answer gives a wrong conclusion from right statements.
"""

from collections.abc import Sequence

from sandbox.world.clips import WorldConfig
from sandbox.world.facts import Fact, say, say_all
from sandbox.world.question_kinds import VALUES, named, next_after, nth, things
from sandbox.world.questions import Query, option_values, solution_of
from schemas.traces import TEMPLATES, Trace, render_trace

_NEEDS = {
    "colour": "the colour of the {0} object",
    "shape": "the shape of the {0} object",
    "object": "the {0} object",
    "when": "the time of the {0}",
    "where": "the place of the {0}",
    "after": "what comes right after the {0}",
    "compare": "the numbers of {0} and {1} objects",
    "count": "the number of {0} objects",
    "sum": "the colours of all objects",
    "blinks": "when the {0} blinks",
    "word": "the word at the {0}",
    "deed": "what the {0} does",
    "duration": "how long the {0} stays",
    "gap": "the times of the {0} and the {1}",
    "span": "when the {0} comes and goes",
    "word_span": "when the word {0} comes and goes",
    "still_colour": "the colour at the {0}",
    "still_shape": "the shape at the {0}",
    "still_object": "the object at the {0}",
    "still_where": "the place of the {0}",
    "still_count": "the number of {0} objects",
    "still_sum": "the colours of all objects",
    "still_word": "the word at the {0}",
}


def need(query: Query) -> str:
    """What the question asks to look for."""
    return _NEEDS[query.kind].format(*query.args)


def observation(query: Query, facts: Sequence[Fact]) -> str:
    """What to look for, then everything seen."""
    return f"Based on the question, I need to notice {need(query)}. {say_all(facts)}".strip()


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; empty for nothing."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _premise(query: Query, facts: tuple[Fact, ...]) -> str:
    """The statements that the conclusion rests on; empty if `facts` do not hold them."""
    kind, args = query.kind, query.args
    seen = things(facts)
    if kind in ("colour", "shape", "object"):
        found = nth(facts, args[0])
        return f"the {args[0]} object is a {found.name}" if found else ""
    if kind in ("when", "where", "gap", "still_where"):
        met = [fact for fact in (named(facts, name) for name in args) if fact]
        premises = [
            f"the {fact.name} appears at "
            + (f"the {fact.place}" if "where" in kind else f"t={fact.t}")
            for fact in met
        ]
        return _listed(premises)
    if kind == "after":
        found = next_after(facts, args[0])
        return f"a {found.name} appears right after the {args[0]}" if found else ""
    if kind == "compare":
        counts = [sum(fact.colour == colour for fact in seen) for colour in args]
        return f"there are {counts[0]} {args[0]} and {counts[1]} {args[1]} objects"
    if kind in ("count", "still_count"):
        colours = [fact.colour for fact in seen]
        listed_colours = f"the objects are {_listed(colours)}, and " if colours else ""
        return f"{listed_colours}{colours.count(args[0])} of them are {args[0]}"
    if kind in ("sum", "still_sum"):
        return _listed([f"{fact.colour} counts {VALUES[fact.colour]}" for fact in seen])
    if kind in ("word", "still_word", "still_colour", "still_shape", "still_object"):
        return _at_place(kind, args[0], facts)
    mine = [fact for fact in facts if args[0] in (fact.name, fact.word)]
    verbs = {
        "blinks": ("blinks",),
        "deed": ("moves", "hides", "blinks"),
    }.get(kind, ("appears", "leaves", "word", "gone"))
    premises = [say(fact).rstrip(".") for fact in mine if fact.verb in verbs]
    return _listed([text[0].lower() + text[1:] for text in premises])


def _at_place(kind: str, place: str, facts: tuple[Fact, ...]) -> str:
    """What is at a place: its word, or its thing."""
    here = [fact for fact in facts if fact.place == place]
    if kind.endswith("word"):
        words = [fact.word for fact in here if fact.word]
        return f"the word at the {place} is {words[0]}" if words else ""
    names = [fact.name for fact in here if fact.verb == "is"]
    return f"a {names[0]} is at the {place}" if names else ""


def conclusion(query: Query, facts: tuple[Fact, ...], value: str, config: WorldConfig) -> str:
    """The step from the premise to `value`, whether it follows or not."""
    premise = _premise(query, facts) or "I can only go by what it looked like"
    letter = f", option {solution_of(query, value, config)}" if option_values(query, config) else ""
    return f"Based on the observations, {premise}, so the answer is {value.rstrip('.')}{letter}."


def write_trace(
    template_name: str,
    query: Query,
    facts: tuple[Fact, ...],
    value: str,
    config: WorldConfig,
    *,
    seconds: Sequence[Sequence[float]] = (),
    aside: str = "",
) -> str:
    """A well-formed trace that saw `facts` and answers `value`.

    `seconds` fills the grounding template's time clues. `aside` is added to what was seen.
    """
    seen = " ".join(filter(None, (observation(query, facts), aside)))
    reasons = conclusion(query, facts, value, config)
    answer = solution_of(query, value, config)
    clues = ", ".join(f"{start:g} to {end:g}" for start, end in seconds) or "0 to 0"
    texts = {
        "p2r": (seen, reasons, answer),
        "think-answer": (f"{seen} {reasons}", answer),
        "grounding": (f"{seen} {reasons}", answer, clues),
    }[template_name]
    return render_trace(Trace(TEMPLATES[template_name], texts))
