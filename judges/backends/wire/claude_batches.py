"""Message Batches as the server writes them: what a batch is, and how each of its requests ended.

A line of results that cannot be read costs its own request and no other.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from judges.backends.base import (
    MAX_TOKENS,
    BatchInfo,
    BatchResult,
    CallError,
    Reply,
    RetryableError,
    UnreadableReplyError,
    token_count,
)
from judges.backends.failures import STATUS_OF_TYPE, Access, status_error
from judges.backends.wire.received import UnreadableError, parse_json, short_name

_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
_NOT_SERVED = frozenset({"expired", "canceled"})
_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([A-Za-z0-9_-]{1,64})"')

ReadReply = Callable[[dict[str, Any]], Reply]


def batch_info(batch: object) -> BatchInfo:
    """A batch as the server describes it. Raises UnreadableError where it has no id.

    A time that cannot be read is infinitely late, a number of requests -1.
    """
    batch_id = batch.get("id") if isinstance(batch, dict) else None
    if not isinstance(batch, dict) or not isinstance(batch_id, str) or not batch_id:
        raise UnreadableError("a batch without an id")
    return BatchInfo(
        batch_id=batch_id,
        created_at=_seconds(batch.get("created_at")),
        ended=batch.get("processing_status") == "ended" or isinstance(batch.get("ended_at"), str),
        num_requests=_num_requests(batch.get("request_counts")),
    )


def _seconds(written: object) -> float:
    if not isinstance(written, str):
        return math.inf
    try:
        time = datetime.fromisoformat(written)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.inf


def _num_requests(counts: object) -> int:
    found = [token_count(counts.get(name)) for name in _COUNTS] if isinstance(counts, dict) else []
    known = [count for count in found if count is not None]
    return min(sum(known), MAX_TOKENS) if found and len(known) == len(found) else -1


def results_of(
    line: bytes, *, is_cut: bool, read_reply: ReadReply, access: Access
) -> list[BatchResult]:
    """The results on one line: one, or none where nobody can tell whose they are."""
    if not line.strip():
        return []
    found = _CUSTOM_ID.search(line)
    custom_id = found[1].decode() if found is not None else ""
    if is_cut:
        return _unreadable(custom_id, "it is longer than any reply", access)
    try:
        entry = parse_json(line)
    except UnreadableError as error:
        return _unreadable(custom_id, str(error), access)
    if isinstance(entry, dict) and isinstance(entry.get("custom_id"), str):
        return [BatchResult(entry["custom_id"], _outcome(entry.get("result"), read_reply, access))]
    return _unreadable(custom_id, "it is no result", access)


def _unreadable(custom_id: str, why: str, access: Access) -> list[BatchResult]:
    return [BatchResult(custom_id, _lost(why, access))] if custom_id else []


def _lost(why: str, access: Access) -> UnreadableReplyError:
    return UnreadableReplyError(
        f"{access.server} gave a batch result that cannot be read: {access.clean(why)}"
    )


def _outcome(result: object, read_reply: ReadReply, access: Access) -> Reply | CallError:
    kind = result.get("type") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(kind, str):
        return _lost("it has no type", access)
    if kind in _NOT_SERVED:
        return RetryableError(f"the batch's request was {kind}")
    if kind == "errored":
        return _error(result.get("error"), access)
    message = result.get("message")
    if kind != "succeeded" or not isinstance(message, dict):
        return _lost(f"it is {short_name(kind)!r}, without a message", access)
    try:
        return read_reply(message)
    except UnreadableError as error:
        return _lost(str(error), access)


def _error(error: object, access: Access) -> CallError:
    """The error inside of an error response, or that alone."""
    said = error.get("error", error) if isinstance(error, dict) else None
    kind = said.get("type") if isinstance(said, dict) else None
    status = STATUS_OF_TYPE.get(kind) if isinstance(kind, str) else None
    if status is None:
        return _lost(f"it is an error of the unknown type {short_name(kind)!r}", access)
    return status_error(status, said, {}, access)
