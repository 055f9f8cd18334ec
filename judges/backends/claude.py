"""Claude through the Messages API, one request at a time or in Message Batches.

The key comes from `ANTHROPIC_API_KEY`, the endpoint from `ANTHROPIC_BASE_URL`. No sampling
parameter is sent: the API takes none.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from judges.backends.base import (
    BackendInfo,
    BackendUnavailableError,
    BatchInfo,
    BatchResult,
    CallError,
    ChatRequest,
    FinalError,
    Reply,
    RetryableError,
    StopReason,
    Usage,
)
from judges.backends.claude_wire import (
    count_body,
    message_body,
    message_bytes,
    worst_case_input_tokens,
)
from judges.backends.failures import Access, connection_error, garbled_reply, status_error
from judges.backends.registry import BackendOptions

KEY_VARIABLE = "ANTHROPIC_API_KEY"
URL_VARIABLE = "ANTHROPIC_BASE_URL"
DEFAULT_URL = "https://api.anthropic.com"

_STOP_REASONS = {
    "end_turn": StopReason.END,
    "stop_sequence": StopReason.END,
    "max_tokens": StopReason.MAX_TOKENS,
    "model_context_window_exceeded": StopReason.MAX_TOKENS,
    "refusal": StopReason.REFUSAL,
}
# What the API's error types mean inside a batch, where no HTTP status tells.
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_JSON = {"content-type": "application/json"}
_BATCH_TIMEOUT_SECONDS = 1800.0
_PAGE = 100


async def open_backend(rest: str, *, spec: str, options: BackendOptions) -> "ClaudeBackend":
    """Open `claude:<model>`; raises BackendUnavailableError without a key."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise BackendUnavailableError(
            f"{spec} needs a key: set the environment variable {KEY_VARIABLE}"
        )
    url = (os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
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
            key, url, f"set the environment variable {KEY_VARIABLE} to a key that may use it"
        )
        self._client = anthropic.AsyncAnthropic(
            api_key=key, base_url=url, max_retries=0, timeout=timeout_seconds
        )

    async def complete(self, request: ChatRequest) -> Reply:
        """One attempt at one Message."""
        body = message_body(self.info.model, request)
        async with self._errors():
            content, request_id = await self._post("/v1/messages", body)
            return self._reply(content, request_id)

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """Input tokens by the API's free count."""
        body = count_body(self.info.model, request)
        async with self._errors():
            content, _ = await self._post("/v1/messages/count_tokens", body)
            count = content.get("input_tokens")
            if not isinstance(count, int):
                raise self._garbled(content)
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
        async with self._errors():
            batch = await self._client.post(
                "/v1/messages/batches",
                content=body,
                cast_to=MessageBatch,
                options={"headers": _JSON, "timeout": _BATCH_TIMEOUT_SECONDS},
            )
            return self._batch_info(batch)

    async def retrieve(self, batch_id: str) -> BatchInfo:
        """How far the batch is."""
        async with self._errors():
            return self._batch_info(await self._client.messages.batches.retrieve(batch_id))

    async def results(self, batch_id: str) -> list[BatchResult]:
        """Results of an ended batch, in the server's order."""
        results = []
        async with self._errors():
            lines = await self._client.messages.batches.results(
                batch_id, timeout=_BATCH_TIMEOUT_SECONDS
            )
            async for line in lines:
                results.append(BatchResult(line.custom_id, self._outcome(line)))
        return results

    async def list_batches(self, created_after: float) -> list[BatchInfo]:
        """The server's batches since `created_after` (seconds since the epoch), newest first."""
        found: list[BatchInfo] = []
        async with self._errors():
            async for batch in self._client.messages.batches.list(limit=_PAGE):
                info = self._batch_info(batch)
                if info.created_at < created_after:
                    break
                found.append(info)
        return found

    def _batch_info(self, batch: MessageBatch) -> BatchInfo:
        counts = batch.request_counts
        return BatchInfo(
            batch_id=batch.id,
            created_at=batch.created_at.timestamp(),
            ended=batch.processing_status == "ended",
            num_requests=counts.processing
            + counts.succeeded
            + counts.errored
            + counts.canceled
            + counts.expired,
        )

    def _outcome(self, line: MessageBatchIndividualResponse) -> Reply | CallError:
        result = line.result
        if result.type == "succeeded":
            try:
                return self._reply(result.message.to_dict())
            except CallError as error:
                return error
        if result.type == "errored":
            said = result.error.error
            status = _STATUS_OF_TYPE.get(said.type, 500)
            body = {"type": said.type, "message": said.message}
            return status_error(status, body, {}, self._access)
        return RetryableError(f"the batch's request {line.custom_id} was {result.type}")

    async def _post(self, path: str, body: bytes) -> tuple[dict[str, Any], str]:
        """The reply's JSON object and the request's id, without the SDK's lenient models."""
        response = await self._client.post(
            path, content=body, cast_to=httpx2.Response, options={"headers": _JSON}
        )
        content = json.loads(response.content)
        if not isinstance(content, dict):
            raise self._garbled(content)
        return content, response.headers.get("request-id", "")

    def _reply(self, message: dict[str, Any], request_id: str = "") -> Reply:
        try:
            content, usage, stop_reason = (
                message[name] for name in ("content", "usage", "stop_reason")
            )
            text = "".join(block["text"] for block in content if block["type"] == "text")
            billed = Usage(
                input_tokens=int(usage["input_tokens"]),
                output_tokens=int(usage["output_tokens"]),
                cache_read_tokens=int(usage.get("cache_read_input_tokens") or 0),
                cache_write_tokens=int(usage.get("cache_creation_input_tokens") or 0),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._garbled(message) from None
        if stop_reason not in _STOP_REASONS:
            raise FinalError(
                f"{self._access.server} stopped for {stop_reason!r}, which a plain request cannot"
                " cause"
            )
        return Reply(
            text=text,
            stop=_STOP_REASONS[stop_reason],
            usage=billed,
            model=str(message.get("model", "")),
            request_id=request_id or str(message.get("id", "")),
        )

    def _garbled(self, content: object) -> RetryableError:
        return garbled_reply(f"unexpected content {str(content)[:200]}", self._access)

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """Turn the SDK's errors into ours; chained to none, since theirs may quote the key."""
        try:
            yield
        except anthropic.APIStatusError as error:
            headers = error.response.headers
            raise status_error(error.status_code, error.body, headers, self._access) from None
        except anthropic.APITimeoutError as error:
            raise connection_error(error, self._access, timed_out=True) from None
        except anthropic.APIConnectionError as error:
            raise connection_error(error, self._access, timed_out=False) from None
        except (anthropic.APIError, ValueError) as error:
            raise garbled_reply(str(error), self._access) from None


def _batch_body(model: str, requests: list[tuple[str, ChatRequest]]) -> bytes:
    entries = (
        b'{"custom_id":"%b","params":%b}' % (custom_id.encode(), message_body(model, request))
        for custom_id, request in requests
    )
    return b'{"requests":[' + b",".join(entries) + b"]}"
