"""Which option an answer chooses. Whatever could mean two options means none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from judges.bare_answers import bare_answer, plain_characters
from schemas.options import letter_options

_MAX_CHARACTERS = 10_000  # more than any option: not a choice
_LETTER_FIRST = re.compile(r"[(\[]?\s*([A-Za-z])(?!\w)\s?([)\].:]{0,2})(\s*)(.*)\Z", re.DOTALL)
_IS_CORRECT = re.compile(
    r"(?<!\s)\s+is\s+(?:the\s+)?(?:correct|right|best)(?:\s+(?:answer|option|choice))?[.!]?\s*\Z",
    re.IGNORECASE,
)
# A capital on its own, unless it is the article A or the pronoun I in running text.
_LONE_CAPITAL = re.compile(r"(?<![\w'-])(?![AI]\s(?!or\b|and\b|is\b)[a-z])([A-Z])(?![\w'-])")
_TAKEN_BACK = re.compile(
    r"(?:or|and)\b|[/&]|(?:is|was|seems|isn't)\b.{0,40}(?:n't|\b(?:not|wrong|incorrect|false)\b)",
    re.IGNORECASE,
)
_AROUND_TEXT = " \t\r\n,;:-()[]=>"


@dataclass(frozen=True)
class Choice:
    """An option: its letter, its text without it, and the first letter with an equal text."""

    letter: str
    text: str
    canonical: str


def read_choices(options: Sequence[str]) -> tuple[Choice, ...]:
    """The options with their letters: those written in front of them, or else those of their place.

    Raises ValueError for fewer than 2 options, more than letters, or an empty one.
    """
    lettered = letter_options(options)
    first_letter: dict[str, str] = {}
    return tuple(
        Choice(letter, text, first_letter.setdefault(text, letter))
        for letter, text in zip(lettered.written, lettered.texts, strict=True)
    )


def chosen_letter(answer: str, options: Sequence[str]) -> str | None:
    """The option's letter that `answer` chooses, or None. Of equal options it is the first one's.

    Read as a choice: `B`, `b`, `(B)`, `B.`, `Option B`, `The answer is B`, `B) its text`, its text
    when no other option reads alike. Two letters, a letter without option, anything else: None.
    """
    choices = read_choices(options)
    if len(answer) > _MAX_CHARACTERS:
        return None
    bare = bare_answer(answer)
    for text in (answer.strip(), bare, _IS_CORRECT.sub("", bare)):
        letter = _read(text, choices)
        if letter is not None:
            return letter
    return None


def _read(text: str, choices: tuple[Choice, ...]) -> str | None:
    by_letter = {choice.letter: choice for choice in choices}
    match = _LETTER_FIRST.match(text.rstrip(" .,;!?"))
    named = by_letter.get(match.group(1).upper()) if match else None
    if match and named and not match.group(4):
        return named.canonical
    by_text = _by_text(text, choices)
    if by_text is not None or match is None or named is None:
        return by_text
    _, mark, gap, rest = match.groups()
    if _same_text(rest.strip(_AROUND_TEXT), named.text):
        return named.canonical
    # "e.g. this" and "a cat" begin with a letter too: only a marked capital may lead other words.
    is_marked = bool(mark) and match.group(1).isupper() and bool(gap or not mark.endswith("."))
    return named.canonical if is_marked and not _names_another(rest, named, choices) else None


def _by_text(text: str, choices: tuple[Choice, ...]) -> str | None:
    for same in (str.__eq__, _same_text):
        found = {choice.canonical for choice in choices if same(choice.text, text)}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _names_another(rest: str, named: Choice, choices: tuple[Choice, ...]) -> bool:
    if _TAKEN_BACK.match(rest):
        return True
    others = [choice for choice in choices if choice.canonical != named.canonical]
    letters = {choice.letter for choice in others}
    return any(_same_text(rest, choice.text) for choice in others) or any(
        match.group(1) in letters for match in _LONE_CAPITAL.finditer(rest)
    )


def _same_text(left: str, right: str) -> bool:
    folded = _folded(left)
    return bool(folded) and folded == _folded(right)


def _folded(text: str) -> str:
    return " ".join(plain_characters(text).split()).strip(" .,;!\"'`*").casefold()
