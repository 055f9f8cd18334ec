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
    StopReason,
    TextPart,
)
from judges.backends.failures import (
    Access,
    error_inside,
    error_words_of,
    key_from,
    refuse_unusable_network,
)
from judges.backends.registry import BackendOptions, base_url, is_model_name
from judges.backends.wire.attempts import attempt, body_of, send, tame
from judges.backends.wire.received import (
    UnreadableError,
    end_note,
    openai_usage,
    parse_object,
    reply_end,
    reply_or_billed,
    reply_text,
    short_name,
    without_key,
)
from schemas.serialization import is_variable_name, redact

KEY_VARIABLE = "OPENAI_API_KEY"
DEFAULT_URL = "https://api.openai.com/v1"
NO_KEY = "none"
# Other clients read these.
_URL_VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_BASE")

_URL_BEHIND_MODEL = re.compile(r"@(?=https?://)", re.I)
# Names of OpenAI's own models: what else stands without a URL is a misspelt server.
_OWN_MODEL = re.compile(r"[A-Za-z][\w.-]*(?::[\w.-]*)*")
_HOST_AND_PORT = re.compile(r"localhost\b|:\d{2,5}$|^https?:|\d+\.\d+\.\d+\.\d+", re.I)
_EXAMPLE = "http://localhost:8000/v1"
# Bounds of what one request can be billed for, above any known model's count.
_TOKENS_PER_REQUEST = 64
_TOKENS_PER_PART = 16
_TILE = 512
_TOKENS_PER_TILE = 5667  # gpt-4o-mini, the dearest counter of OpenAI's
_TOKENS_PER_IMAGE = 2833
_SMALLEST_PATCH = 14  # elsewhere: one token per patch of the finest vision encoders in use


async def open_backend(rest: str, *, spec: str, options: BackendOptions) -> "OpenAICompatible":
    """Open `openai:<model>[@<url>]`; raises BackendUnavailableError without the key it needs."""
    model, url = model_and_url(rest, spec)
    if is_openai(url):
        variable, is_required = KEY_VARIABLE, True
    else:
        variable, is_required = options.api_key_env or "", options.api_key_env is not None
    key = key_from(variable, spec) if variable else ""
    if is_required and not key:
        raise BackendUnavailableError(f"{spec} needs a key: {_set_it(variable)}")
    refuse_unusable_network(spec, url, openai.DefaultAsyncHttpxClient)
    return OpenAICompatible(
        spec, model, url, key, variable, timeout_seconds=options.timeout_seconds
    )


def _set_it(variable: str) -> str:
    """What to do where a variable is not set; what may be a key instead of a name is not shown."""
    if is_variable_name(variable):
        return f"set the environment variable {variable}"
    return (
        "what --api-key-env was given names no environment variable that is set; give the "
        "variable's name there, never the key itself"
    )


def model_and_url(rest: str, spec: str) -> tuple[str, str]:
    """MODEL and URL of `MODEL@URL`; OpenAI's own URL only for what can be no misspelt server.

    Raises BackendUnavailableError, without repeating what may hold a password.
    """
    parts = _URL_BEHIND_MODEL.split(rest, maxsplit=1)
    model = parts[0]
    if len(parts) == 2:
        if not is_model_name(model):
            raise BackendUnavailableError(
                f"{redact(spec)!r} is no model and URL: write openai:MODEL@URL, like "
                f"openai:MODEL@{_EXAMPLE}"
            )
        return model, base_url(parts[1], f"the URL of openai:{model}@...", _EXAMPLE)
    if not _OWN_MODEL.fullmatch(model) or _HOST_AND_PORT.search(model):
        raise BackendUnavailableError(
            f"{redact(spec)!r} names no server that can be asked: the URL behind @ must begin with "
            f"http:// or https://, like openai:MODEL@{_EXAMPLE}; without a URL, OpenAI is asked, "
            "and MODEL must be one of its own"
        )
    for name in _URL_VARIABLES:
        if (given := os.environ.get(name, "").strip()) and not is_openai(given):
            raise BackendUnavailableError(
                f"{spec} would ask OpenAI, but the environment variable {name} names another "
                f"server, and is not read: write openai:{model}@URL, or unset it"
            )
    return model, DEFAULT_URL


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
        self._access = Access(
            key, url, advice, "check the model's name and the URL, which mostly ends in /v1"
        )
        self._limit_name = "max_completion_tokens" if is_openai(url) else "max_tokens"
        self._client = openai.AsyncOpenAI(
            api_key=key or NO_KEY, base_url=url, max_retries=0, timeout=timeout_seconds
        )
        if not is_openai(url):
            # The SDK reads these from OPENAI_* variables, whoever it talks to.
            self._client.organization = None
            self._client.project = None
            self._client._custom_headers = {}
        self._timeout_seconds = timeout_seconds
        tame(self._client._client)

    async def complete(self, request: ChatRequest) -> Reply:
        """One attempt at one chat completion."""
        body = json.dumps(self.parameters(request)).encode()
        async with attempt(openai, self._access, self._timeout_seconds):
            response = await send(
                openai, self._client, "/chat/completions", body, seconds=self._timeout_seconds
            )
            content = parse_object(await body_of(response, self._access))
            if (error := error_inside(content, self._access)) is not None:
                raise error
            request_id = response.headers.get("x-request-id", "")
            return reply_or_billed(
                lambda content: self._reply(content, request_id),
                content,
                openai_usage,
                self._access,
            )

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

    def _reply(self, content: dict[str, Any], request_id: str) -> Reply:
        """The reply that `content` is. Raises UnreadableError."""
        choice, message = _choice_and_message(content)
        text = reply_text(message.get("content"))
        stop_word = choice.get("finish_reason")
        stop = StopReason.REFUSAL if message.get("refusal") else reply_end(stop_word)
        key = self._access.key
        return Reply(
            text=without_key(text, key),
            stop=stop,
            usage=openai_usage(content.get("usage"), text),
            model=without_key(short_name(content.get("model")), key),
            request_id=without_key(short_name(request_id or content.get("id")), key),
            note=end_note(stop_word, self._access.server) if stop is StopReason.OTHER else "",
        )


def _choice_and_message(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reply's only choice and its message, which a filter may leave out or empty.

    Raises UnreadableError.
    """
    choices = content.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(choice, dict):
        message = choice.get("message")
        if message is None and choice.get("finish_reason") and not {"text", "delta"} & set(choice):
            message = {}
        if isinstance(message, dict):
            return choice, message
    words = error_words_of(content)
    raise UnreadableError(f"no choice with a message{f', but: {words}' if words else ''}")


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
