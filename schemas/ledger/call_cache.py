"""The memory of calls: which ended, how, and which batches are still out."""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from schemas.ledger.rows import CallRow
from schemas.samples import Reason

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

STATUSES = frozenset({"ok", "empty", "truncated", "refused", "failed", "rejected"})
STATUS_OF_REASON = {
    Reason.CALL_FAILED: "failed",
    Reason.BAD_REQUEST: "rejected",
    Reason.REFUSED: "refused",
    Reason.TRUNCATED: "truncated",
    Reason.EMPTY_REPLY: "empty",
}
"""The status of a call that failed, for each reason that it gives a question."""
_DIGEST_BYTES = 16
_KEPT_CHARACTERS = 4_000_000  # of replies that were looked up, some megabytes
_FIND = """
SELECT call_key, status, coalesce(reply, ''), coalesce(stop_reason, ''), input_tokens,
       output_tokens, cache_read_tokens, cache_write_tokens, model, coalesce(request_id, ''),
       coalesce(error, '')
FROM calls WHERE call_key = ? AND is_final AND NOT is_superseded
"""
_OPEN_BATCHES = """
SELECT intent_id, provider, model, endpoint, batch_id, created_at, status,
       list(custom_id ORDER BY custom_id)
FROM batches JOIN batch_requests USING (intent_id) WHERE NOT done
GROUP BY ALL ORDER BY created_at, intent_id
"""


@dataclass(frozen=True)
class CachedCall:
    """How a call ended for good: an `ok` reply, or another status with its error."""

    call_key: str
    status: str
    reply: str
    stop_reason: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    model: str
    request_id: str
    error: str

    @property
    def is_ok(self) -> bool:
        """Whether there is a reply to use."""
        return self.status == "ok"


@dataclass(frozen=True)
class OpenBatch:
    """A stored intent to send a batch, with the requests that have no result yet."""

    intent_id: str
    provider: str
    model: str
    endpoint: str
    batch_id: str | None
    created_at: datetime
    status: str
    custom_ids: tuple[str, ...]


def key_digest(key: str) -> bytes:
    """A 16-byte digest of an id: half a million of them fit into memory."""
    return hashlib.blake2b(key.encode(), digest_size=_DIGEST_BYTES).digest()


def final_call(row: CallRow) -> CachedCall | None:
    """The end of a call as `row` has it, or None for an attempt that another one follows.

    Raises ValueError for a status that is none, and where it is open whether another one follows.
    """
    if row.status not in STATUSES:
        raise ValueError(f"a call's status is one of {sorted(STATUSES)!r}, not {row.status!r}")
    is_final = True if row.is_final is None and row.status == "ok" else row.is_final
    if is_final is None:
        raise ValueError(
            f"a call row with status {row.status!r} needs is_final: False where another attempt"
            " follows"
        )
    if not is_final:
        if row.status == "ok":
            raise ValueError("an ok call row is final: no attempt follows a reply")
        return None
    return CachedCall(
        call_key=row.call_key,
        status=row.status,
        reply=row.reply,
        stop_reason=row.stop_reason,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cache_read_tokens=row.cache_read_tokens,
        cache_write_tokens=row.cache_write_tokens,
        model=row.model,
        request_id=row.request_id,
        error=row.error or "",
    )


class CallCache:
    """Which calls have ended: digests of all of them, and the rows that are not committed yet.

    Rows that were looked up last are kept too, while their texts are short: a text reader is asked
    the same about every video that shares a question, and each look-up in the file takes time.
    """

    def __init__(self) -> None:
        self._ended: set[bytes] = set()
        self._looked_up: OrderedDict[str, CachedCall] = OrderedDict()
        self._looked_up_characters = 0
        self._fresh: dict[str, CachedCall] = {}
        self._fresh_order: deque[tuple[int, str]] = deque()

    def __contains__(self, call_key: str) -> bool:
        return key_digest(call_key) in self._ended

    def load(self, call_keys: Iterable[str]) -> None:
        """Replace the contents by the calls of the file, all of them committed."""
        self._ended = {key_digest(key) for key in call_keys}
        self._fresh.clear()
        self._fresh_order.clear()
        self._looked_up.clear()
        self._looked_up_characters = 0

    def add(self, call: CachedCall, number: int, committed: int) -> None:
        """Remember a call that ended; `number` is its place in the writer's queue."""
        self._forget_committed(committed)
        self._ended.add(key_digest(call.call_key))
        self._fresh[call.call_key] = call
        self._fresh_order.append((number, call.call_key))

    def find(
        self, call_key: str, committed: int, cursor: "DuckDBPyConnection"
    ) -> CachedCall | None:
        """The end of a call, from the queue or the file."""
        self._forget_committed(committed)
        fresh = self._fresh.get(call_key)
        if fresh is not None:
            return fresh
        if call_key in self._looked_up:
            self._looked_up.move_to_end(call_key)
            return self._looked_up[call_key]
        # All rows are fetched: a result that is not read to its end keeps its transaction open, and
        # the file could not be closed.
        rows = cursor.execute(_FIND, [call_key]).fetchall()
        if not rows:
            return None
        call = CachedCall(*rows[0])
        self._keep(call)
        return call

    def _keep(self, call: CachedCall) -> None:
        self._looked_up[call.call_key] = call
        self._looked_up_characters += _num_characters(call)
        while self._looked_up_characters > _KEPT_CHARACTERS:
            _, oldest = self._looked_up.popitem(last=False)
            self._looked_up_characters -= _num_characters(oldest)

    def _forget_committed(self, committed: int) -> None:
        while self._fresh_order and self._fresh_order[0][0] <= committed:
            self._fresh.pop(self._fresh_order.popleft()[1], None)


def _num_characters(call: CachedCall) -> int:
    """The length of a row's texts, its other columns as a round number."""
    return len(call.reply) + len(call.error) + 500


def open_batches(cursor: "DuckDBPyConnection") -> list[OpenBatch]:
    """Batches with requests that have no result yet, oldest first."""
    found = []
    for row in cursor.execute(_OPEN_BATCHES).fetchall():
        intent_id, provider, model, endpoint, batch_id, created_at, status, custom_ids = row
        created_at = created_at.replace(tzinfo=UTC)
        found.append(
            OpenBatch(
                intent_id,
                provider,
                model,
                endpoint,
                batch_id,
                created_at,
                status,
                tuple(custom_ids),
            )
        )
    return found
