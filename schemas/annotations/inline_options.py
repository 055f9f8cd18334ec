"""Options that stand inside of a question's text, each on a line of its own.

    What is the man doing?
    A. dunking
    B. passing

They are found where lines are marked in order from the first on, by letters (`A.`, `(A)`, `A)`,
`Sentence A:`) or, behind a word, by numbers (`Option 1:`). The last such list counts: questions
list statements before their options. What stands below the last option and tells how to answer
("Answer with the option's letter") is left out, because our own prompt says that.
"""

import re
import string
from dataclasses import dataclass

from schemas.annotations.fields import FieldError, shown

_WORD = r"(?:option|sentence|caption|information|description|choice)\s+"
_MARK = rf"(?P<word>(?i:{_WORD}))?[(\[]?(?P<label>[A-Z]|\d{{1,2}})"
_LINE = re.compile(rf"\s*{_MARK}[)\].:：、．]+\s*(?P<text>\S.*)\Z")
_GOLD = re.compile(
    rf"\s*(?:{_MARK}(?P<close>[)\].:：、．]+)?)(?P<text>(?(close).*|\s*))\Z", re.DOTALL
)
_HOW_TO_ANSWER = re.compile(
    r"(please|answer|respond|reply|select|choose|pick|give|provide|only|directly|output|return"
    r"|generated caption|the best|your|you)\b",
    re.IGNORECASE,
)
_HEADING = re.compile(r"\s*(?:answer\s+)?(?:options?|choices|candidates)\s*:?\s*\Z", re.IGNORECASE)
_LETTER = re.compile(r"\W*[A-Ja-j]\W*\Z")


@dataclass(frozen=True)
class InlineOptions:
    """A question without its options, and the texts of these in order."""

    problem: str
    texts: tuple[str, ...]
    has_numbers: bool

    @property
    def lines(self) -> tuple[str, ...]:
        """`A. dunking`, `B. passing`, ..."""
        letters = string.ascii_uppercase
        return tuple(f"{letters[place]}. {text}" for place, text in enumerate(self.texts))

    def letter_of(self, gold: str, *, part: bool = False) -> str | None:
        """The letter of the option that `gold` names: `B`, `B. passing`, `Option 2: passing`, or
        `passing`. With `part` a text behind the letter may be a part of the option's. None where it
        names none, or its letter one option and its text another.
        """
        plain = list(map(_plain, self.texts))
        found = _GOLD.match(gold)
        if found is not None:
            place = _place(found["label"], self.has_numbers)
            text = _plain(found["text"])
            if place is not None and place < len(plain):
                said = plain[place]
                if text in ("", said) or (part and text in said):
                    return string.ascii_uppercase[place]
        places = [place for place, text in enumerate(plain) if text == _plain(gold)]
        return string.ascii_uppercase[places[0]] if places else None


def inline_options(text: str) -> InlineOptions | None:
    """The options in a question's text; None where it holds none."""
    lines = text.split("\n")
    marks = [_LINE.match(line) for line in lines]
    for first in reversed(range(len(lines))):
        mark = marks[first]
        if mark is None or _place(mark["label"], bool(mark["word"])) != 0:
            continue
        texts = _texts(lines, marks, first)
        problem = _without_heading(lines[:first])
        if 2 <= len(texts) <= len(string.ascii_uppercase) and problem:
            return InlineOptions(problem, tuple(texts), mark["label"].isdigit())
    return None


def required_options(text: str, field: str) -> InlineOptions:
    """As `inline_options`. Raises FieldError where the text holds none."""
    found = inline_options(text)
    if found is None:
        raise FieldError(
            field, f"expected options like 'A. ...' on lines of their own, got {shown(text)}"
        )
    return found


def looks_like_a_letter(gold: str) -> bool:
    """Whether a gold answer is a letter alone (`B`), or has one in front of its text (`B. cat`)."""
    found = _LINE.match(gold)
    is_mark = found is not None and (found["label"].isalpha() or bool(found["word"]))
    return bool(_LETTER.match(gold)) or (is_mark and "\n" not in gold)


def without_options(problem: str, texts: tuple[str, ...]) -> str:
    """The problem without options that it repeats at its end, glued to its last word or not."""
    marks = (rf"[(\[]?{letter}[)\].:]+\s*" for letter in string.ascii_uppercase)
    listed = r"\s*".join(mark + re.escape(text) for mark, text in zip(marks, texts, strict=False))
    rest = re.sub(rf"\s*{listed}\s*\Z", "", problem)
    return rest or problem


def _texts(lines: list[str], marks: "list[re.Match[str] | None]", first: int) -> list[str]:
    """Texts of the options from line `first` on; a text may go on in lines without a mark."""
    texts: list[str] = []
    between: list[str] = []
    for line, mark in zip(lines[first:], marks[first:], strict=True):
        is_next = (
            mark is not None
            and _place(mark["label"], bool(mark["word"])) == len(texts)
            and bool(mark["word"]) == bool(marks[first] and marks[first]["word"])  # type: ignore[index]
        )
        if is_next and mark is not None:
            _join(texts, between)
            texts.append(mark["text"].strip())
            between = []
        elif line.strip():
            between.append(line.strip())
    ends = [n for n, line in enumerate(between) if _HOW_TO_ANSWER.match(line)]
    _join(texts, between[: ends[0]] if ends else between)
    return texts


def _join(texts: list[str], more: list[str]) -> None:
    if texts and more:
        texts[-1] = " ".join([texts[-1], *more])


def _place(label: str, may_be_number: bool) -> int | None:
    if label.isdigit():
        return int(label) - 1 if may_be_number else None
    return string.ascii_uppercase.index(label)


def _without_heading(lines: list[str]) -> str:
    while lines and (not lines[-1].strip() or _HEADING.match(lines[-1])):
        lines = lines[:-1]
    return "\n".join(lines).strip()


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()
