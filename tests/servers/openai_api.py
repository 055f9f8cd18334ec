"""Chat completions as the pretend server speaks them."""

import base64
import binascii
import re
from typing import Any

from servers.anthropic_api import ApiError, bad_request
from servers.replies import Answer, Prompt, SeenImage, count_tokens, cut_to_tokens, read_image

_PARAMS = {
    "messages", "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
    "n", "stop", "stream", "user", "frequency_penalty", "presence_penalty", "logit_bias",
    "logprobs", "response_format", "reasoning_effort", "metadata", "store", "service_tier",
}  # fmt: skip
_DATA_URL = re.compile(r"data:image/(\w+);base64,(.*)", re.DOTALL)
_DEFAULT_MAX_TOKENS = 4096


def error_object(kind: str, message: str) -> dict[str, Any]:
    """The body of an error reply."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def check_headers(headers: dict[str, str], api_key: str | None) -> None:
    """A bearer key; without `api_key` any will do."""
    key = headers.get("authorization", "").removeprefix("Bearer ")
    if api_key is not None and key != api_key:
        raise ApiError(401, "invalid_request_error", "Incorrect API key provided.")


def read_prompt(body: Any, *, models: frozenset[str]) -> Prompt:
    """Check a chat completion request and turn it into a prompt; raises ApiError."""
    if not isinstance(body, dict):
        raise bad_request("We could not parse the JSON body of your request.")
    for name in body:
        if name not in _PARAMS:
            raise bad_request(f"Unrecognized request argument supplied: {name}")
    for name in ("model", "messages"):
        if not body.get(name):
            raise bad_request(f"you must provide a {name} parameter")
    if models and body["model"] not in models:
        raise ApiError(404, "invalid_request_error", f"The model `{body['model']}` does not exist")
    if body.get("stream"):
        raise bad_request("this server does not stream")
    limit = body.get("max_completion_tokens", body.get("max_tokens", _DEFAULT_MAX_TOKENS))
    if not isinstance(limit, int) or limit < 1:
        raise bad_request(f"Invalid max_tokens value, the valid range starts at 1: {limit!r}")
    system: list[str] = []
    texts: list[str] = []
    images: list[SeenImage] = []
    order = ""
    for number, message in enumerate(body["messages"]):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant"):
            raise bad_request(f"messages[{number}].role: invalid value {role!r}")
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list):
            raise bad_request(f"messages[{number}].content: expected a string or a list of parts")
        for part in content:
            if part.get("type") == "text":
                (system if role in ("system", "developer") else texts).append(part["text"])
                order += "t" if role not in ("system", "developer") else ""
            elif part.get("type") == "image_url":
                images.append(_read_image_part(part))
                order += "i"
            else:
                raise bad_request(f"messages[{number}].content: invalid part {part.get('type')!r}")
    return Prompt(
        provider="openai",
        model=body["model"],
        system="\n".join(system),
        text="\n".join(texts),
        images=tuple(images),
        order=order,
        max_tokens=limit,
        num_messages=len(body["messages"]),
    )


def _read_image_part(part: dict[str, Any]) -> SeenImage:
    image_url = part.get("image_url")
    match = _DATA_URL.fullmatch(image_url.get("url", "")) if isinstance(image_url, dict) else None
    if match is None:
        raise bad_request("image_url.url: this server reads data:image/...;base64 only")
    try:
        image = read_image(base64.b64decode(match[2], validate=True))
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"Invalid image data: {error}") from error
    if image.format != match[1]:
        raise bad_request(f"the data URL says {match[1]}, the image is {image.format}")
    return image


def completion_reply(prompt: Prompt, answer: Answer, message_id: str) -> dict[str, Any]:
    """A chat completion: cut at the token limit, a refusal in its own field."""
    text, finish, refusal = answer.text, "stop", None
    if answer.stop == "refused":
        text, finish, refusal = "", "content_filter", "I can't help with that."
    elif answer.stop == "truncated" or count_tokens(text) > prompt.max_tokens:
        limit = min(prompt.max_tokens, max(1, count_tokens(text) - 1))
        text, finish = cut_to_tokens(text, limit), "length"
    output_tokens = max(1, count_tokens(text) + count_tokens(answer.thinking))
    message = {"role": "assistant", "content": text or None, "refusal": refusal}
    return {
        "id": message_id,
        "object": "chat.completion",
        "created": 0,
        "model": prompt.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {
            "prompt_tokens": prompt.input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": prompt.input_tokens + output_tokens,
        },
    }


def models_reply(models: frozenset[str]) -> dict[str, Any]:
    """The list of models."""
    data = [
        {"id": name, "object": "model", "created": 0, "owned_by": "nobody"}
        for name in sorted(models)
    ]
    return {"object": "list", "data": data}
