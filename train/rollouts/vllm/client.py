"""HTTP to a vLLM server: its calls, their faults as sentences, and streams of sampled tokens.

The routes are vLLM 0.31's, the same on CPUs and GPUs. Pausing and new weights are routes of
`VLLM_SERVER_DEV_MODE=1`. Redirects are not followed and no proxy is asked: a server of rollouts
stands in the same network.
"""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

from cli.config import UsageError
from train.rollouts.streaming import RolloutServerError

_CONNECT_SECONDS = 10.0
_SHOWN = 200


class RequestRefusedError(RolloutServerError):
    """The server found fault with one request; it may answer others."""


class VllmClient:
    """Calls of one server. Any thread may make them; each has a connection of its own.

    `seconds` is the longest wait for the next bytes of a reply.
    """

    def __init__(self, url: str, *, seconds: float = 600.0) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            self.host, port = parts.hostname or "", parts.port
        except ValueError:
            self.host, port = "", None
        if parts.scheme not in ("http", "https") or not self.host or parts.query:
            raise UsageError(
                f"--vllm-url {url} is no address of a server; give one such as"
                " http://127.0.0.1:8000"
            )
        if "@" in parts.netloc:
            raise UsageError(
                "--vllm-url holds a user name or a password, which would not be sent; give the"
                " server's address alone, such as http://127.0.0.1:8000"
            )
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._is_https, self._seconds = parts.scheme == "https", seconds
        self.port = port or (443 if self._is_https else 80)
        self._under_way: dict[HTTPConnection, socket.socket] = {}
        self._sent = ""

    def get(self, path: str) -> Any:
        """The JSON of a reply. Raises RolloutServerError."""
        return self._json("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: str | bool) -> Any:
        """The JSON of a reply to `body`. Raises RolloutServerError."""
        asked = {key: str(value).lower() for key, value in query.items()}
        return self._json("POST", f"{path}?{urlencode(asked)}" if asked else path, body or {})

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a streamed reply, as they come. Raises RolloutServerError."""
        connection, reply = self._reply("POST", path, body)
        try:
            for line in reply:
                field, _, value = line.strip().partition(b":")
                if field != b"data":
                    continue
                if value.strip() == b"[DONE]":
                    return
                event = self._parsed(path, value)
                if "error" in event:
                    raise self._fault(path, f"failed while it answered: {_shown(event['error'])}")
                yield event
        except (OSError, HTTPException) as error:
            raise self._fault(path, f"broke off ({error or type(error).__name__})") from error
        finally:
            self._end(connection)
        raise self._fault(path, "ended its reply before its end")

    # What a trainer's engine of vLLM calls (its `VLLMWeightSyncClient`), and ours beside it.

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Let the workers join the trainer's group."""
        self.post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        """New weights follow."""
        self.post("/start_weight_update")

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Receive these tensors; returns when they are there."""
        self.post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """All weights have come. Each update has a name of its own: `refuse_other_weights`."""
        self._sent = weight_version or f"p2r-{uuid4().hex}"
        self.post("/finish_weight_update", {"weight_version": self._sent})

    def refuse_other_weights(self) -> None:
        """Raise RolloutServerError where the server's weights are no longer those of the last
        update that this client made."""
        if self.get("/weight_info").get("weight_version") != self._sent:
            raise self._fault(
                "", "has other weights than it was sent: another run sent its own, or it restarted"
            )

    def hang_up(self) -> None:
        """End all calls that are under way: each raises RolloutServerError in its thread."""
        for own in list(self._under_way.values()):
            with suppress(OSError):  # it has ended by itself
                own.shutdown(socket.SHUT_RDWR)

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        connection, reply = self._reply(method, path, body)
        try:
            text = reply.read()
        except (OSError, HTTPException) as error:
            raise self._fault(path, f"broke off ({error or type(error).__name__})") from error
        finally:
            self._end(connection)
        return self._parsed(path, text) if text.strip() else {}

    def _reply(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[HTTPConnection, HTTPResponse]:
        kind = HTTPSConnection if self._is_https else HTTPConnection
        connection = kind(self.host, self.port, timeout=_CONNECT_SECONDS)
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.connect()
            self._under_way[connection] = connection.sock
            connection.sock.settimeout(self._seconds)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            reply = connection.getresponse()
        except (OSError, HTTPException) as error:
            self._end(connection)
            raise self._fault(path, f"does not answer ({error or type(error).__name__})") from error
        if reply.status != 200:
            try:
                text = reply.read(2**20)
            except (OSError, HTTPException):
                text = b""
            self._end(connection)
            raise self._refused(path, reply.status, text.decode("utf-8", "replace"))
        return connection, reply

    def _end(self, connection: HTTPConnection) -> None:
        self._under_way.pop(connection, None)
        connection.close()

    def _parsed(self, path: str, text: bytes) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise self._fault(path, f"answered with what is no JSON: {_shown(text)}") from error

    def _refused(self, path: str, status: int, text: str) -> RolloutServerError:
        if status == 404 and not path.startswith("/v1"):
            return self._fault(
                path, "has no such route: start it with VLLM_SERVER_DEV_MODE=1 in its environment"
            )
        fault = self._fault(path, f"answered with status {status}: {_shown(text)}")
        return RequestRefusedError(str(fault)) if status == 400 else fault

    def _fault(self, path: str, what: str) -> RolloutServerError:
        return RolloutServerError(f"the vLLM server {self.url}{path.partition('?')[0]} {what}")


def _shown(text: object) -> str:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    line = "".join(c if c.isprintable() else "?" for c in " ".join(words.split()))
    # vLLM prints whole arrays into its messages, and the reason behind them.
    return line if len(line) <= 2 * _SHOWN else f"{line[:_SHOWN]} ... {line[-_SHOWN:]}"
