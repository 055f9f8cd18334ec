"""From what a user writes (`claude:MODEL`, `openai:MODEL@URL`, `local:PATH`) to an open backend.

Providers are found by name: first those that a plugin registered in this process, then installed
entry points of group `p2r.backends`, so a backend can live in any package. Each is an
`async def open_backend(rest, *, spec, options)`. In a plugin (`--plugin FILE.py`):

    register_backend("echo", open_backend)      # then --judge echo:MODEL
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from urllib.parse import urlsplit

from cli.exit_status import missing_extra, require_packages
from judges.backends.base import Backend, BackendUnavailableError
from judges.backends.model_files.names import why_no_model
from schemas.serialization import CODING_ERRORS, error_words

GROUP = "p2r.backends"
Opener = Callable[..., Awaitable[Backend]]
"""`await opener(rest, spec=spec, options=options)`; `rest` is the spec behind its colon."""

_FREE_PROVIDERS = frozenset({"local", "oracle"})
# Providers whose models run in this process, each with the packages that they need.
_IN_THIS_PROCESS = {"local": ("torch", "transformers")}
_NAME = re.compile(r"[A-Za-z][\w.-]*")
_PLAIN_URL = re.compile(
    r"https?://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[\w.~%+:-]*)*", re.I
)
_LONGEST_LABEL = 63
_FOREIGN_MODEL = re.compile(r"://|[\s\x00-\x1f\x7f]|@$")
# Ends of the addresses of single calls, which a client adds by itself.
_CALL_PATHS = ("/chat/completions", "/completions", "/messages", "/responses", "/models")
_MEMBERS = ("info", "complete", "count_tokens", "worst_case_tokens", "aclose")
_REGISTERED: dict[str, Opener] = {}


@dataclass(frozen=True)
class BackendOptions:
    """What a user can say about backends besides their spec; each backend takes what concerns it.

    `api_key_env` names the environment variable whose key an OpenAI-compatible server gets.
    `device` is torch's name of one (`cuda:1`); None picks CUDA where there is one.
    """

    api_key_env: str | None = None
    timeout_seconds: float = 600.0
    local_batch_size: int = 8
    media_root: Path | None = None
    device: str | None = None


class UnknownBackendError(BackendUnavailableError):
    """The spec names no backend, whatever is installed and whoever has a key."""


def register_backend(name: str, opener: Opener) -> None:
    """Let `NAME:...` open a backend in this process. Raises ValueError for a name that is taken."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a backend cannot be called {name!r}: use letters, digits, '-' and '_'")
    if name in provider_names():
        raise ValueError(f"there is a backend called {name!r} already; choose another name")
    _REGISTERED[name] = opener


def provider_names() -> tuple[str, ...]:
    """All names that a spec can begin with, in alphabetical order."""
    return tuple(sorted({*_REGISTERED, *_installed()}))


async def open_backend(spec: str, options: BackendOptions | None = None) -> Backend:
    """Open the backend that `spec` names; raises BackendUnavailableError with one sentence."""
    provider, rest = _parts(spec)
    opener = _REGISTERED.get(provider) or _load(_installed()[provider], spec)
    try:
        backend = await opener(rest, spec=spec, options=options or BackendOptions())
    except ModuleNotFoundError as error:
        sentence = missing_extra(error)
        if sentence is None:
            raise
        raise BackendUnavailableError(f"{spec} {sentence}") from None
    except CODING_ERRORS as error:
        raise BackendUnavailableError(
            f"{spec} cannot be opened: open_backend of {provider!r} failed ({error_words(error)})"
        ) from error
    if missing := [name for name in _MEMBERS if not hasattr(backend, name)]:
        raise BackendUnavailableError(
            f"{spec} cannot be opened: open_backend of {provider!r} gave a "
            f"{type(backend).__name__} without {', '.join(missing)}; expected a "
            "judges.backends.base.Backend"
        )
    return backend


def refuse_unusable(spec: str) -> None:
    """Raise BackendUnavailableError where no backend can come of `spec`: it is found out without
    opening one, before anything is loaded or written."""
    provider, rest = _parts(spec)
    if provider not in _IN_THIS_PROCESS or provider in _REGISTERED:
        return
    try:
        require_packages(*_IN_THIS_PROCESS[provider])
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(f"{spec} {missing_extra(error)}") from None
    if why := why_no_model(rest):
        raise BackendUnavailableError(f"{spec}: {why}")


def _parts(spec: str) -> tuple[str, str]:
    """Provider and the rest. Raises UnknownBackendError."""
    provider, colon, rest = spec.partition(":")
    names = provider_names()
    if not colon or not rest or provider not in names:
        raise UnknownBackendError(
            f"{spec!r} names no backend: write PROVIDER:MODEL with one of the providers"
            f" {', '.join(names)}, for example claude:claude-sonnet-5-5"
        )
    return provider, rest


def base_url(text: str, name: str, example: str) -> str:
    """`text` as the base URL of an API: its scheme in lower case, without a slash at the end.

    Raises BackendUnavailableError, without repeating it, where it is anything but one plain URL.
    `name` says where it stands, `example` how one looks.
    """
    scheme, colon, rest = text.partition("://")
    url = f"{scheme.lower()}{colon}{rest}".rstrip("/")
    if not _PLAIN_URL.fullmatch(url) or not _has_host_and_port(url):
        pieces = [piece.strip() for piece in text.split(",")]
        if len(pieces) > 1 and all(_PLAIN_URL.fullmatch(piece) for piece in pieces):
            raise BackendUnavailableError(
                f"{name} holds {len(pieces)} URLs: give one, like {example}; a proxy that spreads "
                "calls over several servers has one, too"
            )
        raise BackendUnavailableError(
            f"{name} must be plain, like {example}: http:// or https://, a host, and perhaps a port"
            " and a path, without blanks, quotes, a user, '?' or '#' (it is stored: a key belongs"
            " into an environment variable)"
        )
    if ending := next((end for end in _CALL_PATHS if url.lower().endswith(end)), ""):
        raise BackendUnavailableError(
            f"{name} ends in {ending}, which the client adds itself; leave it out, like {example}"
        )
    return url


def _has_host_and_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        labels = (parts.hostname or "").removesuffix(".").split(".")
        return parts.port != 0 and all(0 < len(label) <= _LONGEST_LABEL for label in labels)
    except ValueError:
        return False


def is_model_name(name: str) -> bool:
    """Whether this can be a model's name at a server: not empty, no URL, no blank in it."""
    return bool(name) and not _FOREIGN_MODEL.search(name)


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(entry: EntryPoint, spec: str) -> Opener:
    try:
        opener: Opener = entry.load()
    except ModuleNotFoundError as error:
        sentence = missing_extra(error)
        if sentence is None:
            raise
        raise BackendUnavailableError(f"{spec} {sentence}") from None
    return opener


def takes_no_money(spec: str) -> bool:
    """Whether calls of this backend can never be billed."""
    return spec.partition(":")[0] in _FREE_PROVIDERS
