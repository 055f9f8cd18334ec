"""What models write around an answer: markdown, `\\boxed{}`, "the answer is"; how it comes off."""

import re

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_MINUS_SIGNS = dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2212), "-")
_SPACES = dict.fromkeys((0x00A0, 0x2009, 0x202F, 0x3000), " ")
_INVISIBLE = dict.fromkeys((0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF))
_QUOTES = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x3002: ".", 0x3001: ","}
_PLAIN = _FULL_WIDTH | _MINUS_SIGNS | _SPACES | _INVISIBLE | _QUOTES

_WRAPPING = "*_`\"'$# \t\r\n"
_BOXED = re.compile(r"\\boxed\{(.*)\}[.\s]*\Z", re.DOTALL)
_CLAIM = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+|my\s+)?(?:(?:correct|right|best|final)\s+)*"
    r"(?:answer\s*(?:is|should be|would be|must be|[:=])|(?:option|choice|letter)\b"
    r"(?:\s*(?:is|should be|would be|must be)\b)?)[\s*_:]*(?:(?:option|choice|letter)\b[\s:]*)?",
    re.IGNORECASE,
)


def plain_characters(text: str) -> str:
    """Full-width forms, typographic minus signs, quotes, spaces as ASCII; no invisible ones."""
    return text.translate(_PLAIN)


def bare_answer(text: str) -> str:
    """`**The answer is: (B)**` -> `(B)`. Takes off what surrounds an answer, never a part of it."""
    bare = plain_characters(text).strip(_WRAPPING)
    if boxed := _BOXED.match(bare):
        bare = boxed.group(1).strip(_WRAPPING)
    if claim := _CLAIM.match(bare):
        bare = bare[claim.end() :].strip(_WRAPPING)
        if boxed := _BOXED.match(bare):
            bare = boxed.group(1).strip(_WRAPPING)
    return bare
