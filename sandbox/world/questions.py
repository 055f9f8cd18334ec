"""Questions about clips: which ones a clip allows, their wording, answers and crucial facts.

A question is a `Query`: a kind and its arguments. `parse_query` reads it back from its text, so
nothing about a question is stored apart from its text.
"""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import combinations
from typing import Any, NamedTuple

from sandbox.world.clips import COLOURS, PLACES, Clip, Thing, Word, WorldConfig
from sandbox.world.facts import Fact, facts_of, read_facts
from sandbox.world.question_kinds import (
    ORDINALS,
    QUESTION_KINDS,
    Args,
    QuestionKind,
    appearances,
    named,
    next_after,
    nth,
    wording_pattern,
)
from schemas.questions import MediaRef, ProblemType, VideoQuestion

LETTERS = "ABCDEFGHIJ"
_VARIANT = re.compile(r"Question (\d+): ")


class Query(NamedTuple):
    """What is asked of a clip. `variant` numbers repetitions of one question, from 0."""

    kind: str
    args: Args = ()
    variant: int = 0

    @property
    def text(self) -> str:
        """The question's words."""
        prefix = f"Question {self.variant + 1}: " if self.variant else ""
        return prefix + QUESTION_KINDS[self.kind].wording.format(*self.args)


def is_about_stills(kind_name: str) -> bool:
    """Whether questions of this kind are asked of stills, not of clips."""
    return kind_name.startswith("still_")


def parse_query(text: str) -> Query | None:
    """The query whose `text` this is; None for any other text."""
    prefix = _VARIANT.match(text)
    base = _parse_base(text[prefix.end() :] if prefix else text)
    return base._replace(variant=int(prefix[1]) - 1) if base and prefix else base


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((name, wording_pattern(kind)) for name, kind in QUESTION_KINDS.items())


@lru_cache(maxsize=4096)
def _parse_base(text: str) -> Query | None:
    for name, pattern in _patterns():
        match = pattern.fullmatch(text)
        if match:
            return Query(name, match.groups())
    return None


def answer_value(query: Query, facts: tuple[Fact, ...], config: WorldConfig) -> str | None:
    """The answer that follows from `facts`, in words; None when none follows."""
    return QUESTION_KINDS[query.kind].answer(facts, query.args, config)


def crucial_facts(query: Query, facts: tuple[Fact, ...]) -> list[Fact]:
    """The statements among `facts` without which the answer cannot be known."""
    return QUESTION_KINDS[query.kind].crucial(facts, query.args)


class GroundTruth(NamedTuple):
    """The truth about one question: its clip's statements, its answer, and what is crucial for it.

    `seconds` are the spans of time that have to be seen.
    """

    query: Query
    facts: tuple[Fact, ...]
    value: str
    crucial: frozenset[Fact]
    seconds: list[list[float]]


def ground_truth(
    query: Query, clip: Clip, facts: tuple[Fact, ...], config: WorldConfig
) -> GroundTruth | None:
    """The truth about `query` in `clip`, whose statements are `facts`; None without an answer."""
    value = answer_value(query, facts, config)
    if value is None:
        return None
    crucial = frozenset(crucial_facts(query, facts))
    seconds = crucial_seconds(crucial_cells(query, clip, facts))
    return GroundTruth(query, facts, value, crucial, seconds)


def is_sufficient(truth: GroundTruth, text: str, config: WorldConfig) -> bool:
    """Whether `text` states every crucial fact, and its statements give the right answer."""
    stated = read_facts(text)
    return truth.crucial <= set(stated) and answer_value(truth.query, stated, config) == truth.value


def problem_type(query: Query, config: WorldConfig) -> ProblemType:
    """The problem type; numbers become multiple choice if the world has `has_number_options`."""
    kind = QUESTION_KINDS[query.kind]
    if kind.problem_type is ProblemType.NUMERICAL and config.has_number_options:
        return ProblemType.MULTIPLE_CHOICE
    return kind.problem_type


def option_values(query: Query, config: WorldConfig) -> tuple[str, ...]:
    """The options in canonical order (no shuffling: the order is the world's), or nothing."""
    kind = QUESTION_KINDS[query.kind]
    if problem_type(query, config) is not ProblemType.MULTIPLE_CHOICE:
        return ()
    if kind.options:
        return tuple(kind.options(query.args, config))
    return tuple(kind.domain(config)) if kind.domain else ()


def solution_of(query: Query, value: str, config: WorldConfig) -> str:
    """The answer in the form that the question expects: an option's letter, else the value."""
    options = option_values(query, config)
    return LETTERS[options.index(value)] if options else value


def balance_key(query: Query, value: str, config: WorldConfig) -> str:
    """What is balanced within a kind: the solution; for phrases, the word that decides it."""
    if QUESTION_KINDS[query.kind].problem_type is ProblemType.FREE_FORM:
        return value.split()[query.kind == "deed"]
    return solution_of(query, value, config)


def queries_of(
    clip: Clip, config: WorldConfig, kind_name: str, facts: tuple[Fact, ...] | None = None
) -> Iterator[tuple[Query, str]]:
    """Questions of one kind that `clip` answers clearly, each with its answer's value."""
    if is_about_stills(kind_name) != (clip.kind == "image"):
        return
    kind = QUESTION_KINDS[kind_name]
    facts = facts_of(clip, config) if facts is None else facts
    for args in _arguments(clip, kind, facts):
        query = Query(kind_name, args)
        value = answer_value(query, facts, config)
        if value is None or (kind.domain and value not in kind.domain(config)):
            continue
        options = option_values(query, config)
        if not options or value in options:
            yield query, value


def _arguments(clip: Clip, kind: QuestionKind, facts: tuple[Fact, ...]) -> Iterator[Args]:
    """Arguments for which the answer depends on something seen in one cell only."""
    moments = {t.name for t in clip.things if t.is_momentary}
    name = kind.name
    if is_about_stills(name) and kind.arg_types == ("place",):
        yield from ((place,) for place in PLACES)
    elif kind.arg_types == ("ordinal",):
        found = ((o, nth(facts, o)) for o in ORDINALS[: len(appearances(facts))])
        yield from ((o,) for o, fact in found if fact and fact.name in moments)
    elif name in ("when", "where", "span", "still_where"):
        yield from ((thing.name,) for thing in clip.things if thing.name in moments)
    elif name in ("blinks", "deed"):
        deeds = ("blinks",) if name == "blinks" else ("moves", "hides", "blinks")
        yield from ((thing.name,) for thing in clip.things if thing.deed in deeds)
    elif name == "duration":
        plain = ("stays", "moves")
        yield from ((thing.name,) for thing in clip.things if thing.deed in plain)
    elif name == "after":
        nexts = ((thing.name, next_after(facts, thing.name)) for thing in clip.things)
        yield from ((anchor,) for anchor, fact in nexts if fact and fact.name in moments)
    elif name == "gap":
        pairs = ((a.name, b.name) for a in clip.things for b in clip.things)
        yield from ((a, b) for a, b in pairs if a != b and b in moments)
    elif name == "compare":
        brief = {t.colour for t in clip.things if t.is_momentary}
        yield from (pair for pair in combinations(COLOURS, 2) if brief & set(pair))
    elif kind.arg_types == ("colour",):
        yield from ((colour,) for colour in COLOURS)
    elif name in ("word", "word_span"):
        brief_words = (word for word in clip.words if word.is_momentary)
        yield from ((w.place if name == "word" else w.text,) for w in brief_words)
    else:
        yield ()


def crucial_cells(query: Query, clip: Clip, facts: tuple[Fact, ...]) -> tuple[int, ...]:
    """The cells that have to be seen to know the answer."""
    if clip.kind == "image":
        return (0,)
    by_name: dict[str, Thing | Word] = {
        **{thing.name: thing for thing in clip.things},
        **{word.text: word for word in clip.words},
    }
    if query.kind in ("blinks", "deed"):
        thing = by_name[query.args[0]]
        assert isinstance(thing, Thing)
        return thing.deed_cells
    if query.kind == "duration":
        seen = by_name[query.args[0]].visible_cells
        return tuple(sorted({seen[0], seen[-1]}))
    if query.kind in ("compare", "count", "sum"):
        brief = (thing.enters for thing in clip.things if thing.is_momentary)
        return tuple(sorted(set(brief)))
    if query.kind == "word":
        return tuple(f.t for f in crucial_facts(query, facts))
    if query.kind in ("colour", "shape", "object"):
        found = nth(facts, query.args[0])
    elif query.kind == "after":
        found = next_after(facts, query.args[0])
    else:
        found = named(facts, query.args[-1])
    cells = by_name[found.name if found else query.args[0]].visible_cells
    anchors = query.args if query.kind in ("after", "gap") else ()
    return tuple(sorted({*cells, *(by_name[name].enters for name in anchors)}))


def crucial_seconds(cells: tuple[int, ...]) -> list[list[float]]:
    """`cells` as intervals of seconds, neighbours joined."""
    spans: list[list[float]] = []
    for cell in cells:
        if spans and spans[-1][1] == cell:
            spans[-1][1] = float(cell + 1)
        else:
            spans.append([float(cell), float(cell + 1)])
    return spans


def question_row(
    query: Query, value: str, clip: Clip, config: WorldConfig, facts: tuple[Fact, ...], row: int
) -> dict[str, Any]:
    """The question as a record of the Video-R1 format; `time_clues` are the crucial seconds."""
    options = option_values(query, config)
    cells = crucial_cells(query, clip, facts)
    return {
        "problem_id": row,
        "problem": query.text,
        "data_type": clip.kind,
        "problem_type": problem_type(query, config).value,
        "options": [f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False)],
        "process": "",
        "solution": f"<answer>{solution_of(query, value, config)}</answer>",
        "path": clip.path,
        "data_source": f"sandbox/{query.kind}",
        "time_clues": crucial_seconds(cells) if clip.kind == "video" else [],
    }


def video_question(row: dict[str, Any]) -> VideoQuestion:
    """The question of a record that `question_row` wrote."""
    return VideoQuestion(
        problem=row["problem"],
        options=tuple(row["options"]),
        solution=row["solution"].removeprefix("<answer>").removesuffix("</answer>"),
        media=(MediaRef(kind=row["data_type"], path=row["path"]),),
        problem_type=ProblemType(row["problem_type"]),
        data_source=row["data_source"],
        problem_id=str(row["problem_id"]),
        time_clues=tuple((a, b) for a, b in row["time_clues"]),
        row=row["problem_id"],
    )
