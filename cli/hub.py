"""Uploads to the Hub: listed first, file by file, and sent only where that is asked for.

    upload = Upload("model", config.repo, {"README.md": text, "model.safetensors": path})
    return publish(upload, config)

What is not in the list is never sent: there is no folder among the files. Keys come from the
environment (HF_TOKEN) or a login of huggingface_hub; HF_ENDPOINT names another hub.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from cli.config import EXIT_OK, Config, UsageError, say

_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# Never sent, whatever lists them: ledgers, pages and records of rollouts, answers, logs.
_PRIVATE = re.compile(
    r"\.(?:duckdb|duckdb\.wal|jsonl|html|log)$|(?:^|/)(?:pages|rollouts|browse|audit)/"
    r"|(?:^|/)\.(?!gitattributes$)",
    re.IGNORECASE,
)


class PushOptions(Config, group="output"):
    """Where files go, and whether they do."""

    repo: str
    """Repository on the Hub, OWNER/NAME; it is made where it is not there."""
    upload: bool = False
    """Send the files. Without it they are only listed, with their sizes; nothing leaves this
    machine."""
    private: bool = True
    """Make a new repository a private one; of one that is there nothing is changed."""

    @field_validator("repo")
    @classmethod
    def _is_a_repository(cls, repo: str) -> str:
        if not _REPO.fullmatch(repo):
            raise ValueError(f"expected OWNER/NAME, got {repo!r}")
        return repo


@dataclass(frozen=True)
class Upload:
    """Files by their path in the repository: a path here, or the text itself."""

    kind: Literal["model", "dataset"]
    repo: str
    files: Mapping[str, Path | str]

    def __post_init__(self) -> None:
        for name in self.files:
            if _PRIVATE.search(name):
                raise UsageError(f"{name} is not for publication, so nothing is sent")

    def listing(self) -> str:
        """Every file with its size in bytes, and their sum."""
        sizes = {name: _size(content) for name, content in sorted(self.files.items())}
        lines = [f"{size:>16,}  {name}" for name, size in sizes.items()]
        total = (
            f"{sum(sizes.values()):>16,}  in {len(sizes)} files, for the {self.kind} {self.repo}"
        )
        return "\n".join([*lines, total])


def publish(upload: Upload, options: PushOptions) -> int:
    """List the files, and send them with --upload. -> The exit status. Raises UsageError."""
    say(upload.listing(), sys.stdout)
    if not options.upload:
        say("nothing was sent; the same command with --upload sends exactly these", sys.stdout)
        return EXIT_OK
    say(f"sent: {_send(upload, is_private=options.private)}", sys.stdout)
    return EXIT_OK


def _size(content: Path | str) -> int:
    return len(content.encode()) if isinstance(content, str) else content.stat().st_size


def _send(upload: Upload, *, is_private: bool) -> str:
    """One commit with all files. -> Its address."""
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    operations = [
        CommitOperationAdd(name, content.encode() if isinstance(content, str) else str(content))
        for name, content in sorted(upload.files.items())
    ]
    hub = HfApi()
    try:
        hub.create_repo(upload.repo, repo_type=upload.kind, private=is_private, exist_ok=True)
        sent = hub.create_commit(
            upload.repo,
            operations,
            commit_message=f"{len(operations)} files",
            repo_type=upload.kind,
        )
    except (HfHubHTTPError, httpx.HTTPError, LocalTokenNotFoundError, ValueError) as error:
        words = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{hub.endpoint} did not take the files ({words}); log in with `hf auth login` or set"
            " HF_TOKEN to a token that may write there, and give the same command again"
        ) from None
    return str(sent.commit_url)
