"""The labelling page's server: this machine only, nothing loaded from anywhere else.

Beside Gradio's own routes it serves the media of a row (`rows/<row>/frames` and
`rows/<row>/media/<n>`), through the path checks and decoder processes of every other reader.
"""

import mimetypes
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from judges.audits.label.page import import_gradio, labelling_blocks
from judges.audits.label.queue import LabelBook
from judges.audits.label.views import ShownMedium, asset, frames_html
from media.frames import MediaError
from media.paths import find_file
from media.store import FrameStore
from schemas.questions import MediaRef

_HOSTS = frozenset({"127.0.0.1", "localhost"})
# Gradio's doors for files and for other servers: this page has no use for them.
_CLOSED = ("/gradio_api/upload", "/gradio_api/file", "/gradio_api/proxy", "/proxy", "/upload")
_SHUTDOWN_SECONDS = 2  # an open page holds a connection that never ends

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def labelling_app(
    book: LabelBook,
    frames: FrameStore,
    media_root: Path,
    *,
    follow_symlinks: bool,
    default_annotator: str | None,
) -> App:
    """The whole page as an ASGI app."""
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse, HTMLResponse, Response

    gr = import_gradio()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def media_of(row: int) -> tuple[MediaRef, ...]:
        if not 0 <= row < len(book.items):
            raise HTTPException(404, f"this audit has no row {row}")
        return book.items[row].question.media

    async def row_frames(row: int) -> HTMLResponse:
        shown = [await _shown(frames, ref) for ref in media_of(row)]
        return HTMLResponse(frames_html(row, tuple(shown)))

    def row_medium(row: int, number: int) -> FileResponse:
        media = media_of(row)
        if not 0 <= number < len(media):
            raise HTTPException(404, f"row {row} has no medium {number}")
        ref = media[number]
        try:
            file = find_file(media_root.resolve(), ref.path, follow_symlinks=follow_symlinks)
        except MediaError as error:
            raise HTTPException(404, str(error)) from error
        return FileResponse(file.real_path, media_type=_media_type(ref))

    def script() -> Response:
        return Response(asset("page.js"), media_type="text/javascript")

    app.get("/rows/{row}/frames")(row_frames)
    app.get("/rows/{row}/media/{number}")(row_medium)
    app.get("/page.js")(script)
    gr.mount_gradio_app(
        app,
        labelling_blocks(book, default_annotator),
        path="/",
        server_name="127.0.0.1",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        allowed_paths=[],
        theme=gr.themes.Default(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=asset("page.css"),
        head='<script src="page.js"></script>',
    )
    return LoopbackOnly(app)


def loopback_socket(port: int) -> socket.socket:
    """A listening socket that only this machine reaches; port 0 is any free one. Raises OSError."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen()  # who opens the page before the server runs waits for it
    except OSError:
        listening.close()
        raise
    return listening


def serve(app: App, listening: socket.socket) -> None:
    """Serve until Ctrl-C, which raises KeyboardInterrupt, or SIGTERM."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listening])


class LoopbackOnly:
    """Keeps other sites out of the page, and the page from loading anything of theirs.

    A request must be addressed to this machine (a site that points its own name here is not), one
    that another site's page makes is refused, and every answer carries a content policy: scripts
    from this server only, inline ones only where the server wrote them.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        refusal = _refusal(
            headers.get("host", b"").decode("latin-1"),
            headers.get("origin", b"").decode("latin-1"),
            scope["path"],
        )
        if refusal:
            await _refuse(send, refusal)
            return
        nonce = secrets.token_urlsafe(16)
        if scope["path"] == "/":  # its scripts get their nonce: it must not come compressed
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        await self._app(scope, receive, _with_policy(send, nonce))


def _refusal(host: str, origin: str, path: str) -> str:
    if host.rpartition(":")[0] not in _HOSTS and host not in _HOSTS:
        return "this page is for the machine it runs on: open http://127.0.0.1 with its port"
    if origin and origin != f"http://{host}":
        return "this page takes no requests from other sites"
    if path.startswith(_CLOSED):
        return "this page takes and gives no files"
    return ""


async def _refuse(send: Send, why: str) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": 403,
            "headers": [(b"content-type", b"text/plain; charset=utf-8")],
        }
    )
    await send({"type": "http.response.body", "body": why.encode()})


def _with_policy(send: Send, nonce: str) -> Send:
    """`send` with our headers; in a page of Gradio's each inline script gets the nonce."""
    held: Message = {}
    body = bytearray()

    async def forward(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"], *_policy(nonce)]
            message = {**message, "headers": headers}
            if any(
                name.lower() == b"content-type" and value.startswith(b"text/html")
                for name, value in headers
            ):
                held.update(message)
                return
        elif held and message["type"] == "http.response.body":
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            marked = bytes(body).replace(b"<script", f'<script nonce="{nonce}"'.encode())
            held["headers"] = [
                *(pair for pair in held["headers"] if pair[0].lower() != b"content-length"),
                (b"content-length", str(len(marked)).encode()),
            ]
            await send(held)
            message = {**message, "body": marked}
        await send(message)

    return forward


def _policy(nonce: str) -> list[tuple[bytes, bytes]]:
    # unsafe-eval: Gradio compiles its templates in the browser.
    policy = (
        "default-src 'none'; "
        f"script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; media-src 'self'; "
        "font-src 'self' data:; connect-src 'self'; manifest-src 'self'; "
        "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
    )
    return [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]


async def _shown(frames: FrameStore, ref: MediaRef) -> ShownMedium:
    try:
        return ShownMedium.of(ref.kind, ref.path, await frames.load(ref))
    except MediaError as error:
        return ShownMedium(ref.kind, ref.path, complaint=f"{error}.")


def _media_type(ref: MediaRef) -> str:
    """A type that the browser plays or shows and never runs, whatever the file calls itself."""
    guessed = mimetypes.guess_type(ref.path)[0] or ""
    is_plain = guessed.startswith(f"{ref.kind}/") and "svg" not in guessed
    return guessed if is_plain else "application/octet-stream"
