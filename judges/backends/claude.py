"""Claude through the Messages API, one request at a time or in Message Batches.

The key comes from `ANTHROPIC_API_KEY`, the endpoint from `ANTHROPIC_BASE_URL`. No sampling
parameter is sent: the API takes none. A generation call carries megabytes of frames: its JSON is
written once, here, straight to bytes, and no SDK or JSON encoder walks through the frames again.
"""

import asyncio
import base64
import json
import math
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import quote

import anthropic
import httpx2

from judges.backends.base import (
    BackendInfo,
    BackendUnavailableError,
    BatchInfo,
    BatchResult,
    ChatRequest,
    ImagePart,
    Reply,
    StopReason,
    TextPart,
    token_count,
)
from judges.backends.failures import (
    Access,
    error_inside,
    key_from,
    refuse_unusable_network,
)
from judges.backends.registry import BackendOptions, base_url, is_model_name
from judges.backends.wire.attempts import attempt, body_of, lines_of, send, tame
from judges.backends.wire.claude_batches import batch_info, results_of
from judges.backends.wire.received import (
    UnreadableError,
    claude_usage,
    end_note,
    parse_object,
    reply_end,
    reply_or_billed,
    reply_text,
    short_name,
    without_key,
)
from schemas.serialization import redact

KEY_VARIABLE = "ANTHROPIC_API_KEY"
URL_VARIABLE = "ANTHROPIC_BASE_URL"
DEFAULT_URL = "https://api.anthropic.com"

_BATCHES = "/v1/messages/batches"
_BATCH_TIMEOUT_SECONDS = 1800.0
_PAGE = 100

# Bounds, above what the API documents, so that a budget is never passed.
_TOKENS_PER_REQUEST = 64
_TOKENS_PER_PART = 16
_PIXELS_PER_TOKEN = 750
_PATCH = 28

_IMAGE_HEAD = b'{"type":"image","source":{"type":"base64","media_type":%b,"data":"'
_IMAGE_TAIL = b'"}}'
# Everything of a request's JSON but its model, texts and images.
_ENVELOPE_BYTES = 256
_CUSTOM_ID_BYTES = 64


async def open_backend(rest: str, *, spec: str, options: BackendOptions) -> "ClaudeBackend":
    """Open `claude:<model>`; raises BackendUnavailableError without a key."""
    if not is_model_name(rest):
        raise BackendUnavailableError(
            f"{redact(spec)!r} names no model: write claude:MODEL; the URL of another server than "
            f"Anthropic's belongs into the environment variable {URL_VARIABLE}"
        )
    key = key_from(KEY_VARIABLE, spec)
    if not key:
        raise BackendUnavailableError(
            f"{spec} needs a key: set the environment variable {KEY_VARIABLE}"
        )
    given = os.environ.get(URL_VARIABLE, "")
    url = base_url(given, f"the environment variable {URL_VARIABLE}", DEFAULT_URL) if given else ""
    url = url or DEFAULT_URL
    refuse_unusable_network(spec, url, anthropic.DefaultAsyncHttpxClient)
    return ClaudeBackend(spec, rest, url, key, options.timeout_seconds)


class ClaudeBackend:
    """One Claude model. Every method makes one attempt; the SDK's own retries are off."""

    max_batch_requests = 100_000
    max_batch_bytes = 250_000_000  # the API's limit is 256 MB

    def __init__(
        self, spec: str, model: str, url: str, key: str, timeout_seconds: float = 600.0
    ) -> None:
        self.info = BackendInfo(spec=spec, provider="claude", model=model, endpoint=url)
        self._access = Access(
            key,
            url,
            f"set the environment variable {KEY_VARIABLE} to a key that may use it",
            f"{URL_VARIABLE} must not end in /v1"
            if url.endswith("/v1")
            else f"check the model's name and {URL_VARIABLE}",
        )
        self._timeout_seconds = timeout_seconds
        self._client = anthropic.AsyncAnthropic(
            api_key=key, base_url=url, max_retries=0, timeout=timeout_seconds
        )
        tame(self._client._client)

    async def complete(self, request: ChatRequest) -> Reply:
        """One attempt at one Message."""
        body = message_body(self.info.model, request)
        async with self._attempt():
            content, request_id = await self._post("/v1/messages", body)
            if (error := error_inside(content, self._access)) is not None:
                raise error
            return self._reply(content, request_id)

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """Input tokens by the API's free count."""
        body = count_body(self.info.model, request)
        async with self._attempt():
            content, _ = await self._post("/v1/messages/count_tokens", body)
            count = token_count(content.get("input_tokens"))
            if count is None:
                raise UnreadableError("no count of tokens")
            return count

    def worst_case_tokens(self, request: ChatRequest) -> tuple[int, int]:
        """Upper bounds of (input, output) tokens; hidden thinking counts into `max_tokens`."""
        return worst_case_input_tokens(request), request.max_tokens

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    def request_bytes(self, request: ChatRequest) -> int:
        """Size of `request` inside a batch."""
        return message_bytes(self.info.model, request)

    async def submit(self, requests: list[tuple[str, ChatRequest]]) -> BatchInfo:
        """Send `(custom_id, request)` pairs as one batch."""
        body = await asyncio.to_thread(_batch_body, self.info.model, requests)
        async with self._attempt(_BATCH_TIMEOUT_SECONDS):
            content, _ = await self._post(_BATCHES, body, _BATCH_TIMEOUT_SECONDS)
            return batch_info(content)

    async def retrieve(self, batch_id: str) -> BatchInfo:
        """How far the batch is."""
        async with self._attempt():
            info = batch_info(await self._get(f"{_BATCHES}/{quote(batch_id, safe='')}"))
            if info.batch_id != batch_id:
                raise UnreadableError(f"the state of another batch than {batch_id}")
            return info

    async def results(self, batch_id: str) -> list[BatchResult]:
        """Results of an ended batch, in the server's order."""
        results: list[BatchResult] = []
        path = f"{_BATCHES}/{quote(batch_id, safe='')}/results"
        async with self._attempt(_BATCH_TIMEOUT_SECONDS):
            response = await self._send(path, seconds=_BATCH_TIMEOUT_SECONDS)
            async for line, is_cut in lines_of(response):
                results += results_of(
                    line, is_cut=is_cut, read_reply=self._reply, access=self._access
                )
                if len(results) > self.max_batch_requests:
                    raise UnreadableError("more results than a batch has requests")
        return results

    async def list_batches(self, created_after: float) -> list[BatchInfo]:
        """The server's batches since `created_after` (seconds since the epoch), newest first."""
        found: list[BatchInfo] = []
        async with self._attempt(_BATCH_TIMEOUT_SECONDS):
            async for info in self._listed():
                if info.created_at < created_after:
                    break
                found.append(info)
        return found

    async def _listed(self) -> AsyncIterator[BatchInfo]:
        """All batches, page by page; a page that leads back to an earlier one is the last."""
        seen: set[str] = set()
        place = ""
        while True:
            page = await self._get(f"{_BATCHES}?limit={_PAGE}{place}")
            listed = page.get("data")
            if not isinstance(listed, list):
                raise UnreadableError("a list of batches without a list")
            for info in map(batch_info, listed):
                yield info
            last = page.get("last_id")
            if not page.get("has_more") or not isinstance(last, str) or last in seen:
                return
            seen.add(last)
            place = f"&after_id={quote(last, safe='')}"

    def _attempt(self, seconds: float | None = None) -> AbstractAsyncContextManager[None]:
        return attempt(anthropic, self._access, seconds or self._timeout_seconds)

    async def _post(
        self, path: str, body: bytes, seconds: float | None = None
    ) -> tuple[dict[str, Any], str]:
        """The reply's JSON object and the request's id, without the SDK's lenient models."""
        response = await self._send(path, body, seconds)
        content = parse_object(await body_of(response, self._access))
        return content, response.headers.get("request-id", "")

    async def _get(self, path: str) -> dict[str, Any]:
        return parse_object(await body_of(await self._send(path), self._access))

    async def _send(
        self, path: str, body: bytes | None = None, seconds: float | None = None
    ) -> httpx2.Response:
        seconds = seconds or self._timeout_seconds
        return await send(anthropic, self._client, path, body, seconds=seconds)

    def _reply(self, message: dict[str, Any], request_id: str = "") -> Reply:
        """The reply that `message` is, or what it cost. Raises UnreadableError."""
        return reply_or_billed(
            lambda message: self._read(message, request_id), message, claude_usage, self._access
        )

    def _read(self, message: dict[str, Any], request_id: str) -> Reply:
        if "content" not in message:
            raise UnreadableError(f"a message without content: {str(list(message))[:200]}")
        text = reply_text(message["content"])
        stop_word = message.get("stop_reason")
        stop = reply_end(stop_word)
        key = self._access.key
        return Reply(
            text=without_key(text, key),
            stop=stop,
            usage=claude_usage(message.get("usage"), text),
            model=without_key(short_name(message.get("model")), key),
            request_id=without_key(short_name(request_id or message.get("id")), key),
            note=end_note(stop_word, self._access.server) if stop is StopReason.OTHER else "",
        )


def message_body(model: str, request: ChatRequest) -> bytes:
    """The JSON of a Messages request: text and frames interleaved in the order of the parts."""
    return _body(model, request, b'"max_tokens":%d,' % request.max_tokens)


def count_body(model: str, request: ChatRequest) -> bytes:
    """The JSON of the same request for the counting endpoint, which takes no `max_tokens`."""
    return _body(model, request, b"")


def _body(model: str, request: ChatRequest, limit: bytes) -> bytes:
    pieces = [b'{"model":', _string(model), b",", limit]
    if request.system:
        pieces += [b'"system":', _string(request.system), b","]
    pieces.append(b'"messages":[{"role":"user","content":[')
    for number, part in enumerate(request.parts):
        if number:
            pieces.append(b",")
        if isinstance(part, TextPart):
            pieces += [b'{"type":"text","text":', _string(part.text), b"}"]
        else:
            pieces += [
                _IMAGE_HEAD % _string(part.media_type),
                base64.b64encode(part.data),
                _IMAGE_TAIL,
            ]
    pieces.append(b"]}]}")
    return b"".join(pieces)


def message_bytes(model: str, request: ChatRequest) -> int:
    """At least the size of the request inside a batch, without writing it."""
    size = _ENVELOPE_BYTES + _CUSTOM_ID_BYTES + len(_string(model)) + len(_string(request.system))
    for part in request.parts:
        if isinstance(part, TextPart):
            size += len(_string(part.text)) + 32
        else:
            size += len(_IMAGE_HEAD) + len(part.media_type) + 4 * math.ceil(len(part.data) / 3) + 8
    return size


def worst_case_input_tokens(request: ChatRequest) -> int:
    """No text has more tokens than bytes; images count by area or by patch, whichever is more."""
    tokens = _TOKENS_PER_REQUEST + _num_bytes(request.system)
    for part in request.parts:
        tokens += _TOKENS_PER_PART
        if isinstance(part, ImagePart):
            by_area = math.ceil(part.width * part.height / _PIXELS_PER_TOKEN)
            by_patch = math.ceil(part.width / _PATCH) * math.ceil(part.height / _PATCH)
            tokens += max(by_area, by_patch)
        else:
            tokens += _num_bytes(part.text)
    return tokens


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _string(text: str) -> bytes:
    return json.dumps(text).encode()


def _batch_body(model: str, requests: list[tuple[str, ChatRequest]]) -> bytes:
    entries = (
        b'{"custom_id":"%b","params":%b}' % (custom_id.encode(), message_body(model, request))
        for custom_id, request in requests
    )
    return b'{"requests":[' + b",".join(entries) + b"]}"
