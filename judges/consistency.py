"""Which option a reasoning ends up with, read from its text alone, and whether that is the answer.

Think-answer mismatch (VideoP2R, arXiv 2511.11113, section 12): the letter that the reasoning
concludes differs from the letter in `<answer>`. The paper lets a language model extract the letter
(`judges.consistency_llm`); the rules here do it without one. Definitive phrases win over names of
options, later text wins over earlier text, what is hedged or denied does not count, and where
nothing is concluded the extraction says so instead of guessing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from judges.scoring.choices import Choice, chosen_letter, read_choices
from judges.scoring.thinking import spoken

Rule = Literal["states the letter", "names the option", "words of the option", "nothing concluded"]

_LETTER = r"\*{0,2}[(\[]?\b(?P<letter>[A-J])\b[)\]]?\*{0,2}"
_ANSWER = r"(?:answer|option|choice|conclusion|explanation|statement|description|candidate)"
_WOULD_BE = r"(?:would|must|should|might|could|may) be"
_BEST = (
    r"(?:clearly |likely |probably )?(?:the )?(?:most |only |best )?(?:correct|right|best|accurate"
    r"|appropriate|plausible|suitable|likely|logical|fitting|answer)"
)
# Each says that this letter is the one, not only that there is such an option.
_DEFINITIVE = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b(?i:{_ANSWER})\b(?:[^.;:\n]{{0,60}}?\s(?i:is|{_WOULD_BE})\b|:)"
        rf"[ \t]*(?i:most likely |likely |clearly )?(?i:option |choice |answer )?{_LETTER}"
        r"(?=[ \t]*(?:[.,:;)\n]|$|because|as\b|since|which))",
        rf"\b(?i:I (?:would |will )?(?:choose|select|pick|go with)) (?i:option |answer )?{_LETTER}",
        rf"\b(?i:option|choice|answer) {_LETTER}(?:,\s[^,.\n]{{0,160}},)?"
        rf" (?i:is|seems to be|appears to be|seems|would be) (?i:{_BEST})\b",
        rf"\b(?i:therefore|thus|hence|so),? [^.\n]{{0,120}}?\b(?i:option|answer|choice) {_LETTER}",
        r"\b(?i:corresponds to|matches|aligns with|supports|points to|leads to|is)"
        rf" (?i:option|answer|choice) {_LETTER}",
    )
)
_DENIED = re.compile(
    r"\b(?:not|never|incorrect|wrong|rather than|instead of|unlike|rul(?:es|ing|ed)? out"
    r"|eliminat\w+|exclud\w+|neither|nor|other than|contrary to|cannot|without|no|less likely"
    r"|unlikely|opposed to)\b[^.;\n]{0,120}\Z|n't\b[^.;\n]{0,120}\Z",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"\A[^.;,\n]{0,40}\b(?:is|are|was|does|do|would|can)(?: not\b|n't\b)"
    r"|\A[^.;,\n]{0,30}\b(?:incorrect|ruled out|less likely|unlikely|would)\b"
    r"|\A[^.;\n]{0,400}\b(?:does not|do not|is not|are not|doesn't|don't|isn't|aren't|not) "
    r"(?:fit|match|apply|align|explain|relevant|evident|shown|seen|indicated|mentioned|the case)",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:might|may|could|perhaps|possibly|maybe|if|also|however"
    r"|would (?:show|have|involve|typically|require|need|help))\b",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"\b(?:therefore|thus|hence|so,|in conclusion|in summary|conclud\w+|the (?:correct )?answer"
    r"|given (?:the|th)\w*|based on|considering|most \w+ (?:\w+ )?|best|correct)",
    re.IGNORECASE,
)
_INDICATES = re.compile(
    r"\b(?:overall|align\w*|indicat\w+|suggest\w*|impl(?:y|ies)|consistent with|matches|represents?"
    r"|characteristic of|evidence of|example of|demonstrat\w+|called|known as|shows?|is an?"
    r"|is the)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\W[A-J]\.)[ \t]+(?=[A-Z*(\\-])|\n+")
# A line that goes through the options: it weighs one, and concludes nothing.
_LIST_ITEM = re.compile(
    r"\s*(?:[-*•]|\d{1,2}[.)]|\(?[A-J][.):]\s|\*\*|(?i:option)\s+[A-J]\b"
    r"|(?i:this|the (?:first|second|third|fourth|fifth|last|other)) (?i:option|choice|answer)\b)"
)
_BRACKETS = re.compile(r"\(([^()]*)\)")
_WORD = re.compile(r"[^\W_]+(?:[.,]\d+)?")
_COMMON = frozenset(
    _WORD.findall(
        "the a an of in on at to from and or is are was were be been by with for as it its that "
        "this these those which their they than then there into due has have had not no option"
        " answer"
    )
)
# Options such as "No", "2" or "Both" stand in many a sentence that does not choose them.
_MIN_NAME = 4
_NOT_A_NAME = frozenset(
    ["both", "neither", "none", "none of the above", "first", "second", "same", "less", "more"]
)
_SAID_TO_BE = re.compile(r"(?:\b(?:is|be|are|answer|equals|approximately|about)|[=:≈])\W{0,3}\Z")
_MIN_OWN_WORDS = 2
_LAST_SENTENCES = 2  # where a reasoning ends with what it shows, without saying "therefore"
_MIN_SHARE = 0.6  # of an option's own words, to be recognised in other words
_MIN_LEAD = 0.3  # over the next option, so that two similar ones are not distinguished by chance


RULES_ID = "rules-1"  # what made an extraction: changed with every change of the rules


@dataclass(frozen=True)
class Extraction:
    """The letter a reasoning concludes, or None; by which rule; where in the text, or None."""

    letter: str | None
    rule: Rule
    span: tuple[int, int] | None = None


def reasoning_of(output: str) -> str:
    """The text inside the last thinking, or what stands before the answer where it does not end.

    Without either mark nothing parts reasoning from answer, so there is none.
    """
    if thoughts := spoken(output).thoughts:
        return thoughts[-1].strip()
    start = output.rfind("<think>")
    if start < 0 and "<answer>" not in output:
        return ""
    text = output[start + len("<think>") :] if start >= 0 else output
    ends = [place for tag in ("</think>", "<answer>") if (place := text.find(tag)) >= 0]
    return (text[: min(ends)] if ends else text).strip()


def extract_conclusion(think: str, options: Sequence[str]) -> Extraction:
    """The option that `think` ends up with; of equal options the first one's letter.

    Raises ValueError for options that cannot be lettered (fewer than 2, an empty one).
    """
    choices = read_choices(options)
    canonical = {choice.letter: choice.canonical for choice in choices}
    stated = _last_stated(think, canonical)
    if stated is not None:
        return stated
    for sentence in _concluding(think):
        found = _named_in(sentence, choices)
        if found is None and _CONCLUDES.search(sentence.text):
            found = _by_words(sentence, choices)
        if found is not None:
            return found
    return _only_one_named(think, choices) or Extraction(None, "nothing concluded")


def is_mismatch(extraction: Extraction, answer: str, options: Sequence[str]) -> bool | None:
    """Whether reasoning and answer differ; None where either of them names no option."""
    given = chosen_letter(answer, options)
    if extraction.letter is None or given is None:
        return None
    return extraction.letter != given


def _last_stated(think: str, canonical: dict[str, str]) -> Extraction | None:
    """The last definitive statement of a letter; a hedged one only if there is no other."""
    found: list[tuple[bool, int, int, str]] = []
    for pattern in _DEFINITIVE:
        for match in pattern.finditer(think):
            letter = canonical.get(match["letter"])
            before = think[_sentence_start(think, match.start()) : match.start("letter")]
            if letter is None or _DENIED.search(before) or _is_denied_after(think, match.end()):
                continue
            is_hedged = bool(_HEDGE.search(before))
            found.append((not is_hedged, match.start("letter"), match.end("letter"), letter))
    if not found:
        return None
    _, start, end, letter = max(found)
    return Extraction(letter, "states the letter", (start, end))


def _sentence_start(text: str, place: int) -> int:
    return max((match.end() for match in _SENTENCE_END.finditer(text, 0, place)), default=0)


def _is_denied_after(text: str, place: int) -> bool:
    return bool(_DENIED_AFTER.match(text[place : place + 80]))


@dataclass(frozen=True)
class _Sentence:
    start: int
    text: str


def _sentences(text: str) -> Iterator[_Sentence]:
    """Sentences with their places, in order; lines that go through the options are left out."""
    start = 0
    ends = [(match.start(), match.end()) for match in _SENTENCE_END.finditer(text)]
    for end, next_start in (*ends, (len(text), len(text))):
        sentence = text[start:end]
        if sentence.strip() and not _LIST_ITEM.match(sentence):
            yield _Sentence(start, sentence)
        start = next_start


def _concluding(think: str) -> Iterator[_Sentence]:
    """Sentences that may conclude, in the order in which they are believed.

    First those of the second half that say so ("therefore", "most likely"), the last one first;
    then what the last few sentences say is shown. What is hedged or adds to something is no
    conclusion.
    """
    sentences = list(_sentences(think))
    plain = [one for one in sentences if not _HEDGE.search(one.text)]
    strong = [
        one
        for one in plain
        if one.start + len(one.text) > len(think) / 2 and _CONCLUDES.search(one.text)
    ]
    yield from reversed(strong)
    last = sentences[-_LAST_SENTENCES:]
    yield from (one for one in reversed(last) if one in plain and _INDICATES.search(one.text))


def _only_one_named(think: str, choices: Sequence[Choice]) -> Extraction | None:
    """The option that the reasoning names without concluding, where it names no other one."""
    plain = [one for one in _sentences(think) if not _HEDGE.search(one.text)]
    found = [named for one in plain for named in _all_named(one, choices)]
    if len({named.letter for named in found}) != 1:
        return None
    return found[-1]


def _named_in(sentence: _Sentence, choices: Sequence[Choice]) -> Extraction | None:
    """The one option whose text stands in the sentence and is not denied."""
    named = _all_named(sentence, choices)
    return named[-1] if len({one.letter for one in named}) == 1 else None


def _all_named(sentence: _Sentence, choices: Sequence[Choice]) -> list[Extraction]:
    """The options whose text stands in the sentence and is not denied, in its order."""
    found: list[tuple[str, int, int]] = []
    for choice in choices:
        for pattern in _patterns(choice):
            for match in pattern.finditer(sentence.text):
                before = sentence.text[: match.start()]
                is_name = len(match[0]) >= _MIN_NAME and match[0].lower() not in _NOT_A_NAME
                if not is_name and not _SAID_TO_BE.search(before):
                    continue
                if not _DENIED.search(before) and not _DENIED_AFTER.match(
                    sentence.text[match.end() :]
                ):
                    found.append((choice.canonical, match.start(), match.end()))
    return [
        Extraction(letter, "names the option", (sentence.start + start, sentence.start + end))
        for letter, start, end in sorted(found, key=lambda one: one[1])
        if not any(_is_inside((letter, start, end), other) for other in found)
    ]


def _patterns(choice: Choice) -> Iterator[re.Pattern[str]]:
    """An option's text, and what stands outside and inside its brackets, as whole words."""
    texts = {choice.text, _BRACKETS.sub(" ", choice.text), *_BRACKETS.findall(choice.text)}
    for text in sorted(texts):
        words = [re.escape(word) for word in text.strip(" .,").split()]
        if words:
            yield re.compile(
                r"(?<![\w.-])" + r"[\s\W]{1,3}".join(words) + r"(?![\w-])", re.IGNORECASE
            )


def _is_inside(one: tuple[str, int, int], other: tuple[str, int, int]) -> bool:
    length, others = one[2] - one[1], other[2] - other[1]
    return length < others and other[1] <= one[1] and one[2] <= other[2]


def _by_words(sentence: _Sentence, choices: Sequence[Choice]) -> Extraction | None:
    """The option whose own words the sentence uses, clearly more than any other's."""
    used = {_stem(word) for word in _WORD.findall(_without_denials(sentence.text).lower())}
    own = {choice.canonical: _own_words(choice, choices) for choice in choices}
    shares = sorted(
        ((len(words & used) / len(words), letter) for letter, words in own.items() if words),
        reverse=True,
    )
    if len(shares) < 2:
        return None
    (best, letter), (next_best, _) = shares[:2]
    if len(own[letter]) < _MIN_OWN_WORDS or best < _MIN_SHARE or best - next_best < _MIN_LEAD:
        return None
    end = sentence.start + len(sentence.text)
    return Extraction(letter, "words of the option", (sentence.start, end))


def _own_words(choice: Choice, choices: Sequence[Choice]) -> frozenset[str]:
    """Stems of an option's words that not all options share."""
    words = {other.letter: _stems(other.text) for other in choices}
    common = frozenset.intersection(*words.values())
    return words[choice.letter] - common


def _stems(text: str) -> frozenset[str]:
    return frozenset(_stem(word) for word in _WORD.findall(text.lower()) if word not in _COMMON)


def _stem(word: str) -> str:
    """A word without its ending, roughly: enough to equate `rotating` with `rotates`."""
    for ending in ("ations", "ation", "ing", "ies", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)].removesuffix("e")
    return word.removesuffix("e") if len(word) > 4 else word


def _without_denials(sentence: str) -> str:
    return re.sub(
        r"\b(?:not|rather than|instead of|unlike)\b[^.,;]*", " ", sentence, flags=re.IGNORECASE
    )
