"""Whether a model's name can lead to a model: a folder that is here, or an id of the hub.

It is asked before torch or the hub's client is loaded: a folder that is not there ends a command at
once, and an id where the hub cannot be reached does not wait for its client's many tries.
"""

import difflib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HUB = "https://huggingface.co"
_HUB_SECONDS = 5.0
_HUB_ID = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*")
_YES = {"1", "on", "yes", "true"}


def why_no_model(name: str) -> str:
    """Why `name` leads to no model, in words that follow it; empty where it may lead to one.

    A name that may be the hub's is left to its client where the hub answers, or has been asked
    before.
    """
    if Path(name).expanduser().exists():
        return ""
    if _is_path(name):
        return f"there is no such folder{_near(Path(name).expanduser())}"
    if _is_in_cache(name):
        return ""
    why = "HF_HUB_OFFLINE is set" if _is_offline() else _why_unreachable(name)
    if not why:
        return ""
    return (
        f"there is no such folder here, and no model of that name from the hub ({why}); give a"
        " folder that is there"
    )


def _is_path(name: str) -> bool:
    """A hub id is OWNER/NAME (or NAME alone), and no folder of the owner's name is here."""
    if name.startswith(("/", "./", "../", "~")) or not _HUB_ID.fullmatch(name):
        return True
    return "/" in name and Path(name).parent.is_dir()


def _near(path: Path) -> str:
    """The folder beside it that was probably meant."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    names = [each.name for each in beside if each.is_dir()]
    found = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / found[0]}?" if found else ""


def _is_in_cache(name: str, environment: Mapping[str, str] = os.environ) -> bool:
    home = environment.get("HF_HOME") or Path(
        environment.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface"
    )
    cache_folder = Path(environment.get("HF_HUB_CACHE") or Path(home, "hub"))
    return (cache_folder / f"models--{name.replace('/', '--')}").is_dir()


def _is_offline() -> bool:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").lower() in _YES for name in names)


def _why_unreachable(name: str) -> str:
    """Why the hub gives no answer, in words; empty where it gives one, whatever it is."""
    base = os.environ.get("HF_ENDPOINT") or _HUB
    request = urllib.request.Request(f"{base.rstrip('/')}/api/models/{name}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_HUB_SECONDS):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        reason: Any = getattr(error, "reason", error)
        return f"{base} cannot be reached: {getattr(reason, 'strerror', None) or reason}"
