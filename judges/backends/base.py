"""What a backend is: requests of text and frames in, a reply of text and usage out.

One async interface for all. A backend makes exactly one attempt per call and never retries; the
exception says what went wrong, and `judges.backends.calls` decides what follows.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from cli.config import UsageError
from schemas.serialization import content_id


@dataclass(frozen=True)
class TextPart:
    """A piece of text of the user's turn."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """One encoded frame. `media_id` names file, frame and encoding; only it enters the call key."""

    media_id: str
    width: int
    height: int
    data: bytes = field(repr=False, compare=False)
    media_type: str = "image/jpeg"


Part = TextPart | ImagePart


@dataclass(frozen=True)
class ChatRequest:
    """One user turn. `sampling` holds only what the backend takes (checked when it is opened).

    `draw` numbers deliberate repeats (0, 1, ...): it keeps their keys apart and is not sent. `step`
    is the step that pays ("generate" or "filter"), `question_id` the subject; neither enters the
    key.
    """

    parts: tuple[Part, ...]
    max_tokens: int
    system: str = ""
    sampling: tuple[tuple[str, float], ...] = ()
    draw: int = 0
    step: str = ""
    question_id: str = ""

    @property
    def text(self) -> str:
        """All text parts, joined by newlines."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """The frames, in order."""
        return tuple(part for part in self.parts if isinstance(part, ImagePart))


class StopReason(StrEnum):
    """How a reply ended."""

    END = "end"
    MAX_TOKENS = "max_tokens"
    REFUSAL = "refusal"
    OTHER = "other"
    """For a reason that a plain request cannot cause; `Reply.note` says which."""


@dataclass(frozen=True)
class Usage:
    """Tokens as the server counted them.

    `is_reliable` is False where its counts are missing or cannot be: the attempt then costs no less
    than its worst case.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    is_reliable: bool = True


@dataclass(frozen=True)
class Reply:
    """What came back: the text parts joined, nothing of a model's hidden thinking.

    `note` is a sentence about a reply that is not to be used, where `stop` alone does not say it.
    """

    text: str
    stop: StopReason
    usage: Usage
    model: str = ""
    request_id: str = ""
    note: str = ""


MAX_TOKENS = 20_000_000
"""No request of today's models takes or gives as many: a larger count is a mistake."""
_MAX_DIGITS = 12


def token_count(value: object) -> int | None:
    """A count of tokens from 0 to `MAX_TOKENS`, whatever type the server writes it in, or None."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        value = int(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TOKENS:
        return None
    return value


def sound_reply(reply: Reply) -> Reply:
    """`reply` with counts that can be: a backend of somebody else's may give any number."""
    usage = reply.usage
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    counts = {name: token_count(getattr(usage, name)) for name in names}
    if all(counts[name] == getattr(usage, name) for name in names):
        return reply
    known = {name: count or 0 for name, count in counts.items()}
    return replace(reply, usage=Usage(**known, is_reliable=False))


class CallError(Exception):
    """An attempt failed. The message holds the server's words, never a key."""


class RetryableError(CallError):
    """Worth another attempt: 408, 409, 429, 5xx, 529, timeouts, dropped or garbled connections.

    `retry_after_seconds` is what the server asks for. `overloaded` wants less concurrency (429,
    529).
    `maybe_billed` is true when the request may have been served although no reply arrived.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        overloaded: bool = False,
        maybe_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.overloaded = overloaded
        self.maybe_billed = maybe_billed


class UnreadableReplyError(CallError):
    """The request was served and probably billed, and its reply can never be used.

    It ends the call: another attempt would be paid for again.
    """


class FinalError(CallError):
    """The server will not answer this request, ever: other 4xx. Carries its words."""


class AccessError(FinalError):
    """The account is refused, not the request: 401, 403, no credit. All other calls fail too."""


class BackendUnavailableError(UsageError):
    """The backend cannot be opened: no key, no package, no model. One sentence for the user."""


@dataclass(frozen=True)
class BackendInfo:
    """What makes two calls the same besides the request; `spec` is what the user wrote.

    `endpoint` is the base URL, or for local weights their hash: it enters every call key.
    `takes_sampling` lists the sampling parameters the backend accepts.
    """

    spec: str
    provider: str
    model: str
    endpoint: str
    takes_sampling: frozenset[str] = frozenset()
    takes_images: bool = True


class Backend(Protocol):
    """One model, behind one endpoint."""

    info: BackendInfo

    async def complete(self, request: ChatRequest) -> Reply:
        """One attempt. Raises a CallError."""
        ...

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """Input tokens of `request` by the server's own free count; None where it offers none."""
        ...

    def worst_case_tokens(self, request: ChatRequest) -> tuple[int, int]:
        """Upper bounds of (input, output) tokens that `request` can be billed for."""
        ...

    async def aclose(self) -> None:
        """Close connections and workers."""
        ...


@dataclass(frozen=True)
class BatchResult:
    """One request's end within a batch: a reply, or the error that `complete` would have raised.

    An expired or cancelled request is a RetryableError that was not billed, a result that cannot be
    read an UnreadableReplyError.
    """

    custom_id: str
    outcome: Reply | CallError


@dataclass(frozen=True)
class BatchInfo:
    """A batch as the server lists it. `created_at` in seconds since the epoch.

    `num_requests` is -1 where the server does not tell.
    """

    batch_id: str
    created_at: float
    ended: bool
    num_requests: int


class BatchBackend(Backend, Protocol):
    """A backend that also takes many requests at once: cheaper, and slower."""

    max_batch_requests: int
    max_batch_bytes: int

    def request_bytes(self, request: ChatRequest) -> int:
        """Size of `request` on the wire, to cut batches at the server's limit."""
        ...

    async def submit(self, requests: list[tuple[str, ChatRequest]]) -> BatchInfo:
        """Send `(custom_id, request)` pairs as one batch."""
        ...

    async def retrieve(self, batch_id: str) -> BatchInfo:
        """The state of a batch."""
        ...

    async def results(self, batch_id: str) -> list[BatchResult]:
        """Results of an ended batch, in whatever order the server gives them."""
        ...

    async def list_batches(self, created_after: float) -> list[BatchInfo]:
        """The server's batches since `created_after`, for finding one whose id was never stored."""
        ...


def call_key(info: BackendInfo, request: ChatRequest) -> str:
    """Names a call by all that can change its reply; the same key is never paid twice."""
    return content_id(
        "call",
        {
            "provider": info.provider,
            "model": info.model,
            "endpoint": info.endpoint,
            "system": request.system,
            "parts": [
                ["text", part.text]
                if isinstance(part, TextPart)
                else ["image", part.media_id, part.width, part.height, part.media_type]
                for part in request.parts
            ],
            "max_tokens": request.max_tokens,
            "sampling": sorted(request.sampling),
            "draw": request.draw,
        },
    )
