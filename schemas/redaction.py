"""Secrets out of text that is printed, logged or stored."""

import os
import re

REDACTED = "[redacted]"

_SECRET_ENV_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)S?$")
_SHORTEST_SECRET = 8  # shorter values would blank out ordinary words
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s@\"']+(?=@)")
_URL_PARAMETER = re.compile(r"([?&](?:api[_-]?key|key|token|access_token|sig)=)[^&\s'\"]+", re.I)
_KEY_SHAPES = re.compile(r"(?<![\w-])(?:sk-[A-Za-z0-9_-]{8,}|hf_[A-Za-z0-9]{8,})")
_KEY_OPTION = re.compile(r"(--[a-z-]*(?:api-key|token|secret|password)[= ])(?!-)[^\s\"']+")


def redact(text: str) -> str:
    """`text` without keys: values of secret environment variables, key shapes, URL credentials."""
    secrets = {
        value
        for name, value in os.environ.items()
        if _SECRET_ENV_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    }
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    text = _KEY_SHAPES.sub(REDACTED, text)
    text = _KEY_OPTION.sub(rf"\g<1>{REDACTED}", text)
    text = _URL_PARAMETER.sub(rf"\g<1>{REDACTED}", text)
    return _URL_CREDENTIALS.sub(REDACTED, text)
