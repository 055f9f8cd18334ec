"""From what a user writes (`claude:MODEL`, `openai:MODEL@URL`, `local:PATH`) to an open backend.

Providers are found by name among the installed entry points of group `p2r.backends`, so a backend
can live in any package. Each points to `async def open_backend(rest, *, spec, options)`.
"""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from judges.backends.base import Backend, BackendUnavailableError
from schemas.extras import missing_extra

GROUP = "p2r.backends"

_FREE_PROVIDERS = frozenset({"local", "oracle"})


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


async def open_backend(spec: str, options: BackendOptions | None = None) -> Backend:
    """Open the backend that `spec` names; raises BackendUnavailableError with one sentence."""
    provider, colon, rest = spec.partition(":")
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not colon or not rest or provider not in known:
        raise UnknownBackendError(
            f"{spec!r} names no backend: write PROVIDER:MODEL with one of the providers"
            f" {', '.join(sorted(known))}, for example claude:claude-sonnet-5-5"
        )
    opener = _load(known[provider], spec)
    backend: Backend = await opener(rest, spec=spec, options=options or BackendOptions())
    return backend


def _load(entry: EntryPoint, spec: str):  # type: ignore[no-untyped-def]  # a plugin's own callable
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        sentence = missing_extra(error)
        if sentence is None:
            raise
        raise BackendUnavailableError(f"{spec} {sentence}") from None


def takes_no_money(spec: str) -> bool:
    """Whether calls of this backend can never be billed."""
    return spec.partition(":")[0] in _FREE_PROVIDERS
