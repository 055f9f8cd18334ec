"""Provenance: which code, with which packages and settings, made a thing, and when."""

import os
import platform
import secrets
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from schemas.serialization import redact

_GIT_TIMEOUT_SECONDS = 10
DISTRIBUTION = "videop2r-toolkit"
"""What this project is called where packages are installed from; `p2r` is somebody else's there."""
_OWN = "p2r"
"""The name under which ledgers and reports keep our version."""
_RECORDED_PACKAGES = (
    DISTRIBUTION,
    "accelerate",
    "anthropic",
    "av",
    "datasets",
    "decord",
    "duckdb",
    "jiwer",
    "numpy",
    "openai",
    "peft",
    "pillow",
    "pyarrow",
    "pydantic",
    "rouge-score",
    "tenacity",
    "torch",
    "torchvision",
    "transformers",
    "trl",
)


class Settings(Protocol):
    """The options of a command, or anything else that can be written as JSON."""

    def as_json(self) -> dict[str, Any]:
        """The options by name, as JSON values."""
        ...


@dataclass(frozen=True)
class RunInfo:
    """One execution of a command. Everything in it is JSON-able; nothing in it is a secret.

    `run_id` sorts by start time. `commit` and `dirty` are those of the checkout that the code runs
    from, None when it runs from an installed package. `versions` lists installed packages only.
    """

    run_id: str
    command: str
    started_at: str
    commit: str | None
    dirty: bool | None
    versions: dict[str, str]
    python: str
    platform: str
    config: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The run as a JSON object."""
        return asdict(self)


def start_run(command: str | Sequence[str], config: Settings | Mapping[str, Any]) -> RunInfo:
    """The record of a run that starts now. `command` is the command line as the user gave it."""
    started = datetime.now(UTC)
    line = command if isinstance(command, str) else shlex.join(command)
    commit, dirty = checkout_state(Path(__file__).resolve())
    settings = dict(config) if isinstance(config, Mapping) else config.as_json()
    return RunInfo(
        run_id=f"run-{started:%Y%m%dT%H%M%S.%f}Z-{secrets.token_hex(4)}",
        command=redact(line),
        started_at=started.isoformat(timespec="milliseconds"),
        commit=commit,
        dirty=dirty,
        versions=package_versions(),
        python=platform.python_version(),
        platform=platform.platform(),
        config=settings,
    )


def package_versions() -> dict[str, str]:
    """Versions of ours and the main libraries, without importing any of them."""
    versions = {}
    for name in _RECORDED_PACKAGES:
        try:
            versions[_OWN if name == DISTRIBUTION else name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def checkout_state(source_file: Path) -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the git checkout that tracks `source_file`; (None, None) elsewhere.

    A package installed into a virtual environment inside somebody else's repository is not tracked
    there, so that repository's commit is not taken for ours.
    """
    if _git(source_file, "ls-files", "--error-unmatch", source_file.name) is None:
        return None, None
    commit = _git(source_file, "rev-parse", "HEAD")
    changes = _git(source_file, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _git(source_file: Path, *arguments: str) -> str | None:
    """Standard output of a git command in the file's directory; None when git fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=source_file.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
