"""The Messages API as the pretend server speaks it: what it refuses, how its replies look."""

import base64
import binascii
import json
import re
from typing import Any

from servers.replies import Answer, Prompt, SeenImage, count_tokens, cut_to_tokens, read_image

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_IMAGE_BYTES = 10 * 1024 * 1024
MAX_IMAGES = 100
MAX_IMAGE_EDGE = 8000
MANY_IMAGES = 20
MANY_IMAGES_EDGE = 2000

_PARAMS = {
    "max_tokens", "messages", "model", "cache_control", "container", "diagnostics",
    "inference_geo", "metadata", "output_config", "service_tier", "speed", "stop_sequences",
    "stream", "system", "thinking", "tool_choice", "tools",
}  # fmt: skip
_MEDIA_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}")


class ApiError(Exception):
    """An error reply: HTTP status, the API's error type, its words."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message


def bad_request(message: str) -> ApiError:
    """A 400 with the API's usual type."""
    return ApiError(400, "invalid_request_error", message)


def error_object(kind: str, message: str, request_id: str) -> dict[str, Any]:
    """The body of an error reply."""
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error, "request_id": request_id}


def check_headers(headers: dict[str, str], api_key: str | None) -> None:
    """Key and version as the API wants them."""
    key = presented_key(headers)
    if not key:
        raise ApiError(401, "authentication_error", "x-api-key header is required")
    if api_key is not None and key != api_key:
        raise ApiError(401, "authentication_error", "invalid x-api-key")
    if not _VERSION.fullmatch(headers.get("anthropic-version", "")):
        raise bad_request("anthropic-version: header is required")


def presented_key(headers: dict[str, str]) -> str:
    """The caller's key, from either header."""
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")


def read_prompt(body: Any, *, models: frozenset[str], counting: bool = False) -> Prompt:
    """Check a Messages request and turn it into a prompt; raises ApiError."""
    if not isinstance(body, dict):
        raise bad_request("Input should be a valid dictionary")
    for name in body:
        if name not in _PARAMS or (counting and name in ("max_tokens", "stream")):
            raise bad_request(f"{name}: Extra inputs are not permitted")
    for name in ("model", "messages") if counting else ("model", "messages", "max_tokens"):
        if name not in body:
            raise bad_request(f"{name}: Field required")
    model, max_tokens = body["model"], body.get("max_tokens", 0)
    if not isinstance(model, str) or not model:
        raise bad_request("model: String should have at least 1 character")
    if models and model not in models:
        raise ApiError(404, "not_found_error", f"model: {model}")
    if not counting and (not isinstance(max_tokens, int) or max_tokens < 1):
        raise bad_request("max_tokens: Input should be greater than or equal to 1")
    if body.get("stream"):
        raise bad_request("stream: this server does not stream")
    texts, images, order = _read_messages(body["messages"])
    _check_image_sizes(images)
    return Prompt(
        provider="anthropic",
        model=model,
        system=_read_system(body.get("system", "")),
        text="\n".join(texts),
        images=tuple(images),
        order=order,
        max_tokens=max_tokens,
        num_messages=len(body["messages"]),
    )


def _read_system(system: Any) -> str:
    if isinstance(system, str):
        return system
    if not isinstance(system, list):
        raise bad_request("system: Input should be a valid string or list")
    return "\n".join(_block_text(block, f"system.{i}") for i, block in enumerate(system))


def _block_text(block: Any, place: str) -> str:
    text = block.get("text") if isinstance(block, dict) else None
    if not isinstance(text, str):
        raise bad_request(f"{place}.text: Field required")
    if not text:
        raise bad_request(f"{place}: text content blocks must be non-empty")
    return text


def _read_messages(messages: Any) -> tuple[list[str], list[SeenImage], str]:
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages: at least one message is required")
    texts: list[str] = []
    images: list[SeenImage] = []
    order = ""
    for number, message in enumerate(messages):
        place = f"messages.{number}"
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
            raise bad_request(f"{place}.role: Input should be 'user' or 'assistant'")
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list) or not content:
            raise bad_request(f"{place}: user messages must have non-empty content")
        for index, block in enumerate(content):
            where = f"{place}.content.{index}"
            kind = block.get("type") if isinstance(block, dict) else None
            if kind == "text":
                texts.append(_block_text(block, where))
                order += "t"
            elif kind == "image":
                images.append(_read_image_block(block, where))
                order += "i"
            else:
                raise bad_request(f"{where}.type: Input tag {kind!r} does not match any expected")
    if messages[0]["role"] != "user":
        raise bad_request("messages: first message must use the 'user' role")
    return texts, images, order


def _read_image_block(block: dict[str, Any], where: str) -> SeenImage:
    source = block.get("source")
    if not isinstance(source, dict) or source.get("type") != "base64":
        raise bad_request(f"{where}.source.type: Input should be 'base64'")
    media_type = source.get("media_type")
    if media_type not in _MEDIA_TYPES:
        raise bad_request(f"{where}.source.media_type: Input should be one of {_MEDIA_TYPES}")
    try:
        data = base64.b64decode(source.get("data", ""), validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise bad_request(f"{where}.source.base64.data: invalid base64 data") from error
    if len(data) > MAX_IMAGE_BYTES:
        raise bad_request(f"{where}.source.base64: image exceeds {MAX_IMAGE_BYTES} bytes")
    try:
        image = read_image(data)
    except ValueError as error:
        raise bad_request(f"{where}.source.base64: {error}") from error
    if f"image/{image.format}" != media_type:
        raise bad_request(
            f"{where}.source.base64: the image was specified using the {media_type} media type,"
            f" but it appears to be image/{image.format}"
        )
    return image


def _check_image_sizes(images: list[SeenImage]) -> None:
    if len(images) > MAX_IMAGES:
        raise bad_request(f"messages: too many images: {len(images)} > {MAX_IMAGES}")
    limit = MANY_IMAGES_EDGE if len(images) > MANY_IMAGES else MAX_IMAGE_EDGE
    for image in images:
        if max(image.width, image.height) > limit:
            raise bad_request(f"messages: image dimensions exceed {limit} pixels")


def message_reply(prompt: Prompt, answer: Answer, message_id: str) -> dict[str, Any]:
    """A Message: the answer cut at `max_tokens`, its thinking in a block of its own."""
    text, stop_reason = answer.text, "end_turn"
    if answer.stop == "refused":
        text, stop_reason = "", "refusal"
    elif answer.stop == "truncated" or count_tokens(text) > prompt.max_tokens:
        limit = min(prompt.max_tokens, max(1, count_tokens(text) - 1))
        text, stop_reason = cut_to_tokens(text, limit), "max_tokens"
    content: list[dict[str, Any]] = []
    if answer.thinking:
        content.append({"type": "thinking", "thinking": answer.thinking, "signature": "c2lnbg=="})
    if text:
        content.append({"type": "text", "text": text})
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": prompt.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": prompt.input_tokens,
            "output_tokens": max(1, count_tokens(text) + count_tokens(answer.thinking)),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "service_tier": "standard",
        },
    }


def parse_json(body: bytes, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """The request's JSON; raises ApiError for what is none, or too large."""
    if len(body) > max_bytes:
        raise ApiError(413, "request_too_large", "Request exceeds the maximum size")
    try:
        return json.loads(body)
    except ValueError as error:
        raise bad_request(f"The request body is not valid JSON: {error}") from error
