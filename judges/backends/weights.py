"""A name for a model folder's content: the hash of every file that can change its replies.

Hashing gigabytes takes a while, so each file's hash is remembered by path, size and time of change,
in `$XDG_CACHE_HOME/p2r/weights.json` (by default under `~/.cache`).
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from schemas.ids import content_id

# Weights, tokenizer, templates, processors and generation defaults; not a README.
_SUFFIXES = frozenset({".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".pt"})
_CHUNK = 1 << 20


def cache_file() -> Path:
    """Where hashes are remembered."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "p2r" / "weights.json"


def weights_id(folder: Path, remembered: Path | None = None) -> str:
    """The content id of the model in `folder`: equal folders have equal ids, wherever they are."""
    store = remembered or cache_file()
    known = _read(store)
    hashes: dict[str, str] = {}
    fresh: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in _SUFFIXES or not path.is_file():
            continue
        state = path.stat()
        mark = f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}"
        if mark not in known:
            fresh[mark] = _hash(path)
        hashes[path.name] = known.get(mark) or fresh[mark]
    if fresh:
        _write(store, _read(store) | fresh)
    return content_id("weights", hashes)


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
