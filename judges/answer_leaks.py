"""Does an observation claim the answer instead of saying what is seen?

A judge that is shown the correct answer may take "so the answer is B" for support. What was seen or
read in the video is no leak, even when it is the answer: `the sign reads "B"`, `two cups stand`.
"""

import re

from judges.scoring.choices import read_choices
from judges.scoring.text import plain_characters
from schemas.questions import ProblemType, VideoQuestion

# The patterns run over text in which white space is single and emphasis is gone, so `\s` needs no
# repetition, and none is unbounded: long texts stay linear.
_MARKS = re.compile(r"[*_`]+")
_SPACES = re.compile(r"\s+")

_IS = "(?:is|was|are|(?:would|should|must|could|has to) be|(?:seems|appears) to be|equals)"
_CERTAIN = "(?:correct|right|true|best|final|valid)"
# A letter as `B`, `(B)` or `"B"`. A and I before a word in lower case are words themselves.
_LETTER = (
    r"[(\[\"']{0,2}(?P<letter>[A-Z])(?![\w'&/-])"
    r"(?!(?<=[AI])\s(?!(?:is|was|as|and|or|because|since|would|must|seems?|matches)\b)[a-z])"
)
_END = r"(?=[)\]\"']{0,2}\s?(?:[.,;:!?\n]|\Z|(?:because|since|as|and|so|given|here)\b))"
# "The answer is not visible", "is written on the board": about an answer, not the answer.
_SAYS_WHAT = (
    r"(?!\s(?:not|never|un[a-z]{2,12}|hidden|missing|blank|covered|cut\soff|on\sthe|below|above|"
    r"(?:(?:being|also|then|first|partly)\s)?(?:shown|written|displayed|visible|given|circled|marked|"
    r"revealed|highlighted|printed|underlined|announced|checked|typed)(?!\s(?:to\sbe|as)\b))\b)"
)

_CLAIMS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"<\s?/?\s?answer\s?>",
        r"\\boxed\s?\{",
        # the answer is ..., Answer: ...; not: her answer is ..., the student's answer is ...
        rf"(?<!'s )(?<!his )(?<!her )(?<!their )\b(?:(?:the|my)\s)?(?:{_CERTAIN}\s){{0,3}}answer\s?"
        rf"(?:to\s(?:the|this)\squestion\s)?(?:\b{_IS}\b{_SAYS_WHAT}|[:=])\s?[^\s.?!]",
        r"\b(?:the\s)?(?:question|problem)'s\sanswer\sis\b",
        r"\bthe\sanswer\s(?:as|being|to\sbe)\s\S",
        # the correct option is ..., ... is the correct answer, ... makes it the right choice
        r"\b(?:the\s)?(?:correct|right|best)\s(?:option|choice|letter|alternative)\s?"
        rf"(?:\b{_IS}\b{_SAYS_WHAT}|[:=])",
        r"(?<!what )\b(?:is|as|mak(?:es|ing)\s\S{1,40})\sthe\s(?:correct|right)"
        r"\s(?:answer|option|choice)\b",
    )
)
_LETTER_CLAIMS = tuple(
    re.compile(pattern)
    for pattern in (
        # Option C, choices A and B, answer choice (D); not: the option B button
        rf"(?<![\w-])(?:[Oo]ption|OPTION|[Cc]hoice|[Aa]lternative)s?:?\s?{_LETTER}"
        r"(?!\s(?:button|key|label|sign|box|menu|lane|tab)\b)",
        r"(?i:\b(?:option|choice)\s\(?(?P<letter>[a-z])\)?\sis\s(?:the\s)?(?:correct|right|best|true)\b)",
        # so B is right, B must be the correct answer
        r"(?:\A|(?<=[.!?;:,\n(])|(?<=\b[Ss]o)|(?<=\b[Tt]hus)|(?<=[Hh]ence)|(?<=[Tt]herefore)|"
        r"(?<=\bthat)|(?<=\bthen)|(?<=\bonly)|(?<=because)|(?<=answer)|(?<=letter)|(?<=clearly)|"
        rf"(?<=\band))\s?{_LETTER}[)\]\"']{{0,2}}\s{_IS}\s(?:(?:clearly|also)\s)?(?:the\s)?"
        rf"(?:most\slikely\s)?{_CERTAIN}(?:\s(?:answer|option|choice|one))?{_END}",
        # Therefore, B.
        rf"\b(?:[Ss]o|[Tt]hus|[Hh]ence|[Tt]herefore)[,:]?\s{_LETTER}{_END}",
        # I choose B, we go with (C)
        r"\b(?:I|we|We)(?:\s(?:would|will|can|must|should|therefore|thus)){0,2}\s"
        rf"(?:choose|select|pick|answer|go\swith|conclude)\s(?:[Oo]ption\s|[Aa]nswer\s)?{_LETTER}",
        # supports answer B, pointing to answer (C)
        r"\b(?:support|match|indicat|suggest|confirm|correspond|point|lead|consistent|align)\w{0,5}"
        rf"\s(?:(?:to|with)\s)?(?:the\s)?answer\s{_LETTER}",
        # ruling out A and D
        rf"\b(?:[Rr]ul(?:e|es|ed|ing)\sout|[Ee]liminat(?:e|es|ed|ing))\s{_LETTER}{_END}",
    )
)

# Words that introduce what is read or heard in the video: anywhere before a quotation in its
# sentence, or directly before unquoted text.
_INTRODUCES_QUOTE = re.compile(
    r"\b(?:reads?|reading|says?|saying|said|states?|stating|text|words?|sign|caption|label\w{0,4}|"
    r"titled?|subtitles?|written|writes|writing|prints?|printed|display(?:s|ed|ing)?|show(?:s|n|ing)?|"
    r"banner|poster|screen|board|page|slide|paper|sheet|inscription|message|speaks|asks|asking|"
    r"exclaims|announces|announcing|narrator|voice|host|letters?|appears?)\b[^.!?\n]{0,80}\Z",
    re.IGNORECASE,
)
_INTRODUCES_TEXT = re.compile(
    r"\b(?:reads?|reading|says?|saying|text|caption|labell?ed|titled|written|words)[:,]?\s"
    r"(?:the\s)?\Z",
    re.IGNORECASE,
)
_BEFORE = 120  # characters that are searched for such words
_QUOTED = re.compile(r"\"[^\"\n]{2,400}\"|(?<!\w)'(?=\w)[^'\n]{2,400}'(?!\w)")


def find_answer_leak(question: VideoQuestion, observation: str) -> str | None:
    """The words of `observation` that claim the answer or an option letter, or None.

    Quoted text counts as seen when words like `reads` or `the sign` introduce it.
    """
    text = _SPACES.sub(_one_space, _MARKS.sub("", plain_characters(observation)).strip())
    claimable = _QUOTED.sub(_blank_what_is_seen, text)
    claims = [match for claim in _CLAIMS for match in claim.finditer(claimable)]
    if question.problem_type is ProblemType.MULTIPLE_CHOICE:
        letters = {choice.letter for choice in read_choices(question.options)}
        claims += [
            match
            for claim in _LETTER_CLAIMS
            for match in claim.finditer(claimable)
            if match["letter"].upper() in letters
        ]
    leaks = [match for match in claims if not _INTRODUCES_TEXT.search(_text_before(match))]
    if not leaks:
        return None
    first = min(leaks, key=lambda match: (match.start(), -match.end()))
    rest = re.match(r"[^.!?\n]{0,40}", text[first.end() :])
    return f"{text[first.start() : first.end()]}{rest.group() if rest else ''}".strip()


def _one_space(spaces: re.Match[str]) -> str:
    return "\n" if "\n" in spaces.group() else " "


def _blank_what_is_seen(quote: re.Match[str]) -> str:
    is_seen = _INTRODUCES_QUOTE.search(_text_before(quote))
    return "." * len(quote.group()) if is_seen else quote.group()


def _text_before(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - _BEFORE) : match.start()]
    return before.rpartition("\n")[2]
