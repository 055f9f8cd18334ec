"""Text files are replaced in one step; secrets are cut out of every text."""

import html
import json
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from schemas.serialization import one_line, redact, visible, without_secrets, write_text


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "progress.json"
    write_text(path, "old and long enough")
    with path.open("rb", buffering=0) as reading:
        assert reading.read(3) == b"old"
        write_text(path, "new")
        assert reading.read() == b" and long enough"
    assert path.read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == ["progress.json"]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "card.md"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half a pair: \ud800")

    def no_room(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_room)
    monkeypatch.setattr(Path, "replace", no_room)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["card.md"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("nul \x00, \x9b, \x7f", "nul \\x00, \\x9b, \\x7f"),
        ("abc\u202edcba", "abc\\u202edcba"),
        ("half \ud800", "half \\ud800"),
        ("written\rover", "written\\rover"),
        ("\u061cArabic letter mark", "\\u061cArabic letter mark"),
        ("two\u2028lines", "two\\u2028lines"),
        ("ends\r\nof lines", "ends\r\nof lines"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("Grüße, 世界 \U0001f600 C:\\new", "Grüße, 世界 \U0001f600 C:\\new"),
    ],
)
def test_what_a_terminal_or_a_page_would_obey_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    if "\r" not in text and "\u2028" not in text:  # which are blanks on one line
        assert one_line(text) == " ".join(shown.split())


@pytest.mark.parametrize(
    "write",
    [
        str,
        repr,
        ascii,
        json.dumps,
        lambda key: repr(f"Bearer {key}".encode()),
        lambda key: " ".join(key.split()),
        lambda key: quote(key),
        visible,
        html.escape,
        lambda key: f"{key.splitlines()[-1]} is no key",
    ],
    ids=["raw", "repr", "ascii", "json", "bytes", "one line", "URL", "visible", "HTML", "a line"],
)
@pytest.mark.parametrize("separator", ["\n", "\r\n", "\r", "\x1b", '"&\\'])
def test_a_secret_is_cut_out_however_it_is_written(
    monkeypatch: pytest.MonkeyPatch, write: Callable[[str], str], separator: str
) -> None:
    key = f"Zq8-first-half-77{separator}Wx9-second-half-88"
    monkeypatch.setenv("MY_SERVER_KEY", key)
    message = f"the header {write(key)} cannot be sent"
    for cleaned in (redact(message), without_secrets(message, [key]), redact(one_line(message))):
        assert "second-half" not in cleaned
        assert cleaned.startswith("the header")


@pytest.mark.parametrize(
    "text",
    [
        "http://user:pa@Zq8Wx9Zq8Wx9@host/v1",
        "gsk_Zq8Wx9Zq8Wx9",
        "xai-Zq8Wx9Zq8Wx9",
        "AIzaSyZq8Wx9Zq8Wx9Zq8Wx9Zq8",
        "ghp_Zq8Wx9Zq8Wx9Zq8Wx9",
        "Authorization: Bearer Zq8Wx9Zq8Wx9",
        '{"api_key": "Zq8Wx9Zq8Wx9"}',
        "x-api-key: Zq8Wx9Zq8Wx9",
        "eyJZq8Wx9Zq8.eyJZq8Wx9Zq8.Zq8Wx9Zq8",
    ],
)
def test_keys_of_any_vendor_are_cut_out(text: str) -> None:
    assert "Zq8" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "the bearer of good news",
        "set the environment variable MY_SERVER_KEY",
        "no api key: check it",
        "http://host/a@b",
        "clips/gsk_1.mp4",
    ],
)
def test_what_is_no_key_stays(text: str) -> None:
    assert redact(text) == text


def test_what_is_no_secret_stays() -> None:
    assert without_secrets("the words of a server", ["", "sk-other"]) == "the words of a server"
