"""Requests and frames that the backends' tests share."""

import io
from typing import Any

from PIL import Image
from servers.model_server import RunningServer

from judges.backends.base import ChatRequest, ImagePart, TextPart
from judges.backends.preflight import CHECK_TEXT


def frame(number: int, width: int = 84, height: int = 56) -> ImagePart:
    """A JPEG of one colour; each number has its own bytes."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (number * 7 % 256, 90, 160)).save(file, "JPEG", quality=95)
    return ImagePart(f"media/{number}", width, height, file.getvalue())


def paid_requests(server: RunningServer, path: str = "/v1/messages") -> list[dict[str, Any]]:
    """What a server was asked, but for the check whether it answers."""
    return [one for one in server.requests(path) if one.get("text") != CHECK_TEXT]


def text_request(text: str = "Is the sky blue?", **fields: object) -> ChatRequest:
    """A judge's call."""
    return ChatRequest(**{"parts": (TextPart(text),), "max_tokens": 64, **fields})  # type: ignore[arg-type]


def frames_request(num_frames: int, question: str = "What moves?", **fields: object) -> ChatRequest:
    """A teacher's call: "frame i", image, ..., question."""
    parts = [
        part
        for number in range(num_frames)
        for part in (TextPart(f"frame {number}"), frame(number))
    ]
    return text_request(question, parts=(*parts, TextPart(question)), **fields)
