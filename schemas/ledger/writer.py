"""The one thread that writes the ledger: a queue in, batched transactions out, in the order given.

What is committed is always a prefix of what was queued: a batch is one transaction, batches are
committed in order, and after a failure nothing more is written.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from schemas.ledger.file import LedgerWriteError, allow_memory, memory_mb, write_error
from schemas.ledger.tables import Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_LINGER_SECONDS = 0.05  # collects rows that arrive together; the promise is a commit within 0.25 s
_BATCH_ROWS = 250
_LONG_CHARS = 16_384  # shorter texts fit into the memory of any ledger
_LONG_TEXTS = 2048  # as many as DuckDB reads rows at a time
_QUEUE_ROWS = 500  # a full queue makes the caller wait, so that no row waits long


@dataclass(frozen=True)
class Append:
    """One row for one table."""

    table: Table
    row: tuple[Any, ...]


@dataclass(frozen=True)
class Statement:
    """An UPDATE or DELETE, run after all rows queued before it."""

    sql: str
    parameters: Sequence[Any] = ()


Operation = Append | Statement


class _Caught:
    """Keeps whatever ends the writer thread, so that the next call can raise it."""

    error: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self.error = error
        return error is not None


class Writer:
    """Owns the writing connection. Its methods may be called from any thread."""

    def __init__(
        self, connection: "DuckDBPyConnection", name: str, memory_limit_mb: int | None = None
    ) -> None:
        self._connection = connection
        self._name = name
        lock = threading.Lock()
        self._work = threading.Condition(lock)  # for the writer: something to do, or do it now
        self._progress = threading.Condition(lock)  # for callers: room in the queue, or a commit
        self._groups: deque[tuple[Operation, ...]] = deque()
        self._waiting = 0  # operations in the queue
        self._queued = 0
        self._committed = 0
        self._wanted = 0  # a caller waits until this many are committed
        self._is_closing = False
        self._long_texts: deque[int] = deque(maxlen=_LONG_TEXTS)
        self._memory_mb = memory_limit_mb or memory_mb(0)
        self._caught = _Caught()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    @property
    def committed(self) -> int:
        """How many operations are committed, counted in the order they were put."""
        return self._committed

    def put(self, *group: Operation) -> int:
        """Queue operations that are committed together; returns the number of the last one.

        Waits while the queue is full.
        """
        with self._progress:
            self._progress.wait_for(lambda: self._waiting < _QUEUE_ROWS or self._is_over())
            self._raise_failure()
            if self._is_closing:
                raise LedgerWriteError(f"the ledger {self._name} is closed; open it again to write")
            was_idle = not self._groups
            self._groups.append(group)
            self._waiting += len(group)
            self._queued += len(group)
            if was_idle or self._waiting >= _BATCH_ROWS:
                self._work.notify()
            return self._queued

    def flush(self) -> None:
        """Wait until everything queued so far is committed."""
        with self._progress:
            target = self._queued
            self._wanted = max(self._wanted, target)
            self._work.notify()
            self._progress.wait_for(lambda: self._committed >= target or self._is_over())
            self._raise_failure()

    def close(self) -> None:
        """Commit what is queued and end the thread."""
        with self._work:
            self._is_closing = True
            self._work.notify()
        self._thread.join()
        self._raise_failure()

    def _is_over(self) -> bool:
        return self._caught.error is not None or not self._thread.is_alive()

    def _raise_failure(self) -> None:
        error = self._caught.error
        if error is not None:
            raise write_error(self._name, error) from error

    def _run(self) -> None:
        with self._caught:
            while groups := self._take():
                self._write(groups)
                with self._progress:
                    self._committed += sum(map(len, groups))
                    self._progress.notify_all()
        with self._progress:
            self._progress.notify_all()

    def _take(self) -> list[tuple[Operation, ...]]:
        """The next batch; an empty one means the end."""
        with self._work:
            self._work.wait_for(lambda: self._groups or self._is_closing)
            deadline = time.monotonic() + _LINGER_SECONDS
            while not self._is_urgent() and (left := deadline - time.monotonic()) > 0:
                self._work.wait(left)
            groups: list[tuple[Operation, ...]] = []
            taken = 0
            while self._groups and taken < _BATCH_ROWS:
                groups.append(self._groups.popleft())
                taken += len(groups[-1])
            self._waiting -= taken
            self._progress.notify_all()
            return groups

    def _is_urgent(self) -> bool:
        return self._is_closing or self._wanted > self._committed or self._waiting >= _BATCH_ROWS

    def _write(self, groups: list[tuple[Operation, ...]]) -> None:
        self._connection.begin()
        pending: dict[str, tuple[Table, list[tuple[Any, ...]]]] = {}
        for group in groups:
            for operation in group:
                if isinstance(operation, Append):
                    table = operation.table
                    pending.setdefault(table.name, (table, []))[1].append(operation.row)
                    continue
                self._append(pending)
                self._connection.execute(operation.sql, list(operation.parameters))
        self._append(pending)
        self._connection.commit()

    def _make_room(self, rows: list[tuple[Any, ...]]) -> None:
        """Memory follows the long texts that are written: they are read again many at a time."""
        found = [
            len(value)
            for row in rows
            for value in row
            if isinstance(value, str) and len(value) > _LONG_CHARS
        ]
        if not found:
            return
        self._long_texts.extend(found)
        needed = memory_mb(sum(self._long_texts))
        if needed > self._memory_mb:
            self._memory_mb = needed
            allow_memory(self._connection, needed)

    def _append(self, pending: dict[str, tuple[Table, list[tuple[Any, ...]]]]) -> None:
        for table, rows in pending.values():
            self._make_room(rows)
            action: Literal["insert", "upsert"] = "insert"
            if table.key_places:
                # An upsert keeps the first of equal keys within one flush; we want the last.
                action = "upsert"
                rows = list({tuple(row[i] for i in table.key_places): row for row in rows}.values())
            with self._connection.appender(table.name, action=action) as appender:
                appender.append_rows(rows)
        pending.clear()
