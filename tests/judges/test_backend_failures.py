"""What a server's failure means: retry, give up, or mend the account; and keys stay unsaid."""

import pytest

from judges.backends.base import AccessError, CallError, FinalError, RetryableError
from judges.backends.failures import Access, retry_after_seconds, status_error

KEY = "sk-ant-0123456789abcdef"
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
        (429, {"error": {"code": "insufficient_quota", "message": "You exceeded your quota"}}),
        (400, {"error": {"message": "Your credit balance is too low to access the API"}}),
    ],
)
def test_an_empty_account_is_no_fault_of_the_request_and_no_wait_helps(
    status: int, body: object
) -> None:
    assert type(status_error(status, body, {}, ACCESS)) is AccessError


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
