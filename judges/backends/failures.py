"""Keys that can be sent, and a server's failure as one of our errors: worth another try, or final.

Shared by the HTTP backends. The server's words are carried on, the caller's key never is.
"""

import email.utils
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from judges.backends.base import (
    AccessError,
    BackendUnavailableError,
    CallError,
    FinalError,
    RetryableError,
)
from schemas.serialization import redact, without_secrets

_RETRYABLE_STATUS = frozenset({408, 409, 429})
_OVERLOADED_STATUS = frozenset({429, 529})
_DENIED_STATUS = frozenset({401, 403})
_NOT_FOUND_STATUS = frozenset({404, 405})
# Codes and types of an empty account, whatever the status: no wait, no other request helps.
_NO_CREDIT = frozenset(
    {
        "insufficient_quota",
        "insufficient_balance",
        "insufficient_credits",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "exceeded_current_quota_error",
        "account_deactivated",
        "blocked_api_access",
        "arrearage",
        "1113",  # Zhipu's
    }
)
# The same in words, where the code says no more than "invalid request".
_NO_CREDIT_WORDS = re.compile(
    r"credit balance is too low"
    r"|reached your specified (?:\w+ ){1,3}usage limits?"
    r"|insufficient (?:account )?(?:balance|credits?|funds)"
    r"|account (?:balance is insufficient|is not active|is (?:suspended|in arrears|overdue))"
    r"|out of credits|billing hard limit|no credits (?:left|remaining)",
    re.I,
)
# Some servers answer 400 where others say 401.
_DENIED_WORDS = re.compile(
    r"(?:incorrect|invalid|missing) api[ _-]?key"
    r"|api[ _-]?key (?:is )?(?:not valid|invalid|expired)",
    re.I,
)
# Where FastAPI's servers and small ones put their words.
_PLAIN_WORDS = ("detail", "error", "message", "msg")
# What the error types of both protocols mean where no HTTP status tells.
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_MAX_WORDS = 2000
_MAX_PAGE = 20_000
# Failures before the request was sent; by name, since the SDKs change their HTTP library.
_NEVER_SENT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "InvalidURL",
        "LocalProtocolError",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
    }
)
_PAGE_BEGINS = re.compile(r"<!doctype html|<html\b", re.I)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.I | re.S)
_TAG = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.I | re.S)
_PROXY_VARIABLES = tuple(
    name
    for upper in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
    for name in (upper, upper.lower())
)
_OTHER_PROXY = "name an http:// proxy, install the package socksio for a SOCKS one"
_TLS_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
_OTHER_FILE = "name a file that can be used"


@dataclass(frozen=True)
class Access:
    """Which key a backend sends to which server, and what a user does when it is refused, or when
    the server does not know the model or the path."""

    key: str
    server: str
    advice: str
    not_found_advice: str = "check the name of the model and the URL"

    def clean(self, text: str) -> str:
        """`text` without the key or anything that looks like one, of readable length."""
        text = redact(without_secrets(text, [self.key]))
        return text if len(text) <= _MAX_WORDS else text[:_MAX_WORDS] + "..."


def key_from(variable: str, spec: str) -> str:
    """The key in an environment variable, "" where there is none, blanks around it cut off.

    Raises BackendUnavailableError, without showing the key, where it holds what no header can.
    """
    key = os.environ.get(variable, "").strip()
    if problem := _problem_of(key):
        raise BackendUnavailableError(
            f"the key for {spec} in the environment variable {variable} holds {problem}, which no "
            "key does; copy it into the variable again, in one line and without quotation marks"
        )
    return key


def _problem_of(key: str) -> str:
    """What is wrong with a key; "" where nothing is."""
    for number, character in enumerate(key, start=1):
        if character in "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029":
            return f"a line break (its character {number} of {len(key)})"
        if character.isspace():
            return f"a blank (its character {number} of {len(key)})"
        if not "!" <= character <= "~":
            kind = "control" if ord(character) < 0xA0 else "non-ASCII"
            return f"a {kind} character (its character {number} of {len(key)})"
    if key[:1] in ("'", '"', "`") or key[-1:] in ("'", '"', "`"):
        return "a quotation mark at its beginning or end"
    return ""


def refuse_unusable_network(spec: str, url: str, client: Callable[..., object]) -> None:
    """Raise BackendUnavailableError where HTTP cannot be spoken: with a host of that name, through
    the environment's proxies, with its certificates.

    `client` makes an SDK's HTTP client of these. Where the SDK itself fails on them, it leaves
    traces behind, so one is made and dropped first.
    """
    try:
        httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise BackendUnavailableError(
            f"{spec} cannot be opened: {url} is no URL ({error})"
        ) from error
    try:
        client(verify=False)
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise _unusable(spec, "proxy", _PROXY_VARIABLES, error, _OTHER_PROXY) from error
    try:
        client()
    except OSError as error:  # a file that is not there, or that holds no certificate
        raise _unusable(spec, "TLS file", _TLS_VARIABLES, error, _OTHER_FILE) from error


def _unusable(
    spec: str, what: str, variables: Sequence[str], error: Exception, remedy: str
) -> BackendUnavailableError:
    given = [name for name in variables if os.environ.get(name)]
    words = redact(" ".join(str(error).split())).rstrip(".")
    return BackendUnavailableError(
        f"{spec} cannot be opened: the {what} of the environment ({', '.join(given)}) cannot be "
        f"used ({words}); {remedy}, or unset the variable for this command"
    )


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
    try:
        due = None if date is None else email.utils.mktime_tz(date)
    except (ValueError, OverflowError):  # a year that no clock knows
        due = None
    return None if due is None else max(0.0, due - (time.time() if now is None else now))


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is None or 0 <= number < float("inf") else None


def status_error(
    status: int,
    body: object,
    headers: Mapping[str, str],
    access: Access,
    *,
    is_inside: bool = False,
) -> CallError:
    """The error of a reply with an HTTP status of 300 or more; `is_inside` where that status stands
    inside a reply of status 200."""
    if status < 400:
        place = access.clean(headers.get("location", "")) or "nowhere"
        return AccessError(
            f"{access.server} answered {status}: it sends requests on to {place}, and nothing is"
            " sent there unasked; if that server is meant, give its URL"
        )
    words = access.clean(_words(body))
    how = f"200 with an error of status {status}" if is_inside else str(status)
    said = f"{access.server} answered {how}: {words}"
    if status in _DENIED_STATUS or (status == 400 and _DENIED_WORDS.search(words)):
        return AccessError(f"{said} ({access.advice})")
    if status == 402 or _is_out_of_credit(status, body, words):
        return AccessError(said)
    if status in _NOT_FOUND_STATUS:
        return FinalError(f"{said} ({access.not_found_advice})")
    if status in _RETRYABLE_STATUS or status >= 500:
        return RetryableError(
            said,
            retry_after_seconds=retry_after_seconds(headers),
            overloaded=status in _OVERLOADED_STATUS,
        )
    return FinalError(said)


def error_inside(content: Mapping[str, Any], access: Access) -> CallError | None:
    """The error that stands in place of a reply although the status says success, as gateways send
    it; None for what may be a reply. An error with usage is a reply that was billed."""
    error = content.get("error")
    is_error = isinstance(error, str | Mapping) and bool(error)
    if not is_error and not ({"choices", "content"} & content.keys()):
        is_error = any(isinstance(content.get(name), str) for name in _PLAIN_WORDS)
    if not is_error or content.get("usage"):
        return None
    try:
        return status_error(_status_inside(content), content, {}, access, is_inside=True)
    except RecursionError:
        return None


def error_words_of(content: Mapping[str, Any]) -> str:
    """What the server says beside a reply about an error; "" where it says nothing."""
    return _words(content) if content.get("error") else ""


def _status_inside(body: Mapping[str, Any]) -> int:
    """The status that an error inside a reply stands for; 500 where it does not say."""
    for name in ("code", "status"):
        code = _error_field(body, name)
        if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
            code = int(code)
        if isinstance(code, int) and 400 <= code < 600:
            return code
    kind = _error_field(body, "type")
    if isinstance(kind, str) and kind in STATUS_OF_TYPE:
        return STATUS_OF_TYPE[kind]
    return 400 if _DENIED_WORDS.search(_words(body)) else 500


def _is_out_of_credit(status: int, body: object, words: str) -> bool:
    """By code; by words only where no rate limit can be meant, since some servers use one text."""
    named = {str(_error_field(body, name)).lower() for name in ("code", "type")}
    if named & _NO_CREDIT:
        return True
    return status not in _OVERLOADED_STATUS and _NO_CREDIT_WORDS.search(words) is not None


def _error_field(body: object, name: str) -> Any:
    if isinstance(body, list) and len(body) == 1:  # Gemini's
        body = body[0]
    error = body.get("error", body) if isinstance(body, Mapping) else None
    return error.get(name) if isinstance(error, Mapping) else None


def _words(body: object) -> str:
    message = _error_field(body, "message")
    kind = _error_field(body, "type")
    if isinstance(message, str) and message:
        return f"{kind}: {message}" if isinstance(kind, str) and kind else message
    for name in _PLAIN_WORDS:
        if isinstance(body, Mapping) and isinstance(body.get(name), str) and body[name]:
            return str(body[name])
    if isinstance(body, str) and (page := _page_words(body)):
        return page
    return str(body) if body else "(no message)"


def _page_words(text: str) -> str:
    """What an HTML page says, without its markup; "" for a text that is none."""
    if not _PAGE_BEGINS.match(text.lstrip()):
        return ""
    text = text[:_MAX_PAGE]
    title = _TITLE.search(text)
    words = " ".join(_TAG.sub(" ", title[1] if title else text).split())
    return f"a web page instead of an error of the API: {words}".rstrip(": ")


def connection_error(error: Exception, access: Access, *, timed_out: bool) -> RetryableError:
    """The error of a connection that failed, timed out or broke off."""
    cause = error.__cause__ or error
    detail = access.clean(str(cause) or type(cause).__name__)
    is_sent = type(cause).__name__ not in _NEVER_SENT
    what = "broke the connection" if is_sent else "cannot be reached"
    if timed_out:
        what = "did not answer in time"
    if given := _proxies_used(access.server):
        detail += f"; requests to it go through the proxy of {given}"
    return RetryableError(f"{access.server} {what}: {detail}", maybe_billed=is_sent)


def _proxies_used(server: str) -> str:
    """The variable with the proxy that requests to this server go through; "" without one."""
    parts = urlsplit(server)
    proxies = getproxies()
    if proxy_bypass(parts.hostname or ""):
        return ""
    scheme = next((name for name in (parts.scheme, "all") if name in proxies), "")
    return f"{scheme.upper()}_PROXY" if scheme else ""


def garbled_reply(detail: str, access: Access) -> RetryableError:
    """The error of a reply that arrived and cannot be read: it was probably billed, except where it
    is a web page, which no model wrote."""
    if _PAGE_BEGINS.search(detail):
        return RetryableError(
            f"{access.server} sent a web page instead of a reply of the API: "
            f"{access.clean(detail)} ({access.not_found_advice})"
        )
    return RetryableError(
        f"{access.server} sent a reply that cannot be read: {access.clean(detail)}",
        maybe_billed=True,
    )
