"""A small HTTP/1.1 server on asyncio: keep-alive, whole bodies, and connections cut on purpose.

Web frameworks answer politely; a test of retries needs a server that hangs up in mid-reply.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

MAX_HEADER_BYTES = 64 * 1024

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True)
class HttpRequest:
    """One request, read to its end. Header names are lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = field(repr=False)
    is_client_gone: Callable[[], bool] = field(repr=False, default=lambda: False)


@dataclass(frozen=True)
class HttpResponse:
    """A reply. `cut` hangs up before it, or after half of its body; `chunks` streams a long one."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    cut: Literal["", "before", "middle"] = ""
    chunks: AsyncIterator[bytes] | None = None


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


class _Connection(asyncio.Protocol):
    """One client: requests are answered one after the other, in order."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._buffer = bytearray()
        self._scanned = 0
        self._head: tuple[str, str, dict[str, str], int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._is_gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_gone = True

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._start_next()

    def _start_next(self) -> None:
        if self._task is not None or self._transport is None or self._is_gone:
            return
        try:
            request = self._take_request()
        except ValueError as error:
            body = f'{{"error": "{error}"}}'.encode()
            self._transport.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n" % len(body)
            )
            self._transport.write(body)
            self._transport.close()
            return
        if request is not None:
            self._task = asyncio.get_running_loop().create_task(self._answer(request))

    def _take_request(self) -> HttpRequest | None:
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
            if end < 0:
                self._scanned = len(self._buffer)
                if self._scanned > MAX_HEADER_BYTES:
                    raise ValueError("headers too large")
                return None
            lines = self._buffer[:end].decode("latin-1").split("\r\n")
            method, target, _ = lines[0].split(" ", 2)
            headers = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            if "transfer-encoding" in headers:
                raise ValueError("chunked requests are not supported here")
            self._head = (method, target, headers, int(headers.get("content-length", "0")))
            del self._buffer[: end + 4]
            self._scanned = 0
            if headers.get("expect", "").lower() == "100-continue" and self._transport:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        method, target, headers, length = self._head
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._head = None
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        return HttpRequest(method, unquote(parts.path), query, headers, body, lambda: self._is_gone)

    async def _answer(self, request: HttpRequest) -> None:
        transport = self._transport
        assert transport is not None
        try:
            response = await self._handler(request)
            if self._is_gone:
                return
            if response.cut == "before":
                transport.abort()
                return
            await self._send(transport, response)
        finally:
            self._task = None
        if request.headers.get("connection", "").lower() == "close":
            transport.close()
        self._start_next()

    async def _send(self, transport: asyncio.Transport, response: HttpResponse) -> None:
        head = [
            f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Status')}",
            f"content-type: {response.content_type}",
            *(f"{name}: {value}" for name, value in response.headers),
        ]
        if response.chunks is None:
            head.append(f"content-length: {len(response.body)}")
            start = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")
            if response.cut == "middle":
                transport.write(start + response.body[: len(response.body) // 2])
                transport.close()
                return
            transport.write(start + response.body)
            return
        head.append("transfer-encoding: chunked")
        transport.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
        async for chunk in response.chunks:
            if self._is_gone:
                return
            if not chunk:  # an empty chunk would end the body
                continue
            transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await asyncio.sleep(0)
            while transport.get_write_buffer_size() > 1 << 22 and not self._is_gone:
                await asyncio.sleep(0.005)
        if response.cut == "middle":
            transport.close()
            return
        transport.write(b"0\r\n\r\n")


async def serve(handler: Handler, port: int, host: str = "127.0.0.1") -> asyncio.Server:
    """Listen on `host:port` (0 picks a free port) and answer with `handler`."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Connection(handler), host, port, backlog=4096)
