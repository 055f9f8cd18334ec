"""Which option an answer chooses. Whatever could mean two options means none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from judges.scoring.text import (
    bare_answer,
    claims_in,
    extract_tolerant,
    plain_characters,
    untagged_lines,
)
from schemas.answer_options import letter_options, plain_label

_MAX_CHARACTERS = 10_000  # more than any option: not a choice
_AFTER_LETTER = r"(?!\w)\s?([)\].:]{0,2})(\s*)(.*)\Z"
_LETTER_FIRST = re.compile(rf"[(\[]?\s*([A-Za-z]){_AFTER_LETTER}", re.DOTALL)
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
_DENIED = re.compile(
    r"\b(?:not?|never|none|neither|nor|cannot|incorrect|wrong|false|untrue|unlikely|implausible"
    r"|absent|invalid|impossible|eliminated?|excluded?|ruled out|unsupported|lacks|missing"
    r"|contradict\w*)\b"
    r"|n't\b|[✗✘✕❌🚫不没錯错否]",
    re.IGNORECASE,
)
# `b) cow` behind `a) dog`
_LISTED_BEHIND = re.compile(r"(?<![\w'.])\(?([A-Za-z])[).:](?=\s)")
_AROUND_TEXT = " \t\r\n,;:-()[]=>"


@dataclass(frozen=True)
class Choice:
    """An option: its letter, its text without it, and the first letter with an equal text."""

    letter: str
    text: str
    canonical: str

    @property
    def line(self) -> str:
        """`B. a cat`; an option without a text is its letter."""
        return f"{self.letter}. {self.text}" if self.text else self.letter


def read_choices(options: Sequence[str]) -> tuple[Choice, ...]:
    """The options with their letters: those written in front of them, or else those of their place.

    Raises ValueError for fewer than 2 options, more than letters, or an empty one.
    """
    lettered = letter_options(options)
    first_letter: dict[str, str] = {}
    return tuple(
        Choice(letter, text, first_letter.setdefault(text, letter) if text else letter)
        for letter, text in zip(lettered.written, lettered.texts, strict=True)
    )


def chosen_letter(answer: str, options: Sequence[str], *, exactly: bool = False) -> str | None:
    """The option's letter that `answer` chooses, or None. Of equal options it is the first one's.

    Read as a choice: `B`, `b`, `(B)`, `B.`, `Option B`, `The answer is B`, `B) its text`, its text
    when no other option reads alike. Two letters, a letter without option, anything else: None.
    `exactly`: nothing but letter and text may stand there, and the two must agree; otherwise a
    letter with a mark may lead other words (`B. The dog runs`) that deny nothing (`B: not shown`).
    """
    choices = read_choices(options)
    if len(answer) > _MAX_CHARACTERS:
        return None
    bare = bare_answer(answer)
    for text in (answer.strip(), bare, _IS_CORRECT.sub("", bare)):
        letter = _read(text, choices, exactly)
        if letter is not None:
            return letter
    return None


def leading_choice(output: str, options: Sequence[str]) -> str | None:
    """The option that stands alone on the first line of an untagged reply, its reasons below.

    `**B. a cat**`, an empty line, a paragraph: letter and text must agree, and nothing else stands
    on the line. An empty text where the reply goes on to claim another option: it says two. None
    for other replies.
    """
    lines = untagged_lines(output)
    if len(lines) < 2:
        return None
    chosen = chosen_letter(lines[0].lstrip("#>-* "), options, exactly=True)
    if chosen is None or chosen_letter(lines[1], options, exactly=True) not in (chosen, None):
        return None  # the options are said again, one below the other
    claims = claims_in("\n".join(lines[1:]))
    read = {chosen_letter(claim, options) for claim in (*claims, lines[-1])}
    is_taken_back = "" in claims_in("\n".join(lines))
    return chosen if read <= {chosen, None} and not is_taken_back else ""


def extract_choice(output: str, options: Sequence[str]) -> str | None:
    """The answer of a reply to a multiple choice question, tolerantly read; None without one.

    An option alone on the first line counts, where nothing below says otherwise.
    """
    leading = leading_choice(output, options)
    return extract_tolerant(output) if leading is None else leading or None


def _read(text: str, choices: tuple[Choice, ...], exactly: bool) -> str | None:
    by_letter = {choice.letter: choice for choice in choices}
    letters = tuple(by_letter)
    match = _letter_first(letters).match(text.rstrip(" .,;!?"))
    label = plain_label(match.group(1) if match else text.strip(" .,;!?()[]"), letters)
    named = by_letter[label] if label else None
    if named and match is None:  # `Ⓑ`, `②`
        return named.canonical
    if match and named and not match.group(4):
        return named.canonical
    by_text = _by_text(text, choices)
    if by_text is not None or match is None or named is None:
        return by_text
    _, mark, gap, rest = match.groups()
    if _same_text(rest.strip(_AROUND_TEXT), named.text):
        return named.canonical
    # "e.g. this" and "a cat" begin with a letter too: only a marked capital may lead other words.
    is_capital = not match.group(1).islower()
    is_marked = bool(mark) and is_capital and bool(gap or not mark.endswith("."))
    if exactly or not is_marked:
        return None
    return named.canonical if is_marked and not _names_another(rest, named, choices) else None


@lru_cache(maxsize=256)
def _letter_first(letters: tuple[str, ...]) -> re.Pattern[str]:
    """A letter in front; for options under numbers or another script's letters, one of these."""
    if all(letter.isascii() and letter.isalpha() and len(letter) == 1 for letter in letters):
        return _LETTER_FIRST
    longest_first = sorted(letters, key=len, reverse=True)
    any_letter = "|".join(map(re.escape, longest_first))
    return re.compile(rf"[(\[]?\s*({any_letter}){_AFTER_LETTER}", re.DOTALL | re.IGNORECASE)


def _by_text(text: str, choices: tuple[Choice, ...]) -> str | None:
    if not text:
        return None
    for same in (str.__eq__, _same_text):
        found = {choice.canonical for choice in choices if same(choice.text, text)}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _names_another(rest: str, named: Choice, choices: tuple[Choice, ...]) -> bool:
    others = [choice for choice in choices if choice.canonical != named.canonical]
    own = _folded(rest)
    for choice in others:  # `B. cow, not a dog` denies nothing of B
        own = re.sub(rf"\bnot (?:an? |the )?{re.escape(_folded(choice.text) or '?')}", "", own)
    if _TAKEN_BACK.match(rest) or (_DENIED.search(own) and not _DENIED.search(named.text)):
        return True
    letters = {choice.letter for choice in others}
    return (
        any(_same_text(rest, choice.text) for choice in others)
        or any(match.group(1) in letters for match in _lone(tuple(letters)).finditer(rest))
        or any(match[1].upper() in letters for match in _LISTED_BEHIND.finditer(rest))
    )


def _lone(letters: tuple[str, ...]) -> re.Pattern[str]:
    first = _letter_first(letters)
    if first is _LETTER_FIRST:
        return _LONE_CAPITAL
    return re.compile(rf"(?<![\w'-])({'|'.join(map(re.escape, letters))})(?![\w'-])")


def _same_text(left: str, right: str) -> bool:
    folded = _folded(left)
    return bool(folded) and folded == _folded(right)


def _folded(text: str) -> str:
    return " ".join(plain_characters(text).split()).strip(" .,;!\"'`*").casefold()
