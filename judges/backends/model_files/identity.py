"""A name for what is in a model folder: the hash of every file that can change its replies.

Hashing gigabytes takes a while, so each file's hash is remembered by path, size and times of
change, in `$XDG_CACHE_HOME/p2r/weights.json` (by default under `~/.cache`).
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from schemas.serialization import content_id

# Weights, tokenizer, templates, processors and generation defaults; not a README.
_SUFFIXES = frozenset({".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".pt"})
_CHUNK = 1 << 20


def cache_file() -> Path:
    """Where hashes are remembered."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "p2r" / "weights.json"


def weights_id(folder: Path, remembered: Path | None = None) -> str:
    """The content id of the model in `folder`: equal folders have equal ids, wherever they are.

    That of an adapter holds the id of its base model, where that is a folder, too.
    """
    store = remembered or cache_file()
    known = _read(store)
    hashes: dict[str, str] = {}
    fresh: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in _SUFFIXES or not path.is_file():
            continue
        state = path.stat()
        # Copying and unpacking keep the time of change, but not that of the entry in the disk.
        times = f"{state.st_mtime_ns}|{state.st_ctime_ns}|{state.st_ino}"
        mark = f"{path.resolve()}|{state.st_size}|{times}"
        if mark not in known:
            fresh[mark] = _hash(path)
        hashes[path.name] = known.get(mark) or fresh[mark]
    if fresh:
        _write(store, _read(store) | fresh)
    base = _base_folder(folder)
    if base is not None and _base_folder(base) is None:  # a chain of adapters is no model
        hashes["base model"] = weights_id(base, store)
    return content_id("weights", hashes)


def _base_folder(folder: Path) -> Path | None:
    """The folder of the model that an adapter in `folder` belongs to; None where it is none."""
    try:
        settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        base = Path(settings["base_model_name_or_path"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return base if base.is_dir() and base.resolve() != folder.resolve() else None


def _hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _read(store: Path) -> dict[str, str]:
    """What is remembered; an absent or damaged memory is an empty one, and is made anew."""
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(store: Path, known: dict[str, str]) -> None:
    """Replace the memory in one step. Where it cannot be written, hashing is repeated next time."""
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=store.parent, encoding="utf-8", delete=False
        ) as file:
            json.dump(known, file)
        os.replace(file.name, store)
    except OSError:
        return
