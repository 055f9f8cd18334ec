"""One attempt over HTTP: ended in time as a whole, of bounded size, its failures our errors.

Both SDKs are made by one generator: `sdk` is the module with its error classes. Their own time-outs
are per read, and their own reading has no limit, so bodies are read here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import httpx2

from judges.backends.base import CallError, UnreadableReplyError
from judges.backends.failures import Access, connection_error, garbled_reply, status_error

MAX_REPLY_BYTES = 8 * 1024 * 1024
"""A reply of 64,000 tokens has about 300 kB; no answer to a request of ours is larger than this."""
_MAX_ERROR_BYTES = 1024 * 1024
_JSON = {"content-type": "application/json"}


@asynccontextmanager
async def attempt(sdk: ModuleType, access: Access, seconds: float) -> AsyncIterator[None]:
    """End what is inside after `seconds`, and turn errors into ours.

    They are chained to none, since theirs may quote the key.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except sdk.APIStatusError as error:
        raise _refusal(error.response, error.body, access) from None
    except (sdk.APITimeoutError, httpx2.TimeoutException) as error:
        raise connection_error(error, access, timed_out=True) from None
    except TimeoutError:
        slow = TimeoutError(f"its reply was not whole after {seconds:g} s")
        raise connection_error(slow, access, timed_out=True) from None
    except (sdk.APIConnectionError, httpx2.HTTPError, httpx2.StreamError) as error:
        raise connection_error(error, access, timed_out=False) from None
    except (sdk.APIError, ValueError) as error:
        raise garbled_reply(str(error), access) from None


def _refusal(response: httpx2.Response, body: object, access: Access) -> CallError:
    try:
        return status_error(response.status_code, body, response.headers, access)
    except RecursionError:
        words = "an error nested too deeply to be shown"
        return status_error(response.status_code, words, response.headers, access)


async def send(
    sdk: ModuleType, client: Any, path: str, content: bytes | None = None, *, seconds: float
) -> httpx2.Response:
    """The response to a POST of `content`, or to a GET without it; its body is not read yet."""
    options: dict[str, Any] = {
        "cast_to": httpx2.Response,
        "options": {"timeout": seconds, "headers": {} if content is None else _JSON},
        "stream": True,
        "stream_cls": sdk.AsyncStream[Any],
    }
    response: httpx2.Response = await (
        client.get(path, **options)
        if content is None
        else client.post(path, content=content, **options)
    )
    return response


def tame(client: httpx2.AsyncClient) -> None:
    """Follow no redirect, and read no more than the beginning of an error's body.

    The SDKs do both: a redirect to another host would be given the key and the frames.
    """
    client.follow_redirects = False

    async def bound(response: httpx2.Response) -> None:
        if response.is_error and isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Beginning(response.stream, _MAX_ERROR_BYTES)

    hooks = client.event_hooks
    client.event_hooks = {**hooks, "response": [*hooks.get("response", []), bound]}


class _Beginning(httpx2.AsyncByteStream):
    """The first bytes of a stream."""

    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._max_bytes
        async for chunk in self._stream:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()


async def body_of(
    response: httpx2.Response, access: Access, max_bytes: int = MAX_REPLY_BYTES
) -> bytes:
    """The whole body of a response that was not read yet.

    Raises UnreadableReplyError where it is larger than `max_bytes`: what was billed is billed, and
    asking again would pay for another.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > max_bytes:
                raise UnreadableReplyError(
                    f"{access.server} sent a reply of more than {max_bytes / 2**20:g} MB, which is "
                    "no answer to the request"
                )
            chunks.append(chunk)
    finally:
        await response.aclose()
    return b"".join(chunks)


async def lines_of(
    response: httpx2.Response, max_bytes: int = MAX_REPLY_BYTES
) -> AsyncIterator[tuple[bytes, bool]]:
    """Each line of a response that was not read yet, and whether it was too long and is cut."""
    line, is_cut = bytearray(), False
    try:
        async for chunk in response.aiter_bytes():
            for number, piece in enumerate(chunk.split(b"\n")):
                if number:
                    yield bytes(line), is_cut
                    line, is_cut = bytearray(), False
                room = max_bytes - len(line)
                is_cut = is_cut or len(piece) > room
                line += piece[:room]
        if line:
            yield bytes(line), is_cut
    finally:
        await response.aclose()
