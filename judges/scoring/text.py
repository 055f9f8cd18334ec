"""The answer in a model's output: finding it, and taking off what surrounds it."""

import re
from collections import deque

from judges.scoring.thinking import Spoken, spoken

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_MINUS_SIGNS = dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2212), "-")
_SPACES = dict.fromkeys((0x00A0, 0x2009, 0x202F, 0x3000), " ")
_INVISIBLE = dict.fromkeys((0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF))
_QUOTES = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x3002: ".", 0x3001: ","}
_PLAIN = _FULL_WIDTH | _MINUS_SIGNS | _SPACES | _INVISIBLE | _QUOTES

_WRAPPING = "*_`\"'$# \t\r\n"
_PAIRS = {
    "【": "】",
    "「": "」",
    "『": "』",
    "《": "》",
    "〔": "〕",
    "\\(": "\\)",
    "\\[": "\\]",
    "{": "}",
}
_BRACED = re.compile(
    r"\\(?:d?boxed|fbox|framebox|mbox|text(?:bf|it|rm|sf|tt|normal)?|math(?:bf|rm|it|sf|tt|bb)|bm|"
    r"boldsymbol|operatorname)\s*\{"
)
_POINT_BEHIND = re.compile(r"([*_`\"'$}\])】」』》〕])\s?[.,;!]+\Z")
_CLAIM = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+|my\s+)?(?:(?:correct|right|best|final)\s+)*"
    r"(?:answer\s*(?:is|should be|would be|must be|[:=])|(?:option|choice|letter)\b"
    r"(?:\s*(?:is|should be|would be|must be)\b)?)[\s*_:]*(?:(?:option|choice|letter)\b[\s:]*)?",
    re.IGNORECASE,
)
_OTHER_CLAIM = re.compile(
    r"(?:(?:因此|所以|故|综上)[,，]?\s*)?(?:(?:最终|正确)?(?:的)?(?:答案|选项|選項)(?:应该|應該|应)?\s*(?:是|为|為|[:：])"
    r"|应?(?:选择?|选项|選項|選択肢)[:：]?(?=\s*[A-Za-z(（])|(?:正解|答え|解答)は?\s*[:：]?|(?:정답|답)(?:은|는)?\s*[:：]?"
    r"|(?:respuesta|réponse|reponse|antwort|risposta|resposta|ответ|उत्तर|الإجابة|الجواب|jawaban|cevap"
    r"|đáp án)\s*[:：])[\s*_:：]*(?:选项|選項)?\s*",
    re.IGNORECASE,
)

_ANY_BLOCK = re.compile(r"<\s*answer\s*>((?:(?!<\s*answer\s*>).)*?)<\s*/\s*answer\s*>", re.I | re.S)
_OPEN_TAG = re.compile(r"<\s*answer\s*>", re.IGNORECASE)
_OTHER_TAG = re.compile(r"<\s*(/?)\s*(?:think|observation|time)\s*>", re.IGNORECASE)
_ENDING = re.compile(
    r"(?:(?<!wrong )(?<!incorrect )(?<!false )(?<!worst )"
    r"\b(?:answer|(?:correct|right|best)\s+(?:option|choice))[*_\s]*"
    r"(?:is|:|：|=|would be|must be)"
    r"|(?:答案|正确选项|正確選項)[*_\s]*(?:应该|應該|应)?(?:是|为|為|:|：))[*_\s:：]*(?=\S)",
    re.IGNORECASE,
)
# Behind a claim: what follows belongs to it, and may be another one.
_TAKES_BACK = re.compile(
    r"[\s.,;:!?…*_()–—-]*(?:but\s+)?(?:wait|no(?=\s?[,.!])|hmm+|hold on|actually|correction|oops"
    r"|sorry|on second thoughts?|scratch that|(?:or )?rather|i mean|let me (?:re|correct))\b"
    r"[^\n]{0,200}",
    re.IGNORECASE,
)
# A line of a list of options: `B. cow`, `- **(B)** cow`, `Option B: cow`.
_LISTED = re.compile(
    r"(?:[-*+•>#]+\s+|[0-9]+[.)]\s+)?[*_]*(?:(?:option|choice)\s+)?[(\[]?(?P<letter>[A-Za-z])"
    r"[*_]*[)\].:]+[*_]*\s*\S",
    re.IGNORECASE,
)
# A point that ends a sentence: not that of `St. Louis`, `approx. 3.5`, `No. 5`, `J. K. Rowling`.
_SHORTENED = (
    *("st", "mt", "ft", "dr", "mr", "mrs", "ms", "prof", "gen", "col", "capt", "lt", "sgt", "rev"),
    *("approx", "ca", "vs", "cf", r"e\.g", r"i\.e"),
)
_SENTENCE_END = re.compile(
    "".join(rf"(?<!\b{word})" for word in _SHORTENED)
    + r"[.!](?!(?<=\bno\.)\s[0-9])(?!(?<=\bfig\.)\s[0-9])"
    + r"(?-i:(?!(?<=\b[A-Z]\.)\s[A-Z]\.\s?[A-Z][a-z]))\s"
    + r"|。|(?<![,\s])[,\s]+(?:because|since|as)\s",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\d?boxed\s*\{")
_HEADING = re.compile(r"[#*_\s]*(?:final\s+)?answer[*_\s]*", re.IGNORECASE)
_BETWEEN_BOXES = re.compile(r"[ \t$,;/&*]*(?:or|and)?[ \t$*]*")
_MAX_BOXED = 1_000  # characters
_MAX_BOXES = 8
_MAX_CLAIMS = 50
_MAX_LAYERS = 12
_MAX_LAST_LINE = 80


def extract_strict(output: str) -> str | None:
    """The stripped content of the one well-formed `<answer>` block; None with none or several.

    A block inside thinking is none.
    """
    if output.count("<answer>") != 1 or output.count("</answer>") != 1:
        return None
    reply = spoken(output)
    start, end = reply.text.find("<answer>"), reply.text.find("</answer>")
    if not 0 <= start < end or _is_thought(reply, start, end + len("</answer>")):
        return None
    return reply.text[start + len("<answer>") : end].strip()


def extract_tolerant(output: str) -> str | None:
    """The last answer block's content, else what an answer-like ending says, else None.

    Endings, in this order: an answer tag left open; then, after the last closing tag, the last
    "answer is ...", the last `\\boxed{}`, a last line that stands alone or is short, unless it is
    one of a list of options. A text that ends inside another tag has none. What is thought is not
    looked at.
    """
    is_tagged, found = tagged_answer(output)
    if is_tagged:
        return found
    ending = untagged_ending(output)
    claims = claims_in(ending)
    if claims:
        return claims[-1] or None
    lines = [line.strip() for line in ending.splitlines() if line.strip()]
    if lines and (len(lines) == 1 or len(lines[-1]) <= _MAX_LAST_LINE):
        return None if _are_listed(lines[-2:]) else lines[-1]
    return None


def _are_listed(lines: list[str]) -> bool:
    """Whether two lines go through the options: neither of them says which one is the answer."""
    found = [_LISTED.match(line) for line in lines]
    return len({match["letter"].upper() for match in found if match}) == 2


def tagged_answer(output: str) -> tuple[bool, str | None]:
    """Whether an answer tag is said at all, and what stands in the last one."""
    reply = spoken(output)
    blocks = [
        block[1].strip()
        for block in _ANY_BLOCK.finditer(reply.text)
        if not _is_thought(reply, block.start(), block.end())
    ]
    if blocks:
        return True, blocks[-1]
    opened = list(_OPEN_TAG.finditer(reply.text))
    if opened and not _ANY_BLOCK.search(reply.text):
        return True, reply.text[opened[-1].end() :].strip() or None
    return False, None


def untagged_lines(output: str) -> list[str]:
    """The lines of a reply without an answer tag, empty ones and a heading "Answer" left out."""
    is_tagged, _ = tagged_answer(output)
    ending = "" if is_tagged else untagged_ending(output)
    lines = [line.strip() for line in ending.splitlines() if line.strip()]
    return lines[1:] if lines and _HEADING.fullmatch(lines[0]) else lines


def untagged_ending(output: str) -> str:
    """What is said after the last closing tag; nothing where a tag is left open."""
    reply = spoken(output)
    tags = list(_OTHER_TAG.finditer(reply.text))
    if reply.open_at is not None or (tags and not tags[-1].group(1)):
        return ""
    return reply.text[tags[-1].end() :] if tags else reply.text


def claims_in(text: str) -> list[str]:
    """What `text` claims to be the answer, in order: "answer is ...", else what stands in boxes.

    A claim ends with its sentence; one that is taken back (`B. Wait, no: C`) is empty. Boxes that
    are joined (`B` or `C`) are one claim.
    """
    claims: list[str] = []
    end = -1
    for match in deque(_ENDING.finditer(text), _MAX_CLAIMS):
        if match.start() < end:
            continue
        line = text[match.end() :].partition("\n")[0]
        claim = _SENTENCE_END.split(line, maxsplit=1)[0]
        end = match.end() + len(claim)
        taken_back = _TAKES_BACK.match(text, end)
        if taken_back and not _ENDING.search(text, end, taken_back.end()):
            claim = ""
        claims.append(claim.strip().rstrip(".。").strip())
    return claims or _boxed(text)


def _boxed(text: str) -> list[str]:
    boxes: list[str] = []
    end = -1
    for box in deque(_BOX.finditer(text), _MAX_BOXES):
        inside = _braced(text, box.end())
        if inside is None:
            continue
        between = text[end : box.start()] if boxes else ""
        if boxes and _BETWEEN_BOXES.fullmatch(between) and inside.strip() != boxes[-1]:
            boxes[-1] += f" {between.strip(' $*')} {inside.strip()}"
        else:
            boxes.append(inside.strip())
        end = box.end() + len(inside) + 1
    return boxes


def _is_thought(reply: Spoken, start: int, end: int) -> bool:
    """Whether a block stands in thinking that does not end. At the end of the reply, or before
    another tag, only the end of thinking was forgotten.
    """
    if reply.open_at is None or start < reply.open_at:
        return False
    behind = reply.text[end : end + _MAX_LAST_LINE].lstrip()
    return bool(behind) and not behind.startswith("<")


def _braced(text: str, start: int) -> str | None:
    """What stands up to the brace that closes the one before `start`, on the same line."""
    depth = 1
    for place in range(start, min(len(text), start + _MAX_BOXED)):
        character = text[place]
        depth += (character == "{") - (character == "}")
        if character == "\n":
            return None
        if not depth:
            return text[start:place]
    return None


def plain_characters(text: str) -> str:
    """Full-width forms, typographic minus signs, quotes, spaces as ASCII; no invisible ones."""
    return text.translate(_PLAIN)


def bare_answer(text: str) -> str:
    """`**The answer is: (B)**.` -> `(B)`. Takes off what surrounds an answer, no part of it."""
    bare = plain_characters(text)
    for _ in range(_MAX_LAYERS):
        inside = _peeled(bare)
        if inside == bare:
            break
        bare = inside
    return bare


def _peeled(text: str) -> str:
    """One layer less: emphasis and quotes, brackets of LaTeX and of other scripts, a claim."""
    bare = _POINT_BEHIND.sub(r"\1", text.strip(_WRAPPING)).strip(_WRAPPING)
    if braced := _BRACED.match(bare):
        inside = _braced(bare, braced.end())
        if inside is not None and not bare[braced.end() + len(inside) + 1 :].strip(". \t\r\n"):
            return inside
    for opening, closing in _PAIRS.items():
        inside = bare.removeprefix(opening).removesuffix(closing)
        if len(inside) == len(bare) - len(opening) - len(closing) and opening not in inside:
            return inside
    claim = _CLAIM.match(bare) or _OTHER_CLAIM.match(bare)
    return bare[claim.end() :] if claim else bare
