"""Backends are found by name; what cannot be opened is told in one sentence."""

import subprocess
import sys
from typing import Any

import pytest

from judges.backends.base import BackendUnavailableError
from judges.backends.registry import _REGISTERED, open_backend, takes_no_money


@pytest.mark.parametrize("spec", ["gemini:pro", "claude", "claude:", ":x", ""])
async def test_an_unknown_spec_names_the_providers_there_are(spec: str) -> None:
    with pytest.raises(BackendUnavailableError, match="claude, local, openai, oracle") as caught:
        await open_backend(spec)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [("openai:m@http://x/v1", "openai", "openai"), ("local:x", "torch", "local")],
)
def test_a_missing_package_is_told_with_what_to_install(
    spec: str, package: str, extra: str
) -> None:
    code = (
        f"import sys, asyncio; sys.modules[{package!r}] = None\n"
        "from judges.backends.registry import open_backend\n"
        f"try: asyncio.run(open_backend({spec!r}))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("BackendUnavailableError"), done.stderr
    assert f'pip install "videop2r-toolkit[{extra}]"' in done.stdout


@pytest.mark.parametrize(
    ("spec", "is_free"),
    [("local:x", True), ("oracle:0", True), ("claude:x", False), ("openai:x@http://y", False)],
)
def test_only_what_runs_here_takes_no_money(spec: str, is_free: bool) -> None:
    assert takes_no_money(spec) is is_free


async def _fails(rest: str, **_: Any) -> Any:
    return {}[rest]


async def _gives_a_text(rest: str, **_: Any) -> Any:
    return rest


def _is_not_async(rest: str, **_: Any) -> Any:
    return rest


@pytest.mark.parametrize(
    ("opener", "words"),
    [
        (_fails, "open_backend of 'mine' failed (KeyError: 'model')"),
        (_gives_a_text, "gave a str without info, complete, count_tokens, worst_case_tokens,"),
        (_is_not_async, "failed (TypeError: object str can't be used in 'await' expression)"),
    ],
)
async def test_a_backend_of_ones_own_that_does_not_open_is_one_sentence(
    opener: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_REGISTERED, "mine", opener)
    with pytest.raises(BackendUnavailableError) as caught:
        await open_backend("mine:model")
    assert str(caught.value).startswith("mine:model cannot be opened: ")
    assert words in str(caught.value)
