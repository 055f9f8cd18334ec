"""Options of a multiple choice question: their letters, and the letter of the gold answer."""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

# `A. cat`, `A) cat`, `(A) cat`, `A: cat`, and a letter that stands alone.
_LETTERED = re.compile(r"[(\[]?([A-Z])(?:[)\].:]+\s*(.*)|\s*)\Z", re.DOTALL)
# A gold answer that is a letter and nothing else, perhaps in brackets.
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\].:]*\Z")


@dataclass(frozen=True)
class LetteredOptions:
    """Options with letters A, B, C, ... in order. `written` are the letters the file gave them."""

    texts: tuple[str, ...]
    written: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """`A. cat`, `B. dog`, ..."""
        return tuple(
            f"{letter}. {text}".rstrip()
            for letter, text in zip(string.ascii_uppercase, self.texts, strict=False)
        )

    def letter_of_index(self, index: int) -> str:
        """The letter of the option at `index` (from 0), or of the first option equal to it."""
        if not 0 <= index < len(self.texts):
            raise ValueError(
                f"gold index {index} names none of the {len(self.texts)} options (counted from 0)"
            )
        return string.ascii_uppercase[self.texts.index(self.texts[index])]

    def letter_of(self, gold: str) -> str:
        """The letter of the option that `gold` names: `C`, `(C)`, `C. a text`, or `a text`.

        A letter alone is read as a letter, never as a text. Of equal options the first one counts.
        """
        gold = gold.strip()
        letter = _LETTER.match(gold)
        if letter and letter[1].upper() in self.written:
            return self.letter_of_index(self.written.index(letter[1].upper()))
        if gold in self.texts:
            return self.letter_of_index(self.texts.index(gold))
        lettered = _LETTERED.match(gold)
        if lettered and lettered[1] in self.written:
            index = self.written.index(lettered[1])
            if self.texts[index] == (lettered[2] or "").strip():
                return self.letter_of_index(index)
        raise ValueError(
            f"the gold answer {gold[:60]!r} is none of the {len(self.texts)} options, neither"
            " their letter nor their text"
        )


def letter_options(options: Sequence[str]) -> LetteredOptions:
    """Give each option its letter: `["cat", "dog"]` -> `A. cat`, `B. dog`.

    Letters that the file wrote are recognised when every option has its own and one of them is A;
    `["E. coli", "S. aureus"]` are texts.
    """
    if not 2 <= len(options) <= len(string.ascii_uppercase):
        raise ValueError(f"a multiple choice question has 2 to 26 options, got {len(options)}")
    stripped = [option.strip() for option in options]
    matches = [_LETTERED.match(option) for option in stripped]
    written = tuple(match[1] for match in matches if match)
    if len(set(written)) == len(options) and "A" in written:
        texts = tuple((match[2] or "").strip() for match in matches if match)
        return LetteredOptions(texts, written)
    if "" in stripped:
        raise ValueError(f"option {stripped.index('') + 1} of {len(options)} is empty")
    return LetteredOptions(tuple(stripped), tuple(string.ascii_uppercase[: len(options)]))


def duplicate_options(options: Sequence[str]) -> tuple[str, ...]:
    """Letters of options whose text an earlier option already has: no answer can mean them."""
    texts = letter_options(options).texts
    return tuple(
        letter
        for place, (letter, text) in enumerate(zip(string.ascii_uppercase, texts, strict=False))
        if text in texts[:place]
    )
