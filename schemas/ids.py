"""Canonical JSON and content ids: a row is named by what it says, on every machine alike.

`canonical_json` is a contract: changing one byte of its output changes every id ever stored.
"""

import hashlib
import json
from typing import Any

_DIGEST_BYTES = 16


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, non-ASCII kept; NaN and infinities are refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(data: bytes) -> str:
    """BLAKE2b of `data`, 128 bits, in hex."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def content_id(kind: str, value: Any) -> str:
    """`<kind>-<digest>` of the canonical JSON of `value`; `kind` keeps equal contents apart."""
    return f"{kind}-{digest(f'{kind}:{canonical_json(value)}'.encode())}"
