"""What a server's failure means: retry, give up, or mend the account; and keys stay unsaid."""

import os
from pathlib import Path

import anthropic
import httpx2
import pytest

from judges.backends.base import (
    AccessError,
    BackendUnavailableError,
    CallError,
    FinalError,
    RetryableError,
)
from judges.backends.failures import (
    Access,
    connection_error,
    error_inside,
    garbled_reply,
    key_from,
    refuse_unusable_network,
    retry_after_seconds,
    status_error,
)
from judges.backends.registry import open_backend

KEY = "sk-ant-0123456789abcdef"
URL = "https://api.example.com"
ACCESS = Access(KEY, "https://api.example.com", "set the environment variable EXAMPLE_KEY")

NOW = 1795255200.0  # Sat, 21 Nov 2026 10:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 09:59:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
    ],
)
def test_the_servers_wish_is_read_in_every_form(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after_seconds(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("status", "kind", "is_overloaded"),
    [
        (400, FinalError, None),
        (401, AccessError, None),
        (402, AccessError, None),
        (403, AccessError, None),
        (404, FinalError, None),
        (408, RetryableError, False),
        (409, RetryableError, False),
        (413, FinalError, None),
        (422, FinalError, None),
        (429, RetryableError, True),
        (500, RetryableError, False),
        (503, RetryableError, False),
        (529, RetryableError, True),
    ],
)
def test_each_status_has_one_meaning(
    status: int, kind: type[CallError], is_overloaded: bool | None
) -> None:
    body = {"error": {"type": "some_error", "message": "these words"}}
    error = status_error(status, body, {}, ACCESS)
    assert type(error) is kind
    assert "these words" in str(error)
    assert str(status) in str(error)
    assert getattr(error, "overloaded", None) is is_overloaded


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_the_variable_to_set(status: int) -> None:
    assert "EXAMPLE_KEY" in str(status_error(status, None, {}, ACCESS))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "Your credit balance is too low to access the API"}}),
        (400, "You have reached your specified API usage limits. You will regain access on 2027."),
        (400, {"message": "You have reached your specified workspace API usage limits."}),
        (400, {"error": {"code": "billing_hard_limit_reached", "message": "Limit reached"}}),
        (400, {"error": {"code": "Arrearage", "message": "Access denied, good standing"}}),
        (402, {"error": {"code": 402, "message": "Insufficient credits"}}),
        (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}),
        (412, {"error": {"message": "Account my-account is suspended, possibly due to billing"}}),
        (429, {"error": {"code": "insufficient_quota", "message": "You exceeded your quota"}}),
        (429, {"error": {"type": "insufficient_quota", "message": "You exceeded your quota"}}),
        (429, {"error": {"type": "exceeded_current_quota_error", "message": "quota"}}),
        (429, {"error": {"code": "billing_not_active", "message": "Your account is not active"}}),
        (500, {"code": "insufficient_balance", "message": "no money"}),
    ],
)
def test_an_empty_account_is_no_fault_of_the_request_and_no_wait_helps(
    status: int, body: object
) -> None:
    assert type(status_error(status, body, {}, ACCESS)) is AccessError


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "Incorrect API key provided: xa***"}}),
        (400, [{"error": {"code": 400, "message": "API key not valid. Please pass one."}}]),
        (401, {"error": {"message": "Invalid API key", "type": "authentication_error"}}),
        (403, {"detail": "Forbidden"}),
        (403, {"error": {"message": "Key limit exceeded (total limit)", "code": 403}}),
    ],
)
def test_a_wrong_key_is_one_whatever_its_status(status: int, body: object) -> None:
    error = status_error(status, body, {}, ACCESS)
    assert type(error) is AccessError
    assert "EXAMPLE_KEY" in str(error)


@pytest.mark.parametrize(
    "words",
    [
        "You exceeded your current quota, please check your plan and billing details.",
        "Rate limit reached for gpt-5 on tokens per min",
        "Number of request tokens has exceeded your per-minute rate limit: out of credits",
    ],
)
def test_a_rate_limit_is_waited_out_whatever_it_says(words: str) -> None:
    body = {"error": {"message": words, "code": "rate_limit_exceeded"}}
    assert type(status_error(429, body, {}, ACCESS)) is RetryableError


@pytest.mark.parametrize("status", [404, 405])
def test_what_is_not_found_says_what_to_check(status: int) -> None:
    access = Access(KEY, "https://api.example.com", "", "check the URL")
    error = status_error(status, {"error": "model 'x' not found"}, {}, access)
    assert type(error) is FinalError
    assert str(error).endswith(f"answered {status}: model 'x' not found (check the URL)")


def test_a_web_page_is_told_in_words_and_was_not_billed() -> None:
    page = "<!DOCTYPE html><html><head><title>Sign in</title><style>p {}</style></head></html>"
    assert "a web page instead of an error of the API: Sign in" in str(
        status_error(404, page, {}, ACCESS)
    )
    error = garbled_reply(f"no JSON: {page}", ACCESS)
    assert "sent a web page" in str(error)
    assert (error.maybe_billed, garbled_reply("no JSON: {", ACCESS).maybe_billed) == (False, True)


@pytest.mark.parametrize(
    ("cause", "is_billed", "words"),
    [
        (httpx2.ConnectError("[Errno -2] Name or service not known"), False, "cannot be reached"),
        (httpx2.ConnectError("[SSL: WRONG_VERSION_NUMBER]"), False, "cannot be reached"),
        (httpx2.LocalProtocolError("Illegal header value"), False, "cannot be reached"),
        (httpx2.ProxyError("407 Proxy Authentication Required"), False, "cannot be reached"),
        (httpx2.RemoteProtocolError("peer closed connection"), True, "broke the connection"),
        (httpx2.ReadError("reset by peer"), True, "broke the connection"),
    ],
)
def test_what_was_never_sent_costs_nothing(
    cause: Exception, is_billed: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    wrapped = ConnectionError("Connection error.")
    wrapped.__cause__ = cause
    error = connection_error(wrapped, ACCESS, timed_out=False)
    assert error.maybe_billed is is_billed
    assert str(error) == f"https://api.example.com {words}: {cause}"
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    told = str(connection_error(wrapped, ACCESS, timed_out=False))
    assert told.endswith("; requests to it go through the proxy of HTTPS_PROXY")
    monkeypatch.setenv("NO_PROXY", "api.example.com")
    assert "proxy of" not in str(connection_error(wrapped, ACCESS, timed_out=False))


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("Zq8-first-half\nWx9-second-half", "a line break (its character 15 of 30)"),
        ("Zq8-first-half\r\nWx9-second-half", "a line break"),
        ("Zq8-first-half\rWx9-second-half", "a line break"),
        ("Zq8-first-half\u2028Wx9-second-half", "a line break"),
        ("Zq8-first-half\x1b[31m", "a control character (its character 15 of 19)"),
        ("Zq8-first-half\x7f", "a control character"),
        ("Bearer Zq8-first-half", "a blank (its character 7 of 21)"),
        ("Zq8-first-half\tWx9", "a blank"),
        ("\u201cZq8-first-half\u201d", "a non-ASCII character (its character 1 of 16)"),
        ("\ufeffZq8-first-half", "a non-ASCII character"),
        ("Zq8-first-half\udcff", "a non-ASCII character"),
        ('"Zq8-first-half"', "a quotation mark"),
        ("'Zq8-first-half'", "a quotation mark"),
    ],
)
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(
    key: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SERVER_KEY", key)
    with pytest.raises(BackendUnavailableError, match="MY_SERVER_KEY") as caught:
        key_from("MY_SERVER_KEY", "openai:m@http://here/v1")
    assert problem in str(caught.value)
    assert not any(part in str(caught.value) for part in ("Zq8", "Wx9", "half"))


def test_blanks_around_a_key_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVER_KEY", " AIza+/=._-~:x'y\r\n")
    assert key_from("MY_SERVER_KEY", "claude:m") == "AIza+/=._-~:x'y"
    monkeypatch.delenv("MY_SERVER_KEY")
    assert key_from("MY_SERVER_KEY", "claude:m") == ""


@pytest.mark.parametrize("proxy", ["socks4://x:1", "ftp://x", "http://:port"])
def test_a_proxy_that_cannot_be_used_is_a_sentence(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(BackendUnavailableError, match=r"claude:m cannot be opened: .*\(ALL_PROXY"):
        refuse_unusable_network("claude:m", URL, anthropic.DefaultAsyncHttpxClient)
    monkeypatch.setenv("ALL_PROXY", "http://user:pass@proxy.example:3128")
    refuse_unusable_network("claude:m", URL, anthropic.DefaultAsyncHttpxClient)


async def test_certificates_that_cannot_be_read_are_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    no_certificate = tmp_path / "empty.pem"
    no_certificate.write_text("none here")
    for spec in ("claude:m", "openai:m@http://localhost:8000/v1"):
        for name, value in (
            ("SSL_CERT_FILE", str(tmp_path / "none.pem")),
            ("SSL_CERT_FILE", str(no_certificate)),
            ("SSLKEYLOGFILE", str(tmp_path / "no folder" / "keys")),
        ):
            with monkeypatch.context() as one:
                one.setenv(name, value)
                with pytest.raises(BackendUnavailableError, match=rf"opened: .*{name}.*unset the"):
                    await open_backend(spec)


async def test_a_host_that_no_name_server_knows_how_to_write_is_a_sentence() -> None:
    with pytest.raises(BackendUnavailableError, match="is no URL"):
        await open_backend("openai:m@http://\u0661\u0662\u0667.0.0.1/v1")
    for host in ("a..b", f"{'x' * 64}.example"):
        with pytest.raises(BackendUnavailableError, match="must be plain"):
            await open_backend(f"openai:m@http://{host}/v1")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ({"code": 402, "message": "Insufficient credits"}, AccessError, "status 402"),
        ({"code": 401, "message": "No credentials found"}, AccessError, "EXAMPLE_KEY"),
        ({"message": "Incorrect API key provided"}, AccessError, "status 400"),
        ({"type": "billing_error", "message": "empty"}, AccessError, "status 402"),
        ({"code": "400", "message": "image too large"}, FinalError, "image too large"),
        ({"code": 502, "message": "Provider returned error"}, RetryableError, "Provider"),
        ({"type": "overloaded_error", "message": "Overloaded"}, RetryableError, "status 529"),
        ("model not loaded", RetryableError, "model not loaded"),
    ],
)
def test_an_error_in_place_of_a_reply_is_what_its_own_status_says(
    error: object, kind: type[CallError], words: str
) -> None:
    found = error_inside({"error": error}, ACCESS)
    assert type(found) is kind
    assert words in str(found)
    assert not getattr(found, "maybe_billed", False)
    assert error_inside({"error": error, "usage": {"prompt_tokens": 3}}, ACCESS) is None


def test_an_error_without_a_name_is_one_and_a_reply_is_none() -> None:
    arrears = {"code": 1113, "msg": "Your account is in arrears", "success": False}
    assert isinstance(error_inside(arrears, ACCESS), AccessError)
    for reply in ({"choices": [], "error": None}, {"content": [], "message": "x"}, {"error": {}}):
        assert error_inside(reply, ACCESS) is None


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": f"bad key {KEY}!"}},
        {"detail": f"bad key {KEY}!"},
        f"<html>bad key {KEY}!</html>",
        [f"bad key {KEY}!"],
        {"error": f"bad key {KEY}!"},
    ],
)
@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_the_key_is_cut_out_of_whatever_the_server_says(status: int, body: object) -> None:
    message = str(status_error(status, body, {}, ACCESS))
    assert KEY not in message
    assert "bad key" in message


def test_a_short_key_without_a_known_shape_is_cut_out_too() -> None:
    access = Access("tiger", "https://api.example.com", "")
    assert "tiger" not in str(status_error(400, {"error": {"message": "tiger?"}}, {}, access))


def test_endless_words_are_cut_short() -> None:
    assert len(str(status_error(400, "x" * 100_000, {}, ACCESS))) < 3000
