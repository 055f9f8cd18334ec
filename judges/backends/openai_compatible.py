"""Any server that speaks OpenAI's chat completions: OpenAI, vLLM, SGLang, llama.cpp, Ollama, ...

`openai:<model>@<url>`; without a URL, OpenAI's own. `OPENAI_API_KEY` is sent to OpenAI's hosts over
https and nowhere else; another server gets the key that `--api-key-env` names, or the word "none".
"""

import base64
import json
import math
import os
import re
from typing import Any
from urllib.parse import urlsplit

import openai

from judges.backends.base import (
    BackendInfo,
    BackendUnavailableError,
    ChatRequest,
    ImagePart,
    Reply,
    RetryableError,
    StopReason,
    TextPart,
    Usage,
)
from judges.backends.failures import Access, connection_error, garbled_reply, status_error
from judges.backends.registry import BackendOptions

KEY_VARIABLE = "OPENAI_API_KEY"
DEFAULT_URL = "https://api.openai.com/v1"
NO_KEY = "none"

_SPEC = re.compile(r"(?P<model>.+?)(?:@(?P<url>https?://.*))?")
_URL_WITHOUT_SCHEME = re.compile(r"@(?:localhost\b|[\w.-]+:\d+(?:/|$)|\d+\.\d+\.\d+\.\d+)")
_STOP_REASONS = {
    "stop": StopReason.END,
    "length": StopReason.MAX_TOKENS,
    "content_filter": StopReason.REFUSAL,
}
# Bounds of what one request can be billed for, above any known model's count.
_TOKENS_PER_REQUEST = 64
_TOKENS_PER_PART = 16
_TILE = 512
_TOKENS_PER_TILE = 5667  # gpt-4o-mini, the dearest counter of OpenAI's
_TOKENS_PER_IMAGE = 2833
_SMALLEST_PATCH = 14  # elsewhere: one token per patch of the finest vision encoders in use


async def open_backend(rest: str, *, spec: str, options: BackendOptions) -> "OpenAICompatible":
    """Open `openai:<model>[@<url>]`; raises BackendUnavailableError without the key it needs."""
    match = _SPEC.fullmatch(rest)
    if match is None:
        raise BackendUnavailableError(f"{spec!r} names no model: write openai:MODEL@URL")
    if match["url"] is None and _URL_WITHOUT_SCHEME.search(rest):
        raise BackendUnavailableError(
            f"the URL in {spec} must begin with http:// or https://, like "
            "openai:MODEL@http://localhost:8000/v1"
        )
    url = (match["url"] or DEFAULT_URL).rstrip("/")
    parts = urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise BackendUnavailableError(
            f"the URL of openai:{match['model']}@... must be plain, like http://localhost:8000/v1:"
            " it is stored, so keys belong in the environment variable that --api-key-env names"
        )
    if is_openai(url):
        variable, is_required = KEY_VARIABLE, True
    else:
        variable, is_required = options.api_key_env or "", options.api_key_env is not None
    key = os.environ.get(variable, "").strip() if variable else ""
    if is_required and not key:
        raise BackendUnavailableError(
            f"{spec} needs a key: set the environment variable {variable}"
        )
    return OpenAICompatible(
        spec, match["model"], url, key, variable, timeout_seconds=options.timeout_seconds
    )


def is_openai(url: str) -> bool:
    """Whether `url` is OpenAI's own, reached so that nobody on the way can read the key."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" and (
        host == "api.openai.com" or host.endswith(".api.openai.com")
    )


class OpenAICompatible:
    """One model behind a chat completions endpoint. Every call is one attempt.

    OpenAI's own models take `max_completion_tokens`; everybody else knows `max_tokens`.
    """

    def __init__(
        self,
        spec: str,
        model: str,
        url: str,
        key: str,
        key_variable: str,
        *,
        timeout_seconds: float = 600.0,
    ) -> None:
        self.info = BackendInfo(
            spec=spec,
            provider="openai",
            model=model,
            endpoint=url,
            takes_sampling=frozenset({"temperature", "top_p", "seed"}),
        )
        advice = (
            f"set the environment variable {key_variable} to a key that may use it"
            if key_variable
            else "put its key into an environment variable and name it with --api-key-env"
        )
        self._access = Access(key, url, advice)
        self._limit_name = "max_completion_tokens" if is_openai(url) else "max_tokens"
        self._client = openai.AsyncOpenAI(
            api_key=key or NO_KEY, base_url=url, max_retries=0, timeout=timeout_seconds
        )
        if not is_openai(url):
            # The SDK reads these from OPENAI_* variables, whoever it talks to.
            self._client.organization = None
            self._client.project = None
            self._client._custom_headers = {}

    async def complete(self, request: ChatRequest) -> Reply:
        """One attempt at one chat completion."""
        try:
            response = await self._client.chat.completions.with_raw_response.create(
                **self.parameters(request)
            )
            content = json.loads(response.http_response.content)
        except openai.APIStatusError as error:
            headers = error.response.headers
            raise status_error(error.status_code, error.body, headers, self._access) from None
        except openai.APITimeoutError as error:
            raise connection_error(error, self._access, timed_out=True) from None
        except openai.APIConnectionError as error:
            raise connection_error(error, self._access, timed_out=False) from None
        except (openai.APIError, ValueError) as error:
            raise garbled_reply(str(error), self._access) from None
        return self._reply(content, response.headers.get("x-request-id") or "")

    def parameters(self, request: ChatRequest) -> dict[str, Any]:
        """What is sent for `request`."""
        sampling = {
            name: int(value) if name == "seed" else value for name, value in request.sampling
        }
        return {
            "model": self.info.model,
            "messages": _messages(request),
            self._limit_name: request.max_tokens,
            **sampling,
        }

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """None: the protocol has no such call."""
        return None

    def worst_case_tokens(self, request: ChatRequest) -> tuple[int, int]:
        """Upper bounds of (input, output) tokens."""
        tokens = _TOKENS_PER_REQUEST + _num_bytes(request.system)
        for part in request.parts:
            tokens += _TOKENS_PER_PART
            if isinstance(part, TextPart):
                tokens += _num_bytes(part.text)
            elif is_openai(self.info.endpoint):
                tiles = math.ceil(part.width / _TILE) * math.ceil(part.height / _TILE)
                tokens += _TOKENS_PER_IMAGE + tiles * _TOKENS_PER_TILE
            else:
                columns = math.ceil(part.width / _SMALLEST_PATCH)
                tokens += columns * math.ceil(part.height / _SMALLEST_PATCH)
        return tokens, request.max_tokens

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _reply(self, content: Any, request_id: str) -> Reply:
        try:
            choice = content["choices"][0]
            message, finish = choice["message"], choice["finish_reason"]
            text = message.get("content") or ""
            refusal = message.get("refusal")
            usage = _usage(content.get("usage") or {})
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise self._garbled(content) from None
        if not isinstance(text, str) or finish not in _STOP_REASONS:
            raise self._garbled(content)
        return Reply(
            text=text,
            stop=StopReason.REFUSAL if refusal else _STOP_REASONS[finish],
            usage=usage,
            model=str(content.get("model", "")),
            request_id=request_id or str(content.get("id", "")),
        )

    def _garbled(self, content: object) -> RetryableError:
        return garbled_reply(f"unexpected content {str(content)[:200]}", self._access)


def _usage(usage: dict[str, Any]) -> Usage:
    cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    return Usage(
        input_tokens=int(usage.get("prompt_tokens") or 0) - cached,
        output_tokens=int(usage.get("completion_tokens") or 0),
        cache_read_tokens=cached,
    )


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    """System and user turn; plain text where there is no image, which every server understands."""
    content: str | list[dict[str, Any]] = request.text
    if request.images:
        content = [
            {"type": "text", "text": part.text}
            if isinstance(part, TextPart)
            else {"type": "image_url", "image_url": {"url": _data_url(part)}}
            for part in request.parts
        ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if request.system:
        messages.insert(0, {"role": "system", "content": request.system})
    return messages


def _data_url(part: ImagePart) -> str:
    return f"data:{part.media_type};base64,{base64.b64encode(part.data).decode('ascii')}"


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
