"""A tokenizer with which a small video model learns the `tiny` world on two CPU cores.

Fixed wording is one token: the 270 words of instruction in a prompt become two, sentences are cut
at the values that fill them. A model of 1 M parameters has no capacity to spare for wording that
never changes. Any other text can still be encoded, byte by byte if necessary.
"""

import random
import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Any

from sandbox.models.judge_examples import VALUE
from sandbox.models.tiny_tokenizer import build_tokenizer
from sandbox.teacher.traces import write_trace
from sandbox.world.balanced_draw import draw_question
from sandbox.world.clips import PRESETS
from sandbox.world.questions import question_row, video_question
from schemas.prompting import question_text
from schemas.traces import TEMPLATES

_WORLD = PRESETS["tiny"]
_EXAMPLES = 2000  # every wording with every value in it comes up many times
_TURNS = ("user\n", "assistant\n")
# Inserted into the grounding prompt by problem type.
_FILLED_IN = ("select the correct option", "the correct option")
_TAGS = tuple(
    f"<{slash}{segment.tag}>"
    for template in TEMPLATES.values()
    for segment in template.segments
    for slash in ("", "/")
)
_OPTION = r"\n[A-J]\.| [A-J]\."
_ANSWER = r"(?<=>)[A-J](?=<)"
_CUT = re.compile(
    rf"( ?{VALUE.pattern}|{_OPTION}|{_ANSWER}|{'|'.join(map(re.escape, _TAGS))}|(?<=[.?!])(?= ))"
)


def learner_tokenizer() -> Any:
    """Some 550 tokens for the prompts and traces of the `tiny` world; the same each time."""
    written = list(_examples())
    pieces = {piece.rstrip(" ") for text in written for piece in _CUT.split(text)}
    phrases = {piece for piece in pieces if len(piece.split()) > 1 or VALUE.search(piece)}
    options = {piece for piece in pieces if re.fullmatch(_OPTION, piece)}
    tokenizer = build_tokenizer([*written, *_TURNS], vocab_size=1024)
    fixed = {*_instructions(), *_FILLED_IN, *_TAGS, *_TURNS}
    tokenizer.add_tokens(sorted({*fixed, *phrases, *options}))
    return tokenizer


def _examples() -> Iterator[str]:
    """Questions of every kind, each with its trace in every template."""
    rng = random.Random("sandbox/learner/vocabulary")
    for _ in range(_EXAMPLES):
        drawn = draw_question(_WORLD, rng, (*_WORLD.kinds, *_WORLD.still_kinds))
        row = question_row(drawn.query, drawn.value, drawn.clip, _WORLD, drawn.facts, 0)
        question = video_question(row)
        yield question_text(question)
        for name in TEMPLATES:
            yield write_trace(
                name, drawn.query, drawn.facts, drawn.value, _WORLD, seconds=question.time_clues
            )


def _instructions() -> set[str]:
    """The text between the placeholders of the prompt files, and the forms of answers."""
    folder = resources.files("schemas.prompts")
    files = [(folder / f"{name}.md").read_text("utf-8").removesuffix("\n") for name in TEMPLATES]
    parts = {part for text in files for part in re.split(r"\{\w+\}", text)}
    forms = tomllib.loads((folder / "answer_forms.toml").read_text("utf-8")).values()
    return {part for part in (*parts, *forms) if len(part.split()) > 1}
