"""Hostile texts, JSON values and bytes: strategies for Hypothesis, mutations for a `Random`."""

import json
import random
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

FRAGMENTS = (
    "<observation>", "</observation>", "<think>", "</think>", "<answer>", "</answer>", "<time>",
    "</time>", "<judgement>", "</judgement>", "<judgment>", "</Judgement >", "<extraction>",
    "</extraction>", "<ANSWER>", "< answer >", "Yes", "No", "yes.", "**No**", "none", "A", "B",
    "(C)", "**B**", "A. red", "B. blue", "Option C", "answer: D", "The answer is ", "not ",
    "therefore ", "option", "red", "blue", "$\\boxed{B}$", "\\boxed{\\text{B}}", "\\(", "\\)",
    "\\frac{1}{2}", "½", "1e999", "-0", "nan", "inf", "1,200.5", "3/4", "3/0", "0/0", "2 thousand",
    "3k", "1.2B", "5 %", "4.4 to 5.2", "[1.0, 2.0]", "00:01:02.5", "frames 30 to 50", "from", "to",
    "<|im_end|>", "<|im_start|>assistant\n", "<|channel|>analysis", "<|channel|>final<|message|>",
    "[INST]", "[/INST]", "</s>", "<|eot_id|>", "<|start_header_id|>", "<|video_pad|>", "&lt;",
    "&amp;lt;", "# ", "## Observations", "{observations}", "{question}", "{0}", "%s", "[/bold]",
    "[red]", "[link=http://x]", "\x1b[31m", "\x9b2J", "\x00", "\r", "\r\n", "\n\n", "\t", "\u2028",
    "\u202e", "\u200b", "\ufeff", "Ａ", "①", "【B】", "答案：B", "ß", "İ", "ﬁ", "e\u0301",
    "\U0001f600", "\ud800", "\udfff", "'", '"', "`", "```", "|", "---", "<!--", "]]>",
    "<script>alert(1)</script>", "=cmd()", "../..", "A" * 300, "(" * 60, "9" * 80, " " * 40,
    "<" * 40, "a, " * 30,
)  # fmt: skip

KEY = "sk-ant-api03-FuzzKeyThatNobodyOwns0123456789abcdefAA"
"""What the fuzzed runs use as their key: it must appear nowhere."""

HOSTILE_WORDS = (
    "[/bold]", "[red]x", "\x1b[31mred", "\x9b2J", "\x00", "\u202etxt", "a\nb", "\ud800", KEY,
    f"Bearer {KEY}", f"Bearer {KEY}".encode().hex(), "<script>",
    "Traceback (most recent call last)", "x" * 5000,
)  # fmt: skip

STRANGE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**23, 10**400, 0.5, -0.0, 1e30, 1e308,
    -1e308, float("inf"), float("nan"), "", " ", "0", "-5", "1e999", "null", [], {}, [[]], [None],
    {"": None}, ["x"], [0], {"text": "x", "type": "text"}, *HOSTILE_WORDS,
)  # fmt: skip


_HUGE = 1e300  # a whole number beyond is no float


def texts(max_pieces: int = 8) -> st.SearchStrategy[str]:
    """Texts of fragments and of any characters, half ones included."""
    anything = st.text(st.characters(), max_size=12)
    piece = st.one_of(st.sampled_from(FRAGMENTS), st.sampled_from(FRAGMENTS), anything)
    return st.lists(piece, max_size=max_pieces).map("".join)


def whole_texts(max_pieces: int = 8) -> st.SearchStrategy[str]:
    """The same without half characters: what a validated question may hold."""
    return texts(max_pieces).map(lambda text: text.encode("utf-8", "replace").decode("utf-8"))


def mutated_bytes(draw: random.Random, data: bytes, max_edits: int = 8) -> bytes:
    """`data` with a few bytes changed, cut, doubled, or exchanged; sometimes cut short."""
    found = bytearray(data)
    for _ in range(draw.randint(1, max_edits)):
        if not found:
            break
        place = draw.randrange(len(found))
        span = draw.choice((1, 1, 2, 4, 8, 64, 1024))
        match draw.randrange(8):
            case 0:
                found[place] ^= 1 << draw.randrange(8)
            case 1:
                found[place] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                found[place : place + span] = draw.randbytes(min(span, len(found) - place))
            case 3:
                del found[place : place + span]
            case 4:
                found[place:place] = found[place : place + span]
            case 5:
                found[place : place + span] = bytes(min(span, len(found) - place))
            case 6:
                other = draw.randrange(len(found))
                found[place : place + span] = found[other : other + span]
            case _:
                if draw.random() < 0.3:
                    del found[place:]
    return bytes(found)


def mutated_json(draw: random.Random, value: Any, max_edits: int = 3) -> Any:
    """A JSON value with some of its parts replaced, renamed, removed, doubled or nested."""
    value = deepcopy(value)
    for _ in range(draw.randint(1, max_edits)):
        value = _edited(draw, value)
    return value


def _edited(draw: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(sorted(value))
        match draw.randrange(6):
            case 0:
                del value[key]
            case 1:
                value[draw.choice(("x", key.upper(), key + "_", ""))] = value.pop(key)
            case _:
                value[key] = _edited(draw, value[key])
        return value
    if isinstance(value, list) and value and draw.random() < 0.85:
        place = draw.randrange(len(value))
        match draw.randrange(5):
            case 0:
                del value[place]
            case 1:
                value.insert(place, deepcopy(value[draw.randrange(len(value))]))
            case _:
                value[place] = _edited(draw, value[place])
        return value
    if isinstance(value, str) and draw.random() < 0.5:
        place = draw.randint(0, len(value))
        return value[:place] + draw.choice((*FRAGMENTS, *HOSTILE_WORDS)) + value[place:]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(value) < _HUGE and draw.random() < 0.5:
        return draw.choice((-value, value + 1, value * 1000, str(value), value / 7, [value]))
    return deepcopy(draw.choice(STRANGE_VALUES))  # it may be edited itself


def json_text(draw: random.Random, value: Any) -> str:
    """A value as JSON, with the spellings that servers and people use."""
    return json.dumps(value, ensure_ascii=draw.random() < 0.5)
