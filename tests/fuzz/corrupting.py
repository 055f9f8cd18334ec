"""The tests' model server with replies spoiled on the way: statuses, headers, bodies, connections.

The server behind is honest, so what it sent, billed and kept is known.
"""

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from fuzz.nasty import FRAGMENTS, HOSTILE_WORDS, KEY, mutated_bytes, mutated_json
from servers.app import ModelServer
from servers.faults import FaultPlan
from servers.replies import Brain
from servers.wire import HttpRequest, HttpResponse, serve

RETRIED = (408, 409, 429, 500, 502, 503, 504, 529, 599)
FINAL = (400, 404, 405, 410, 413, 415, 418, 422, 451)
DENIED = (401, 402, 403)
_REDIRECTS = (301, 302, 307, 308)
_RETRY_AFTER = (
    "0", "0.01", "-5", "nan", "inf", "1e999", "1e9", "soon", "", "0x10", "٣", "1,5", "9" * 400,
    "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 99999 07:28:00 GMT", "Mon, 32 Foo 2026 99:99",
    "Wed, 21 Oct 2015 07:28:00 +9999",
)  # fmt: skip
_CONTENT_TYPES = (
    "application/json", "text/html", "text/plain; charset=utf-16", "application/x-jsonl", "", "x",
    "application/json; charset=klingon", "image/png", "text/event-stream",
)  # fmt: skip

Spoil = Callable[[random.Random, HttpResponse], HttpResponse]


def _with_status(statuses: tuple[int, ...]) -> Spoil:
    def spoil(draw: random.Random, response: HttpResponse) -> HttpResponse:
        headers = response.headers
        if draw.random() < 0.5:
            name = draw.choice(("retry-after", "retry-after-ms"))
            headers = (*headers, (name, _header(draw.choice(_RETRY_AFTER))))
        return HttpResponse(draw.choice(statuses), _error_body(draw), headers)

    return spoil


def _header(value: str) -> str:
    return value.encode("ascii", "replace").decode()


def _error_body(draw: random.Random) -> bytes:
    words = draw.choice((*HOSTILE_WORDS, *FRAGMENTS, "Overloaded", ""))
    kind = draw.choice(("api_error", "invalid_request_error", "x", "", words))
    said: Any = draw.choice(
        (
            {"type": "error", "error": {"type": kind, "message": words}},
            {"error": {"message": words, "type": kind, "code": kind}},
            {"error": words},
            {"detail": words},
            {"error": None},
            [words],
            words,
            None,
        )
    )
    if draw.random() < 0.3:
        said = mutated_json(draw, said)
    text = draw.choice((json.dumps(said), f"<html><body>{words}</body></html>", words, ""))
    return text.encode("utf-8", "surrogatepass")


def _redirected(draw: random.Random, response: HttpResponse) -> HttpResponse:
    place = draw.choice(
        ("http://127.0.0.1:9/", "/v1/messages", "http://[", "file:///etc/passwd", "")
    )
    return HttpResponse(draw.choice(_REDIRECTS), b"", (("location", place),))


def _changed_json(draw: random.Random, response: HttpResponse) -> HttpResponse:
    lines = response.body.splitlines() if b"\n" in response.body.strip() else [response.body]
    place = draw.randrange(len(lines)) if lines else 0
    if lines:
        changed = mutated_json(draw, json.loads(lines[place] or b"null"))
        # Infinity is no JSON, 1e999 is: both are sent
        text = json.dumps(changed).replace("Infinity", draw.choice(("Infinity", "1e999")))
        lines[place] = text.encode("utf-8", "surrogatepass")
    return replace(response, body=b"\n".join(lines))


def _changed_bytes(draw: random.Random, response: HttpResponse) -> HttpResponse:
    return replace(response, body=mutated_bytes(draw, response.body))


def _other_body(draw: random.Random, response: HttpResponse) -> HttpResponse:
    bodies = (
        b"", b"null", b"[]", b"{}", b"0", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf" + response.body,
        b"[" * 200_000, b'{"a":' * 50_000, b"<html>", response.body * 2, b" " * 10_000,
        response.body.decode("utf-8", "replace").encode("utf-16"), b"data: {}\n\n", b"1e999",
    )  # fmt: skip
    return replace(response, body=draw.choice(bodies))


def _cut(draw: random.Random, response: HttpResponse) -> HttpResponse:
    return replace(response, cut=draw.choice(("before", "middle")))


def _odd_headers(draw: random.Random, response: HttpResponse) -> HttpResponse:
    kind = draw.randrange(4)
    if kind == 0:
        return replace(response, content_type=draw.choice(_CONTENT_TYPES))
    if kind == 1:
        return replace(response, headers=(*response.headers, ("content-encoding", "gzip")))
    if kind == 2:
        packed = gzip.compress(response.body)
        headers = (*response.headers, ("content-encoding", "gzip"))
        return replace(response, body=mutated_bytes(draw, packed, 2), headers=headers)
    value = _header(draw.choice(_RETRY_AFTER))
    return replace(response, headers=(*response.headers, ("retry-after", value)))


def _trickle(draw: random.Random, response: HttpResponse) -> HttpResponse:
    async def drops() -> AsyncIterator[bytes]:
        for place in range(len(response.body)):
            yield response.body[place : place + 1]
            await asyncio.sleep(0.2)

    return replace(response, chunks=drops())


SPOILS: dict[str, Spoil] = {
    "retried": _with_status(RETRIED),
    "final": _with_status(FINAL),
    "denied": _with_status(DENIED),
    "redirect": _redirected,
    "json": _changed_json,
    "bytes": _changed_bytes,
    "body": _other_body,
    "cut": _cut,
    "headers": _odd_headers,
    "trickle": _trickle,
}
LYING = frozenset({"json", "bytes", "body", "headers"})
"""After these the client may believe less than was billed."""
RARE = {"denied": 0.05, "redirect": 0.05, "trickle": 0.02}


@dataclass
class Exchange:
    """One request and what became of its reply. `spoiled` is empty where it went as it was."""

    method: str
    path: str
    text: str
    status: int
    spoiled: str
    honest: Any = field(repr=False)

    @property
    def is_honest(self) -> bool:
        """A good reply that arrived whole."""
        return not self.spoiled and self.status == 200


class SpoiltServer:
    """Spoils replies to `path_ends` with `rate`, in the ways of `menu`, until `is_healthy`."""

    def __init__(
        self,
        draw: random.Random,
        brain: Brain,
        menu: tuple[str, ...],
        rate: float,
        path_ends: Callable[[HttpRequest], bool] = lambda request: True,
    ) -> None:
        self.app = ModelServer(brain, FaultPlan())
        self.menu, self.rate, self.is_healthy = menu, rate, False
        self.exchanges: list[Exchange] = []
        self.url = ""
        self._draw, self._is_spoilt_here = draw, path_ends
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "SpoiltServer":
        self._server = await serve(self._handle, 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _handle(self, request: HttpRequest) -> HttpResponse:
        response = await self.app.handle(request)
        if response.chunks is not None:
            body = b"".join([piece async for piece in response.chunks])
            response = replace(response, chunks=None, body=body)
        honest, spoiled = response, self._choice(request)
        if spoiled:
            response = SPOILS[spoiled](self._draw, response)
        self.exchanges.append(
            Exchange(
                request.method,
                request.path,
                _asked(request),
                response.status,
                spoiled,
                honest.body,
            )
        )
        return response

    def _choice(self, request: HttpRequest) -> str:
        if self.is_healthy or not self._is_spoilt_here(request):
            return ""
        if self._draw.random() >= self.rate:
            return ""
        chosen = self._draw.choice(self.menu)
        return chosen if self._draw.random() < RARE.get(chosen, 1.0) else ""


def _asked(request: HttpRequest) -> str:
    """The number in the request's text, which the tests write as `[[number]]`."""
    text = request.body.decode("utf-8", "replace")
    return text.partition("[[")[2].partition("]]")[0]


@contextmanager
def no_key_in_sight(texts: Callable[[], Iterator[tuple[str, str]]]) -> Iterator[None]:
    """After the block none of `texts` (where, text) holds the key, whole or in part."""
    from fuzz.texts import promise

    yield
    for where, text in texts():
        promise(KEY not in text and KEY[12:40] not in text, f"the key stands in {where}")
