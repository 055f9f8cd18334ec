"""Options of a multiple choice question: their letters, and the letter of the gold answer.

A file may mark its options: `A. cat`, `(b) cat`, `**C.** cat`, `Option D: cat`, `2) cat`,
`Ｅ）cat`, `iii. cat`, `Б. cat`. Marks are taken for letters where all options carry them, each its
own; what could be a part of the text (`E. coli`, `1.5`, `A. M.` beside `P. M.`) stays text.
"""

import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

Lettering = Literal["Latin", "looks Latin", "number", "Roman", "other script"]
_LETTERINGS: tuple[Lettering, ...] = get_args(Lettering)

_LATIN = string.ascii_uppercase
# Alphabets in which schools letter their options, from the first letter on.
_ALPHABETS = (
    *("АБВГДЕЖЗИКЛМ", "АБВГДЕЁЖЗИКЛ", "АБВГҐДЕЄЖЗИК", "ΑΒΓΔΕΖΗΘΙΚ", "ԱԲԳԴԵԶԷԸ", "აბგდევზთ"),
    *("אבגדהוזחטי", "أبجدهوزحطي", "ابجدهوزحطي", "أبتثجحخد", "ابتثجحخد", "الفبجد"),
    *("कखगघङचछज", "अआइईउऊएऐ", "কখগঘঙচছজ", "અઆઇઈઉઊ", "கஙசஞ", "அஆஇஈஉஊ", "กขคงจฉชซ", "กขฃคฅฆง"),
    *(
        "가나다라마바사아자차",
        "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊ",
        "アイウエオカキクケコ",
        "あいうえおかきくけこ",
    ),
    *("イロハニホヘト", "いろはにほへと", "甲乙丙丁戊己庚辛壬癸", "一二三四五六七八九十"),
)
# Letters of other scripts that look like Latin ones, as keyboards mix them up.
_LOOKALIKES = str.maketrans("АВСЕНІКМОРТХΑΒΕΗΙΚΜΝΟΡΤΧ", "ABCEHIKMOPTXABEHIKMNOPTX")
_CYRILLIC_LOOKALIKES = str.maketrans("ABCEHIKMOPTX", "АВСЕНІКМОРТХ")
_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
_WHITE_ON_BLACK = {
    **{chr(first + n): _LATIN[n] for first in (0x1F150, 0x1F170) for n in range(26)},
    **{chr(first + n): str(n + 1) for first in (0x2776, 0x2780, 0x278A) for n in range(10)},
}

_OWN_MARK = (
    "①-⑳⑴-⒛⒜-⒵Ⓐ-ⓩ❶-➓㈠-㈩㊀-㊉\U0001f110-\U0001f129\U0001f130-\U0001f149\U0001f150-\U0001f169"
)
_OWN_MARK += "\U0001f170-\U0001f189"
_MARK = re.compile(
    rf"""(?:[-*•]\s+)?(?P<wrap>\*\*|__|[*_`])?
    (?P<word>(?:option|choice|answer|alternative)\b[\s_]*|(?:选项|選項|选择|選択肢)\s*)?
    (?P<open>[(\[（［【〔<])?\s*
    (?P<label>(?P<own>[{_OWN_MARK}])|\d{{1,2}}|[IVXivx]{{2,5}}|[Ⅰ-ⅻ]|[^\W\d_])
    (?(wrap)(?P<wrap_end>(?P=wrap))?)
    (?P<close>\s?[)\]）］】〕]+[.:．：]?|(?(open)>)(?<=>)|[.．。][-)）]?|\s?[:：]|[、)\]]|\s?[-–—－](?=\s)|\t|\s\s)?
    (?(wrap)(?P<wrap_end_behind>(?P=wrap))?)
    (?P<rest>.*)\Z""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
# `A - B`, `A、B`: two letters, not a mark and a text.
_JOINS = re.compile(r"\s?[-–—－、]\Z")
# A letter in front of a text, in a dress that is not read as a mark: `B, dog`, `"B" dog`.
_LETTER_IN_FRONT = re.compile(
    r"(?:[\W_]|<[^<>]{1,20}>|\\[a-z]{1,12}\{?|\d{1,2}(?=[.)])|(?:option|opt|choice|answer|ans|item"
    r"|alternative|réponse|reponse|antwort|opción|opcion|respuesta|opção|resposta|opzione|risposta"
    r"|optie|вариант|ответ|보기|선택지|选项|選項|选择|選択肢)(?![A-Za-z]{2})){0,9}"
    r"(?P<label>[A-Za-z])(?![A-Za-z0-9]|['’][a-z])",
    re.IGNORECASE,
)
_SEARCHED = 40  # characters
_INVISIBLE = "\u200b\u200e\u200f\u2060\ufeff\u00ad"
_LETTERS_ALONE = re.compile(r"\W*[A-Za-z](?:[\W_]+[A-Za-z])*\W*\Z")


@dataclass(frozen=True)
class _Mark:
    """A mark in front of a text: what stands in it, and whether it can hardly be anything else.

    `is_firm`: brackets, emphasis, or a word like `Option`. `is_usual`: a capital, or set apart.
    """

    label: str
    text: str
    is_firm: bool
    is_usual: bool


@dataclass(frozen=True)
class LetteredOptions:
    """Options with letters A, B, C, ... in order. `written` are the letters the file gave them.

    `lettering` says what these are: None where the file gave none, then `written` goes by place.
    `is_contradictory`: some options bring a letter that is another one's by place, and not all
    bring one, or in a dress that is not read; a letter could mean either.
    """

    texts: tuple[str, ...]
    written: tuple[str, ...]
    lettering: Lettering | None = None
    is_contradictory: bool = False

    @property
    def letters(self) -> tuple[str, ...]:
        """A, B, C, ... by place. Where an option has no text its letter is all it says: then the
        written ones stay.
        """
        return self.written if "" in self.texts else tuple(_LATIN[: len(self.texts)])

    @property
    def lines(self) -> tuple[str, ...]:
        """`A. cat`, `B. dog`, ..."""
        return _lines(self.letters, self.texts)

    @property
    def written_lines(self) -> tuple[str, ...]:
        """The same under the letters that the file gave: for answers that were given to these."""
        return _lines(self.written, self.texts)

    def letter_of_index(self, index: int) -> str:
        """The letter of the option at `index` (from 0), or of the first option of the same text."""
        return self.letters[self._first(index)]

    def letter_of(self, gold: str) -> str:
        """The letter of the option that `gold` names: `C`, `(C)`, `C. a text`, or `a text`.

        A letter alone is read as a letter, never as a text. Of equal options the first one counts.
        Raises ValueError for what names no option, or could name two.
        """
        return self.letters[self.index_of(gold)]

    def index_of(self, gold: str) -> int:
        """The place (from 0) of the option that `gold` names, as `letter_of` reads it."""
        gold = gold.strip()
        mark = _mark(gold)
        if mark is not None:
            index = self._index_of_label(mark.label)
            if index is not None and mark.text in ("", self.texts[index]):
                if mark.text == "" and self.is_contradictory:
                    raise ValueError(
                        f"the gold answer {gold!r} could be two options: some bring letters of "
                        "their own that do not go by place. Give all options letters, or give the "
                        "gold answer as a text"
                    )
                return self._first(index)
        if gold and gold in self.texts:
            return self.texts.index(gold)
        raise ValueError(
            f"the gold answer {gold[:60]!r} is none of the {len(self.texts)} options, neither"
            " their letter nor their text"
        )

    def _index_of_label(self, label: str) -> int | None:
        """The option that a label means: one of the file's own, or one by place where these are
        no Latin letters but stand in order. None for neither, and where the two differ.
        """
        lettering = self.lettering or "Latin"
        found = {
            self.written.index(name) for name in _readings(lettering, label) if name in self.written
        }
        by_place = _LATIN[: len(self.texts)]
        latin = _latin(label) or ""
        if lettering not in ("Latin", "looks Latin") and latin and latin in by_place:
            is_exact = _plain(label) in self.written  # `I` of I, II, III
            if not is_exact and list(self.written) in _first_names(lettering, len(self.texts)):
                found.add(_LATIN.index(latin))
        return found.pop() if len(found) == 1 else None

    def _first(self, index: int) -> int:
        if not 0 <= index < len(self.texts):
            raise ValueError(
                f"gold index {index} names none of the {len(self.texts)} options (counted from 0)"
            )
        text = self.texts[index]
        return self.texts.index(text) if text else index


def letter_options(options: Sequence[str]) -> LetteredOptions:
    """Give each option its letter: `["cat", "dog"]` -> `A. cat`, `B. dog`.

    Letters that the file wrote are recognised when every option has its own; a letter and a point
    (`E. coli`, `S. aureus`) only where they begin with A or follow each other, numbers and other
    scripts only from the first on. Raises ValueError for fewer than 2 options, more than 26, or an
    empty one without a letter.
    """
    return _letter_options(tuple(options))


@lru_cache(maxsize=4096)
def _letter_options(options: tuple[str, ...]) -> LetteredOptions:
    if not 2 <= len(options) <= len(_LATIN):
        raise ValueError(f"a multiple choice question has 2 to 26 options, got {len(options)}")
    stripped = tuple(option.strip().strip(_INVISIBLE).strip() for option in options)
    found = [_mark(option) for option in stripped]
    marks = [mark for mark in found if mark is not None]
    if len(marks) == len(options):
        texts = tuple(mark.text for mark in marks)
        for lettering in _LETTERINGS:
            names = _written(lettering, marks, stripped)
            if names is not None:
                return LetteredOptions(texts, names, lettering)
    if "" in stripped:
        raise ValueError(f"option {stripped.index('') + 1} of {len(options)} is empty")
    by_place = tuple(_LATIN[: len(options)])
    is_contradictory = any(
        mark is not None
        and (letter := _latin(mark.label)) in by_place
        and letter != by_place[place]
        for place, mark in enumerate(found)
    )
    return LetteredOptions(
        stripped, by_place, None, is_contradictory or _are_out_of_order(stripped, by_place)
    )


def _are_out_of_order(options: Sequence[str], by_place: Sequence[str]) -> bool:
    """Whether all options have a letter in front, each its own, and one is another's by place."""
    found = [_LETTER_IN_FRONT.match(option[:_SEARCHED]) for option in options]
    letters = [match["label"].upper() for match in found if match]
    return len(set(letters)) == len(options) and any(
        letter in by_place and letter != place
        for letter, place in zip(letters, by_place, strict=True)
    )


def duplicate_options(options: Sequence[str]) -> tuple[str, ...]:
    """Letters of options whose text an earlier option already has: no answer can mean them."""
    lettered = letter_options(options)
    return tuple(
        letter
        for place, (letter, text) in enumerate(zip(lettered.letters, lettered.texts, strict=True))
        if text and text in lettered.texts[:place]
    )


def plain_label(text: str, labels: Sequence[str]) -> str | None:
    """Which of `labels` the `text` is, in whatever width, case or circle: `ｂ`, `Ⓑ` are `B`."""
    folded = {label.casefold(): label for label in labels}
    return folded.get(text.casefold()) or folded.get(_plain(text).casefold())


def _lines(letters: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{letter}. {text}".rstrip() for letter, text in zip(letters, texts, strict=True))


def _mark(text: str) -> _Mark | None:
    """The mark in front of `text`; a letter that stands alone is one."""
    found = _MARK.match(text)
    if found is None:
        return None
    rest, close = found["rest"], found["close"] or ""
    is_wrapped = bool(found["wrap_end"] or found["wrap_end_behind"])
    is_firm = bool(found["word"] or found["own"] or is_wrapped or (found["open"] and close))
    is_apart = bool(close or found["own"] or (is_firm and rest[:1].isspace()))
    if rest.strip() and not is_apart:
        return None
    if _JOINS.match(close) and _LETTERS_ALONE.match(rest):
        return None
    text = rest.strip()
    wrap = found["wrap"]
    if wrap and not is_wrapped:
        if text and not text.endswith(wrap):
            return None
        text = text.removesuffix(wrap).rstrip()
    is_spaced = not text or rest[:1].isspace() or close != "."
    return _Mark(
        label=found["label"],
        text=text,
        is_firm=is_firm or ")" in close or "）" in close or not text,
        is_usual=found["label"].isupper() or is_spaced,
    )


def _written(
    lettering: Lettering, marks: Sequence[_Mark], stripped: Sequence[str]
) -> tuple[str, ...] | None:
    """The names that the marks give under one way of lettering; None where they are none such."""
    num = len(marks)
    names = _common_names(lettering, [mark.label for mark in marks])
    if names is None or len(set(names)) < num:
        return None
    texts = [mark.text for mark in marks if mark.text]
    is_from_the_first = set(names) == set(_LATIN[:num])
    # `A. M.` and `P. M.`: without their marks they would be one.
    keeps_apart = len(set(texts)) == len(texts) or len(set(stripped)) < num
    if lettering == "Latin":
        follow = "".join(sorted(names)) in _LATIN
        is_usual = "A" in names and all(mark.is_usual for mark in marks)
        is_sure = is_usual or follow or all(mark.is_firm for mark in marks)
        return names if is_from_the_first or (keeps_apart and is_sure) else None
    if lettering == "looks Latin":
        return names
    starts_with_a_digit = any(text[0].isdecimal() for text in texts)
    if len(texts) < num or not keeps_apart or (lettering == "number" and starts_with_a_digit):
        return None
    return names


def _common_names(lettering: Lettering, labels: Sequence[str]) -> tuple[str, ...] | None:
    """The labels as names of one lettering; all but Latin ones must be a whole list of names."""
    if lettering == "Latin":
        latin = [_latin(label) for label in labels]
        return None if None in latin else tuple(name for name in latin if name is not None)
    wholes = [set(names) for names in _first_names(lettering, len(labels))]
    for readings in zip(*(_readings(lettering, label) for label in labels), strict=True):
        if set(readings) in wholes:
            return readings
    return None


def _readings(lettering: Lettering, label: str) -> tuple[str, ...]:
    """What a label may be in one lettering: itself, or the letter that it looks like."""
    plain = _plain(label)
    match lettering:
        case "looks Latin":
            return (plain.translate(_LOOKALIKES),)
        case "other script":
            return (plain, plain.translate(_CYRILLIC_LOOKALIKES))
        case _:
            return (plain,)


def _first_names(lettering: Lettering, num: int) -> list[list[str]]:
    """The lists of `num` names that a lettering begins with, in order."""
    match lettering:
        case "number":
            return [[str(first + n) for n in range(num)] for first in (1, 0)]
        case "Roman":
            return [list(_ROMAN[:num])] if num <= len(_ROMAN) else []
        case "other script":
            return [list(names[:num]) for names in _ALPHABETS if num <= len(names)]
        case _:
            return [list(_LATIN[:num])]


def _latin(label: str) -> str | None:
    plain = _plain(label)
    return plain if len(plain) == 1 and plain in _LATIN else None


def _plain(label: str) -> str:
    """A label as a capital or a number: `ｂ`, `Ⓑ`, `⒝` -> `B`; `②`, `２` -> `2`; `Ⅱ` -> `II`."""
    normal = unicodedata.normalize("NFKC", _WHITE_ON_BLACK.get(label, label)).strip("().")
    return str(int(normal)) if normal.isdecimal() else normal.upper()
