"""A server that speaks vLLM's routes as it is scripted to: faults of the wire, without vLLM."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

CHAT = "/v1/chat/completions"
Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


@dataclass
class Wire:
    """Answers by route, and the requests that came."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    def says(self, route: str, reply: Any, *, status: int = 200) -> None:
        """Answer a route with this JSON, or with these bytes."""
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.answers[route] = lambda _: (status, data)

    def streams(self, *events: Any, ends: bool = True) -> None:
        """Answer a chat with these events."""
        lines = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in events]
        self.says(CHAT, b"".join([*lines, b"data: [DONE]\n\n" if ends else b""]))


@contextlib.contextmanager
def rollout_wire() -> Iterator[Wire]:
    """A server of one model that knows no other route until it is told one."""
    wire = Wire()
    wire.says("/v1/models", {"data": [{"id": "policy"}]})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({})

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self.answer(json.loads(self.rfile.read(length) or b"{}"))

        def answer(self, body: dict[str, Any]) -> None:
            route = self.path.partition("?")[0]
            wire.asked.append((self.path, body))
            found = wire.answers.get(route)
            status, data = (404, b"{}") if found is None else found(body)
            self.send_response(status)
            if status in (301, 307):
                self.send_header("Location", f"{wire.url}/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    wire.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield wire
    finally:
        server.shutdown()
        server.server_close()
