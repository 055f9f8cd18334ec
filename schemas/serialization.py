"""How values become text that is stored or printed: canonical JSON, content ids, no secrets,
whole files.

A row is named by its content, so it has the same id on every machine. `canonical_json` is a
contract: changing one byte of its output changes every id ever stored.
"""

import hashlib
import html
import json
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

REDACTED = "[redacted]"

CODING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    TypeError,
    ValueError,
)
"""What a mistake in a function of the user's raises."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_ACTING = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
    "|\r(?!\n)"  # goes back to the beginning of the line and writes over it
)
_SECRET_ENV_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)S?$")
_SHORTEST_SECRET = 8  # shorter values would blank out ordinary words
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s\"']+(?=@)")
_URL_PARAMETER = re.compile(r"([?&](?:api[_-]?key|key|token|access_token|sig)=)[^&\s'\"]+", re.I)
# Keys of other people may stand in a server's words. By vendor; the last are tokens of logins.
_KEY_SHAPES = re.compile(
    r"(?<![\w-])(?:sk-[A-Za-z0-9_-]{8,}|hf_[A-Za-z0-9]{8,}|(?:gsk|nvapi|xai|pplx|glpat|github_pat)"
    r"[-_][A-Za-z0-9_-]{12,}|gh[opsu]_[A-Za-z0-9]{16,}|AIza[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{12,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})"
)
_KEY_HEADER = re.compile(
    r"(\bbearer\s+|\b(?:x-)?api[-_ ]?key\b[\"']?\s*[:=]\s*[\"']?)(?=\S*\d)[\w.~+/=-]{12,}", re.I
)
_KEY_OPTION = re.compile(r"(--[a-z-]*(?:api-key|token|secret|password)[= ])(?!-)[^\s\"']+")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*")
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


def whole_characters(text: str) -> str:
    """`text` with U+FFFD for half characters: no file holds one, but servers send such escapes."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def with_whole_characters(value: Any) -> Any:
    """A value of JSON whose texts can be stored: escapes of half a character become U+FFFD."""
    match value:
        case str():
            return whole_characters(value)
        case list():
            return [with_whole_characters(item) for item in value]
        case dict():
            return {
                whole_characters(name): with_whole_characters(item) for name, item in value.items()
            }
        case _:
            return value


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8 in one step: readers and a crash see the old file or the
    new one. Folders are made. Raises OSError, and leaves nothing beside the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def visible(text: str) -> str:
    """`text` with escapes for what acts instead of being read: control characters (a terminal obeys
    them), marks of writing direction, and the half characters that undecodable bytes leave."""
    if text.isascii() and text.isprintable():
        return text
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """`visible` text on one line."""
    return visible(" ".join(text.split()))


def error_words(error: BaseException) -> str:
    """Class and message of an error, on one line."""
    return one_line(f"{type(error).__name__}: {error}")


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """`text` without these secrets as they are, each line of them, and both as Python, JSON, URLs,
    HTML and one-line messages write them."""
    written = {form for secret in secrets for form in _written_forms(secret)}
    for form in sorted(written, key=len, reverse=True):
        text = text.replace(form, REDACTED)
    return text


@lru_cache(maxsize=64)
def _written_forms(secret: str) -> frozenset[str]:
    lines = {line.strip() for line in secret.splitlines()}
    forms = set()
    for part in {secret, *(line for line in lines if len(line) >= _SHORTEST_SECRET)}:
        data = part.encode("utf-8", "surrogateescape")
        forms |= {part, " ".join(part.split()), visible(part), one_line(part)}
        forms |= {repr(part)[1:-1], ascii(part)[1:-1], repr(data)[2:-1]}
        forms |= {json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]}
        forms |= {html.escape(part), quote(data, safe="")}
    return frozenset(forms - {""})


def is_variable_name(text: str) -> bool:
    """Whether this can be shown as the name of an environment variable: it is set, or looks like a
    name (upper case) and not like the key itself, which is given in its place by mistake."""
    return text in os.environ or (
        _VARIABLE.fullmatch(text) is not None and _KEY_SHAPES.search(text) is None
    )


def redact(text: str) -> str:
    """`text` without keys: values of secret environment variables, key shapes, URL credentials."""
    secrets = {
        value
        for name, value in os.environ.items()
        if _SECRET_ENV_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    }
    text = without_secrets(text, secrets)
    text = _KEY_SHAPES.sub(REDACTED, text)
    text = _KEY_HEADER.sub(rf"\g<1>{REDACTED}", text)
    text = _KEY_OPTION.sub(rf"\g<1>{REDACTED}", text)
    text = _URL_PARAMETER.sub(rf"\g<1>{REDACTED}", text)
    return _URL_CREDENTIALS.sub(REDACTED, text)
