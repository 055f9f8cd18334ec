"""A hub that runs here: the routes that huggingface_hub's uploads use, and what came in by them.

with running_hub() as hub:
    subprocess.run([...], env={**os.environ, **hub.environment})
    assert hub.repositories["model/me/my-model"]["README.md"] == b"..."
"""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_test_token_of_a_hub_that_runs_here"
_LARGE = 1_000_000  # as the Hub: larger files, and weights of any size, go by LFS
_PREUPLOAD = re.compile(r"/api/(model|dataset)s/([\w.-]+/[\w.-]+)/preupload/main")
_COMMIT = re.compile(r"/api/(model|dataset)s/([\w.-]+/[\w.-]+)/commit/main")
_LFS = re.compile(r"(/datasets)?/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch")


@dataclass
class Hub:
    """What the server knows."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """`model/OWNER/NAME` -> path -> content."""
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a process takes this for the Hub, by LFS alone."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


@contextmanager
def running_hub() -> Iterator[Hub]:
    """The server on a free port, until the end of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self._body()
            hub.requests.append(f"POST {self.path}")
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._answer({"error": "Invalid username or password."}, status=401)
            else:
                self._answer(_answer_of(hub, self.path.partition("?")[0], body))

        def do_PUT(self) -> None:
            body = self._body()
            oid = self.path.rpartition("/")[2]
            hub.requests.append(f"PUT {self.path}")
            assert sha256(body).hexdigest() == oid
            hub.objects[oid] = body
            self._answer({})

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _answer(self, content: Any, *, status: int = 200) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *words: Any) -> None:
            """Nothing on stderr."""

    return Handler


def _answer_of(hub: Hub, path: str, body: bytes) -> Any:
    if path == "/api/repos/create":
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        key = f"{asked.get('type', 'model')}/{name}"
        hub.repositories.setdefault(key, {})
        is_private = asked.get("private", asked.get("visibility") == "private")
        hub.private.setdefault(key, bool(is_private))
        return {"url": f"{hub.url}/{name}", "name": name}
    if path == "/api/validate-yaml":
        assert json.loads(body)["content"].startswith("---\n")
        return {"errors": [], "warnings": []}
    if _PREUPLOAD.fullmatch(path):
        return {"files": [_mode(one) for one in json.loads(body)["files"]]}
    if found := _LFS.fullmatch(path):
        asked = json.loads(body)["objects"]
        return {"transfer": "basic", "objects": [_instruction(hub, one) for one in asked]}
    found = _COMMIT.fullmatch(path)
    assert found, path
    _commit(hub, f"{found[1]}/{found[2]}", body)
    return {"commitUrl": f"{hub.url}/{found[2]}/commit/1", "commitOid": "1", "success": True}


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    is_large = file["size"] > _LARGE or file["path"].endswith((".safetensors", ".parquet", ".png"))
    mode = "lfs" if is_large else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}


def _instruction(hub: Hub, asked: dict[str, Any]) -> dict[str, Any]:
    upload = {"href": f"{hub.url}/objects/{asked['oid']}"}
    return {"oid": asked["oid"], "size": asked["size"], "actions": {"upload": upload}}


def _commit(hub: Hub, key: str, body: bytes) -> None:
    """Apply a commit: lines of JSON, each with a key and a value."""
    files = hub.repositories[key]
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "file":
            assert value["encoding"] == "base64"
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            files[value["path"]] = hub.objects[value["oid"]]
        else:
            assert line["key"] == "header"
