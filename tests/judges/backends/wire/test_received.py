"""What a server says is either used or said to be unusable: numbers, ends, texts, JSON."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judges.backends.base import (
    MAX_TOKENS,
    Reply,
    StopReason,
    Usage,
    sound_reply,
    token_count,
)
from judges.backends.wire.received import (
    UnreadableError,
    claude_usage,
    end_note,
    openai_usage,
    parse_json,
    parse_object,
    reply_end,
    reply_text,
    without_key,
)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (12, 12),
        (12.0, 12),
        ("12", 12),
        (MAX_TOKENS, MAX_TOKENS),
        (MAX_TOKENS + 1, None),
        (10**23, None),
        (-1, None),
        (-1.0, None),
        (12.5, None),
        (math.inf, None),
        (math.nan, None),
        (1e30, None),
        (True, None),
        (None, None),
        ("", None),
        ("-3", None),
        ("12 tokens", None),
        ("9" * 5000, None),
        ("\u0661\u0662", None),
        ([12], None),
        ({"value": 12}, None),
    ],
)
def test_a_count_of_tokens_is_a_number_that_can_be(value: object, count: int | None) -> None:
    assert token_count(value) == count
    assert not isinstance(token_count(value), bool)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 7, "output_tokens": 3}, Usage(7, 3)),
        (
            {
                "input_tokens": 7,
                "output_tokens": 3,
                "cache_read_input_tokens": 20,
                "cache_creation_input_tokens": None,
            },
            Usage(7, 3, 20, 0),
        ),
        ({"input_tokens": 0, "output_tokens": 3, "cache_read_input_tokens": 9}, Usage(0, 3, 9)),
        ({"input_tokens": -1_000_000, "output_tokens": 3}, Usage(0, 3, is_reliable=False)),
        ({"input_tokens": 7, "output_tokens": 1e999}, Usage(7, 0, is_reliable=False)),
        ({"input_tokens": 7}, Usage(7, 0, is_reliable=False)),
        ({"input_tokens": 0, "output_tokens": 0}, Usage(0, 0, is_reliable=False)),
        ({"input_tokens": 7, "output_tokens": 0}, Usage(7, 0, is_reliable=False)),
        (
            {"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": -5},
            Usage(7, 3, is_reliable=False),
        ),
        (None, Usage(is_reliable=False)),
        ([7, 3], Usage(is_reliable=False)),
    ],
)
def test_claudes_usage_counts_or_is_unreliable(usage: object, expected: Usage) -> None:
    assert claude_usage(usage, "yes") == expected


def test_a_reply_without_text_may_have_no_output() -> None:
    assert claude_usage({"input_tokens": 7, "output_tokens": 0}, "").is_reliable


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}, Usage(10, 2)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 6},
            },
            Usage(4, 2, 6),
        ),
        # counted apart by a gateway: which of the two is billed is not known
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 100_000},
            },
            Usage(10, 2, 100_000, is_reliable=False),
        ),
        # hidden reasoning that is not in the completion, but in the total or in a count of its own
        ({"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 512}, Usage(10, 502)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "completion_tokens_details": {"reasoning_tokens": 500},
            },
            Usage(10, 502),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 502,
                "total_tokens": 512,
                "completion_tokens_details": {"reasoning_tokens": 500},
            },
            Usage(10, 502),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "prompt_tokens_details": None,
                "completion_tokens_details": None,
                "total_tokens": None,
            },
            Usage(10, 2),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": [6]},
            Usage(10, 2, is_reliable=False),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": -6},
            },
            Usage(10, 2, is_reliable=False),
        ),
        ({"prompt_tokens": 10}, Usage(10, 0, is_reliable=False)),
        ({"prompt_tokens": True, "completion_tokens": 2}, Usage(0, 2, is_reliable=False)),
        ({}, Usage(is_reliable=False)),
        (None, Usage(is_reliable=False)),
    ],
)
def test_usage_of_chat_completions_counts_or_is_unreliable(usage: object, expected: Usage) -> None:
    assert openai_usage(usage, "yes") == expected


NESTED: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)
NAMES = st.sampled_from(
    [
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
        "cached_tokens",
    ]
)


@given(st.dictionaries(NAMES, NESTED) | NESTED)
def test_no_usage_is_negative_endless_or_an_error(usage: object) -> None:
    for read in (claude_usage(usage, "yes"), openai_usage(usage, "yes")):
        counts = (read.input_tokens, read.output_tokens, read.cache_read_tokens)
        assert all(0 <= count <= 2 * MAX_TOKENS for count in counts)
        assert not read.is_reliable or read.output_tokens > 0


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("end_turn", StopReason.END),
        ("stop", StopReason.END),
        ("STOP", StopReason.END),
        ("eos_token", StopReason.END),
        (None, StopReason.END),
        ("", StopReason.END),
        ("length", StopReason.MAX_TOKENS),
        ("max_tokens", StopReason.MAX_TOKENS),
        ("content_filter", StopReason.REFUSAL),
        ("refusal", StopReason.REFUSAL),
        ("tool_use", StopReason.OTHER),
        ("tool_calls", StopReason.OTHER),
        ("pause_turn", StopReason.OTHER),
        (["stop"], StopReason.OTHER),
        ({}, StopReason.OTHER),
        (7, StopReason.OTHER),
    ],
)
def test_every_word_for_an_end_has_one_meaning(word: object, end: StopReason) -> None:
    assert reply_end(word) is end


def test_a_server_that_broke_off_gave_no_reply() -> None:
    with pytest.raises(UnreadableError, match="broken off for 'error'"):
        reply_end("error")


def test_an_unknown_end_is_named_however_long_or_odd_it_is() -> None:
    assert "'tool_use'" in end_note("tool_use", "http://here")
    assert len(end_note("x" * 10_000, "http://here")) < 400
    assert "a list" in end_note(["stop"], "http://here")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("yes", "yes"),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "ye"}, {"type": "text", "text": "s"}], "yes"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}], "yes"),
        ([{"type": "output_text", "text": "yes"}, {"type": "tool_use", "input": {}}], "yes"),
        (["yes"], "yes"),
    ],
)
def test_a_list_of_parts_is_its_text_parts(content: object, text: str) -> None:
    assert reply_text(content) == text


@pytest.mark.parametrize(
    "content", [7, {"text": "yes"}, [{}], [{"type": "text"}], [{"type": "text", "text": 7}], [[]]]
)
def test_what_is_no_text_is_not_guessed_at(content: object) -> None:
    with pytest.raises(UnreadableError):
        reply_text(content)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"",
        b"no",
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xff\xfe\xff",
        b'{"content": "cut o',
    ],
)
def test_json_that_cannot_be_read_is_one_error(content: bytes) -> None:
    with pytest.raises(UnreadableError) as caught:
        parse_json(content)
    assert len(str(caught.value)) < 500


def test_json_that_is_no_object_is_shown() -> None:
    with pytest.raises(UnreadableError, match=r"unexpected content \[1\]"):
        parse_object(b"[1]")
    assert parse_object(json.dumps({"a": 1}).encode()) == {"a": 1}


def test_counts_of_a_backend_of_ones_own_are_made_such_that_they_can_be() -> None:
    good = Reply("yes", StopReason.END, Usage(3, 0))
    assert sound_reply(good) is good
    bad = Reply("yes", StopReason.END, Usage(-3, 2, math.inf))  # type: ignore[arg-type]
    assert sound_reply(bad).usage == Usage(0, 2, 0, is_reliable=False)


def test_a_short_key_is_no_secret() -> None:
    assert without_key("Yes, token", "token") == "Yes, token"
    assert without_key("your key-0123456789!", "key-0123456789") == "your [redacted]!"
