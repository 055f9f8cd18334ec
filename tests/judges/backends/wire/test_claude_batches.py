"""Batches as servers write them: each odd line costs one request, each odd batch is one error."""

import json
import math
from typing import Any

import pytest

from judges.backends.base import (
    BatchInfo,
    FinalError,
    Reply,
    RetryableError,
    StopReason,
    UnreadableReplyError,
    Usage,
)
from judges.backends.failures import Access
from judges.backends.wire.claude_batches import batch_info, results_of
from judges.backends.wire.received import UnreadableError

ACCESS = Access("sk-ant-0123456789abcdef", "http://here", "")
COUNTS = {"processing": 1, "succeeded": 2, "errored": 0, "canceled": 0, "expired": 0}
BATCH = {
    "id": "batch-1",
    "processing_status": "in_progress",
    "created_at": "1970-01-01T00:01:00Z",
    "request_counts": COUNTS,
}


def read_reply(message: dict[str, Any]) -> Reply:
    if "text" not in message:
        raise UnreadableError("no text")
    return Reply(message["text"], StopReason.END, Usage(1, 1))


def outcome(result: object) -> object:
    """How a request ended by its line."""
    line = json.dumps({"custom_id": "one", "result": result}).encode()
    (found,) = results_of(line, is_cut=False, read_reply=read_reply, access=ACCESS)
    assert found.custom_id == "one"
    return found.outcome


def test_a_reply_is_read_and_what_was_not_served_is_not_billed() -> None:
    assert outcome({"type": "succeeded", "message": {"text": "yes"}}) == Reply(
        "yes", StopReason.END, Usage(1, 1)
    )
    for kind in ("expired", "canceled"):
        error = outcome({"type": kind})
        assert isinstance(error, RetryableError)
        assert not error.maybe_billed


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "error", "error": {"type": "api_error", "message": "x"}}, RetryableError),
        ({"type": "error", "error": {"type": "overloaded_error"}}, RetryableError),
        ({"type": "invalid_request_error", "message": "x"}, FinalError),
        ({"type": "error", "error": {"type": "a_new_error"}}, UnreadableReplyError),
        ({"type": "error", "error": None}, UnreadableReplyError),
        ({"type": "error", "error": {"type": ["x"]}}, UnreadableReplyError),
        (None, UnreadableReplyError),
        ("broken", UnreadableReplyError),
    ],
)
def test_an_error_of_a_known_type_is_that_error(error: object, kind: type) -> None:
    assert type(outcome({"type": "errored", "error": error})) is kind


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        "succeeded",
        {},
        {"type": None},
        {"type": ["succeeded"]},
        {"type": "paused"},
        {"type": "succeeded"},
        {"type": "succeeded", "message": None},
        {"type": "succeeded", "message": []},
        {"type": "succeeded", "message": {}},
    ],
)
def test_a_result_that_cannot_be_read_may_have_been_billed(result: object) -> None:
    assert isinstance(outcome(result), UnreadableReplyError)


@pytest.mark.parametrize(
    "line",
    [
        b'{"custom_id": "one", "result": {"type": "succ',
        b'{"custom_id": "one", "result": ' + b"[" * 200_000,
        b'{"custom_id": "one", "result": {"type": "succeeded", "message": \xff}}',
        b'{"custom_id":"one"} trailing',
        b'[{"custom_id": "one"}]',
    ],
)
def test_a_broken_line_still_says_whose_it_is(line: bytes) -> None:
    (found,) = results_of(line, is_cut=False, read_reply=read_reply, access=ACCESS)
    assert found.custom_id == "one"
    assert isinstance(found.outcome, UnreadableReplyError)
    assert len(str(found.outcome)) < 3000


def test_a_line_that_was_too_long_still_says_whose_it_is() -> None:
    line = b'{"custom_id": "one", "result": {"type": "succeeded", "message": {"text": "xxx'
    (found,) = results_of(line, is_cut=True, read_reply=read_reply, access=ACCESS)
    assert isinstance(found.outcome, UnreadableReplyError)


@pytest.mark.parametrize("line", [b"", b"  \r", b"garbage", b"null", b'{"custom_id": 7}', b"[]"])
def test_a_line_of_nobody_is_no_result(line: bytes) -> None:
    assert results_of(line, is_cut=False, read_reply=read_reply, access=ACCESS) == []


def test_a_key_in_a_line_is_not_repeated() -> None:
    line = b'{"custom_id": "one", "result": sk-ant-0123456789abcdef}'
    (found,) = results_of(line, is_cut=False, read_reply=read_reply, access=ACCESS)
    assert "sk-ant" not in str(found.outcome)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, BatchInfo("batch-1", 60.0, False, 3)),
        ({"processing_status": "ended"}, BatchInfo("batch-1", 60.0, True, 3)),
        ({"ended_at": "1970-01-01T00:02:00Z"}, BatchInfo("batch-1", 60.0, True, 3)),
        ({"created_at": "1970-01-01T00:01:00"}, BatchInfo("batch-1", 60.0, False, 3)),
        ({"created_at": None}, BatchInfo("batch-1", math.inf, False, 3)),
        ({"created_at": "yesterday"}, BatchInfo("batch-1", math.inf, False, 3)),
        ({"request_counts": None}, BatchInfo("batch-1", 60.0, False, -1)),
        ({"request_counts": COUNTS | {"errored": None}}, BatchInfo("batch-1", 60.0, False, -1)),
        ({"request_counts": COUNTS | {"errored": "4"}}, BatchInfo("batch-1", 60.0, False, 7)),
    ],
)
def test_a_batch_is_described_as_far_as_it_can_be(
    changes: dict[str, object], expected: BatchInfo
) -> None:
    assert batch_info(BATCH | changes) == expected


@pytest.mark.parametrize("batch", [None, [], {}, {"id": None}, {"id": ""}, {"id": 7}])
def test_a_batch_without_an_id_is_none(batch: object) -> None:
    with pytest.raises(UnreadableError, match="without an id"):
        batch_info(batch)
