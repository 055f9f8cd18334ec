"""How a server's failure becomes one of our errors: what is worth another attempt, and what is not.

Shared by the HTTP backends. The server's words are carried on, the caller's key never is.
"""

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from judges.backends.base import AccessError, CallError, FinalError, RetryableError
from schemas.redaction import REDACTED, redact

_RETRYABLE_STATUS = frozenset({408, 409, 429})
_OVERLOADED_STATUS = frozenset({429, 529})
_DENIED_STATUS = frozenset({401, 403})
# A 429 of this kind is an empty account: no wait will help.
_NO_CREDIT = "insufficient_quota"
_LOW_CREDIT = "credit balance is too low"
_MAX_WORDS = 2000
# Failures before the request was sent; by name, since the SDKs change their HTTP library.
_NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol"})


@dataclass(frozen=True)
class Access:
    """Which key a backend sends to which server, and what a user does when it is refused."""

    key: str
    server: str
    advice: str

    def clean(self, text: str) -> str:
        """`text` without the key or anything that looks like one, of readable length."""
        if self.key:
            text = text.replace(self.key, REDACTED)
        text = redact(text)
        return text if len(text) <= _MAX_WORDS else text[:_MAX_WORDS] + "..."


def retry_after_seconds(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """The server's wish: `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    date = email.utils.parsedate_tz(value)
    if date is None:
        return None
    return max(0.0, email.utils.mktime_tz(date) - (time.time() if now is None else now))


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is None or 0 <= number < float("inf") else None


def status_error(
    status: int, body: object, headers: Mapping[str, str], access: Access
) -> CallError:
    """The error of a reply with an HTTP status of 400 or more."""
    words = access.clean(_words(body))
    said = f"{access.server} answered {status}: {words}"
    if status in _DENIED_STATUS:
        return AccessError(f"{said} ({access.advice})")
    if status == 402 or _LOW_CREDIT in words:
        return AccessError(said)
    if status in _RETRYABLE_STATUS or status >= 500:
        if _error_field(body, "code") == _NO_CREDIT or _error_field(body, "type") == _NO_CREDIT:
            return AccessError(said)
        return RetryableError(
            said,
            retry_after_seconds=retry_after_seconds(headers),
            overloaded=status in _OVERLOADED_STATUS,
        )
    return FinalError(said)


def _error_field(body: object, name: str) -> Any:
    error = body.get("error", body) if isinstance(body, Mapping) else None
    return error.get(name) if isinstance(error, Mapping) else None


def _words(body: object) -> str:
    message = _error_field(body, "message")
    kind = _error_field(body, "type")
    if isinstance(message, str) and message:
        return f"{kind}: {message}" if isinstance(kind, str) and kind else message
    if isinstance(body, Mapping) and isinstance(body.get("detail"), str):  # FastAPI's servers
        return str(body["detail"])
    return str(body) if body else "(no message)"


def connection_error(error: Exception, access: Access, *, timed_out: bool) -> RetryableError:
    """The error of a connection that failed, timed out or broke off."""
    cause = error.__cause__ or error
    detail = access.clean(str(cause) or type(cause).__name__)
    what = "did not answer in time" if timed_out else "broke the connection"
    return RetryableError(
        f"{access.server} {what}: {detail}", maybe_billed=type(cause).__name__ not in _NEVER_SENT
    )


def garbled_reply(detail: str, access: Access) -> RetryableError:
    """The error of a reply that arrived, was probably billed, and cannot be read."""
    return RetryableError(
        f"{access.server} sent a reply that cannot be read: {access.clean(detail)}",
        maybe_billed=True,
    )
