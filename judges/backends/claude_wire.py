"""A request as the Messages API wants it, written straight to bytes, and its size and cost bounds.

A generation call carries megabytes of frames. Written once, here, they are not walked through and
escaped again by an SDK and a JSON encoder.
"""

import base64
import json
import math

from judges.backends.base import ChatRequest, ImagePart, TextPart

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
