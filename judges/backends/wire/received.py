"""What a server's reply says, for every protocol alike: JSON, text, how it ended, token counts.

A server is somebody else's program: each value is checked here, bounded, and either used or said to
be unusable. A token count that cannot be makes the usage unreliable, and the attempt then counts at
its worst case; text that cannot be read makes the reply unreadable. Nothing else is assumed.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from judges.backends.base import Reply, StopReason, Usage, token_count
from judges.backends.failures import Access
from schemas.serialization import without_secrets

_ENDS = {
    "end_turn": StopReason.END,
    "stop_sequence": StopReason.END,
    "stop": StopReason.END,
    "eos": StopReason.END,
    "eos_token": StopReason.END,
    "end": StopReason.END,
    "max_tokens": StopReason.MAX_TOKENS,
    "length": StopReason.MAX_TOKENS,
    "model_length": StopReason.MAX_TOKENS,
    "model_context_window_exceeded": StopReason.MAX_TOKENS,
    "refusal": StopReason.REFUSAL,
    "content_filter": StopReason.REFUSAL,
    "content_filtered": StopReason.REFUSAL,
    "safety": StopReason.REFUSAL,
    "sensitive": StopReason.REFUSAL,
    "recitation": StopReason.REFUSAL,
    "prohibited_content": StopReason.REFUSAL,
}
# The server gave up in the middle: another attempt may come to an end.
_BROKEN_OFF = frozenset(
    {
        "error",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "insufficient_system_resource",
        "network_error",
    }
)
_TEXT_PARTS = frozenset({"text", "output_text"})
_MAX_NAME_CHARS = 200
_SHORTEST_SECRET = 8  # a shorter key would blank out ordinary words


class UnreadableError(ValueError):
    """A server sent something that cannot be read. The message says what."""


class BrokenOffError(UnreadableError):
    """The server gave up in the middle of its reply."""


def parse_json(content: bytes) -> Any:
    """The JSON value of `content`. Raises UnreadableError."""
    try:
        return json.loads(content)
    except RecursionError:
        raise UnreadableError("its JSON is nested too deeply") from None
    except ValueError as error:
        raise UnreadableError(f"no JSON ({error}): {shown(content)}") from None


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object of `content`. Raises UnreadableError."""
    value = parse_json(content)
    if not isinstance(value, dict):
        raise UnreadableError(f"unexpected content {shown(content)}")
    return value


def shown(content: bytes, max_bytes: int = 200) -> str:
    """The beginning of what was sent, to be quoted in an error."""
    return content[:max_bytes].decode("utf-8", "replace")


def reply_text(content: object) -> str:
    """The text of a reply's content: a text, its text parts joined, nothing for null.

    Parts of other kinds (thinking, calls of tools) are no text. Raises UnreadableError.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UnreadableError(f"a text of type {type(content).__name__}")
    return "".join(_part_text(part) for part in content)


def _part_text(part: object) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        raise UnreadableError("a part of the text without a type")
    if kind not in _TEXT_PARTS:
        return ""
    text = part.get("text")
    if not isinstance(text, str):
        raise UnreadableError("a text part without a text")
    return text


def reply_end(word: object) -> StopReason:
    """How a reply ended, in the words of any protocol; a server that gives no word has ended.

    `OTHER` for a word that a plain request cannot cause. Raises BrokenOffError where the server
    broke off.
    """
    if word is None or word == "":
        return StopReason.END
    if not isinstance(word, str):
        return StopReason.OTHER
    said = word.strip().casefold()
    if said in _BROKEN_OFF:
        raise BrokenOffError(f"broken off for {word!r}")
    return _ENDS.get(said, StopReason.OTHER)


def end_note(word: object, server: str) -> str:
    """One sentence on an end that is `OTHER`."""
    said = repr(word[:_MAX_NAME_CHARS]) if isinstance(word, str) else f"a {type(word).__name__}"
    return f"{server} ended its reply for {said}, which a plain request cannot cause"


def reply_or_billed(
    read: Callable[[Any], Reply], content: Any, count: Callable[[Any, str], Usage], access: Access
) -> Reply:
    """`read(content)`, or where that cannot be read, what its usage says was billed.

    Such a reply is used up: another one would be paid for again. Raises UnreadableError for one
    without usage, and for one that broke off, which another attempt may finish.
    """
    try:
        return read(content)
    except BrokenOffError:
        raise
    except UnreadableError as error:
        if not content.get("usage"):
            raise
        said = access.clean(str(error))
        note = f"{access.server} sent a reply that was billed and cannot be read: {said}"
        return Reply("", StopReason.OTHER, count(content["usage"], ""), note=note)


def short_name(value: object) -> str:
    """A model's or a request's name as a server writes it; nothing where it is no text."""
    return value[:_MAX_NAME_CHARS] if isinstance(value, str) else ""


def without_key(text: str, key: str) -> str:
    """`text` without the key that was sent to the server."""
    return without_secrets(text, [key]) if len(key) >= _SHORTEST_SECRET else text


class TokenCounts:
    """Reads counts out of a reply's usage. `is_reliable` ends with the first that cannot be."""

    def __init__(self, usage: object) -> None:
        self._usage: dict[str, Any] = usage if isinstance(usage, dict) else {}
        self.is_reliable = isinstance(usage, dict)

    def required(self, name: str) -> int:
        """A count that every reply has; 0 where it is missing or cannot be."""
        count = token_count(self._usage.get(name))
        if count is None:
            self.is_reliable = False
        return count or 0

    def optional(self, name: str) -> int:
        """A count that a server may leave out, or give as null."""
        return 0 if self._usage.get(name) is None else self.required(name)

    def details(self, name: str) -> "TokenCounts":
        """Counts inside of the usage; a server may leave them out, or give null."""
        inner = self._usage.get(name)
        return TokenCounts({} if inner is None else inner)


def claude_usage(usage: object, text: str) -> Usage:
    """Usage as the Messages API counts it: what a cache read or wrote is not in `input_tokens`."""
    counts = TokenCounts(usage)
    read = Usage(
        input_tokens=counts.required("input_tokens"),
        output_tokens=counts.required("output_tokens"),
        cache_read_tokens=counts.optional("cache_read_input_tokens"),
        cache_write_tokens=counts.optional("cache_creation_input_tokens"),
    )
    return _believed(read, text, counts.is_reliable)


def openai_usage(usage: object, text: str) -> Usage:
    """Usage as chat completions count it: cached tokens are some of `prompt_tokens`.

    Gateways that count hidden reasoning apart show it in the total or in its own count; it is
    billed as output. More cached tokens than prompt tokens cannot be.
    """
    counts = TokenCounts(usage)
    prompt, completion = counts.required("prompt_tokens"), counts.required("completion_tokens")
    total = counts.optional("total_tokens")
    in_prompt = counts.details("prompt_tokens_details")
    in_completion = counts.details("completion_tokens_details")
    cached = in_prompt.optional("cached_tokens")
    reasoning = in_completion.optional("reasoning_tokens")
    if reasoning > completion:
        completion += reasoning
    is_reliable = counts.is_reliable and in_prompt.is_reliable and in_completion.is_reliable
    if cached > prompt:
        return Usage(prompt, completion, cached, is_reliable=False)
    if is_reliable:
        completion = max(completion, total - prompt)
    return _believed(Usage(prompt - cached, completion, cached), text, is_reliable)


def _believed(usage: Usage, text: str, is_reliable: bool) -> Usage:
    """A prompt of no tokens, or a text of none, was not counted."""
    prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    is_counted = prompt > 0 and (usage.output_tokens > 0 or not text)
    return replace(usage, is_reliable=is_reliable and is_counted)
