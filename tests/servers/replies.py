"""What the pretend model says: a function of the request's content, and how its tokens are counted.

Tokens, in the counting endpoint and in every usage alike: each word and each punctuation mark of a
text is one, an image is ceil(width * height / 750), and each message costs `MESSAGE_TOKENS` more.
"""

import hashlib
import importlib
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError

MESSAGE_TOKENS = 4
PIXELS_PER_TOKEN = 750

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class SeenImage:
    """An image as it came over the wire."""

    width: int
    height: int
    format: str
    sha256: str
    data: bytes = field(repr=False, compare=False)

    @property
    def tokens(self) -> int:
        """What the image costs."""
        return math.ceil(self.width * self.height / PIXELS_PER_TOKEN)


@dataclass(frozen=True)
class Prompt:
    """What a model sees of a request.

    `order` spells the sequence of parts ("tit" = text, image, text). `served` counts the billed
    replies that the same body was given before.
    """

    provider: Literal["anthropic", "openai"]
    model: str
    system: str
    text: str
    images: tuple[SeenImage, ...]
    order: str
    max_tokens: int
    num_messages: int = 1
    served: int = 0

    @property
    def input_tokens(self) -> int:
        """The documented count of what was sent."""
        images = sum(image.tokens for image in self.images)
        texts = count_tokens(self.system) + count_tokens(self.text)
        return MESSAGE_TOKENS * self.num_messages + images + texts


@dataclass(frozen=True)
class Answer:
    """What a brain may return instead of a plain text. `stop`: end, truncated or refused."""

    text: str
    stop: Literal["end", "truncated", "refused"] = "end"
    thinking: str = ""


Brain = Callable[[Prompt], "str | Answer"]


def count_tokens(text: str) -> int:
    """Words and punctuation marks of `text`."""
    return len(_TOKEN.findall(text))


def cut_to_tokens(text: str, limit: int) -> str:
    """The first `limit` tokens of `text`, with the white space between them."""
    for number, match in enumerate(_TOKEN.finditer(text)):
        if number == limit:
            return text[: match.start()].rstrip()
    return text


def read_image(data: bytes) -> SeenImage:
    """Size and format from the bytes themselves; raises ValueError for what is no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            format_ = (image.format or "").lower()
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"Could not heavy image: {error}") from error
    return SeenImage(width, height, format_, hashlib.sha256(data).hexdigest(), data)


def plain_brain(prompt: Prompt) -> str:
    """The built-in answer: says what it was sent, so that two different requests differ."""
    mark = hashlib.sha256(f"{prompt.system}\n{prompt.text}".encode()).hexdigest()[:8]
    return f"I read {count_tokens(prompt.text)} tokens and {len(prompt.images)} images ({mark})."


class RuleBrain:
    """Replies from rules, the first that matches wins.

    A rule: `contains` (a text or a list of texts that must all occur in system or text), `pattern`
    (a regular expression), `images` (a count); then `reply`, or `replies` given in turn to the same
    body (the last one stays), and optionally `stop` and `thinking`. Without a match: `default`.
    """

    def __init__(self, rules: list[dict[str, Any]], default: Brain = plain_brain) -> None:
        self._default = default
        self._rules = [self._compile(rule) for rule in rules]

    @staticmethod
    def _compile(rule: dict[str, Any]) -> dict[str, Any]:
        known = {"contains", "pattern", "images", "reply", "replies", "stop", "thinking"}
        if unknown := set(rule) - known:
            raise ValueError(f"a reply rule has unknown keys {sorted(unknown)}: {rule!r}")
        contains = rule.get("contains", [])
        return {
            **rule,
            "contains": [contains] if isinstance(contains, str) else contains,
            "pattern": re.compile(rule["pattern"], re.DOTALL) if "pattern" in rule else None,
            "replies": rule.get("replies") or [rule["reply"]],
        }

    def __call__(self, prompt: Prompt) -> str | Answer:
        """The reply of the first rule that matches."""
        whole = f"{prompt.system}\n{prompt.text}"
        for rule in self._rules:
            if "images" in rule and rule["images"] != len(prompt.images):
                continue
            if not all(text in whole for text in rule["contains"]):
                continue
            if rule["pattern"] is not None and not rule["pattern"].search(whole):
                continue
            text = rule["replies"][min(prompt.served, len(rule["replies"]) - 1)]
            return Answer(text, rule.get("stop", "end"), rule.get("thinking", ""))
        return self._default(prompt)


def load_brain(replies: Path | None, brain: str | None) -> Brain:
    """The reply function that the command line asked for; rules go before a named brain."""
    base: Brain = plain_brain
    if brain is not None:
        module, _, name = brain.partition(":")
        base = getattr(importlib.import_module(module), name)
    if replies is None:
        return base
    lines = replies.read_text(encoding="utf-8").splitlines()
    return RuleBrain([json.loads(line) for line in lines if line.strip()], base)
