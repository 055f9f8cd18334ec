"""The reading side of an open ledger."""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from schemas.ledger import queries
from schemas.ledger.accepted_samples import accepted_samples, stored_questions
from schemas.ledger.call_cache import OpenBatch, open_batches
from schemas.ledger.file import new_cursor
from schemas.ledger.queries import FunnelRow, SpendRow
from schemas.questions import VideoQuestion
from schemas.samples import AcceptedSample

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_FETCH_ROWS = 10_000
FINISHED = "SELECT question_id FROM rejections UNION ALL SELECT question_id FROM accepted"


class LedgerReader(ABC):
    """Named queries. Each waits first until all that was queued before is committed."""

    def __init__(self, connection: "DuckDBPyConnection", run_id: str) -> None:
        self.run_id = run_id
        self._connection = connection
        self._lock = threading.RLock()
        self._cursor = new_cursor(connection)  # short reads, under the lock

    @abstractmethod
    def flush(self) -> None:
        """Wait until all that was queued is committed."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a SELECT over all that was queued before."""
        self.flush()
        with self._lock:
            return self._cursor.execute(sql, list(parameters)).fetchall()

    def finished_question_ids(self) -> set[str]:
        """Questions that are accepted or rejected."""
        return self._ids(FINISHED)

    def funnel(self) -> list[FunnelRow]:
        """Where the questions ended."""
        self.flush()
        with self._lock:
            return queries.funnel(self._cursor)

    def spend(self) -> list[SpendRow]:
        """What was paid, by step and model."""
        self.flush()
        with self._lock:
            return queries.spend(self._cursor)

    def spent_usd(self) -> float:
        """Dollars of all calls whose price was known; a row that says less than nothing is none."""
        ((dollars,),) = self.query(
            "SELECT coalesce(sum(greatest(cost_usd, 0)) FILTER (isfinite(cost_usd)), 0) FROM calls"
        )
        return float(dollars)

    def averages(self) -> dict[str, float]:
        """What the calls so far looked like."""
        self.flush()
        with self._lock:
            return queries.averages(self._cursor)

    def samples(self, batch_rows: int = 1000) -> Iterator[AcceptedSample]:
        """Accepted samples in the order of the question file, streamed."""
        self.flush()
        with new_cursor(self._connection) as cursor:
            yield from accepted_samples(cursor, batch_rows)

    def questions(self) -> Iterator[VideoQuestion]:
        """The questions that could be read, in the order of their file, with a text reader's marks,
        streamed.
        """
        self.flush()
        with new_cursor(self._connection) as cursor:
            yield from stored_questions(cursor)

    def open_batches(self) -> list[OpenBatch]:
        """Batches with requests that have no result yet, oldest first."""
        self.flush()
        with self._lock:
            return open_batches(self._cursor)

    def run_configs(self) -> list[dict[str, Any]]:
        """The configurations of the runs before this one, oldest first."""
        rows = self.query(
            "SELECT config FROM runs WHERE run_id <> ? ORDER BY started_at, run_id", [self.run_id]
        )
        return [json.loads(config) for (config,) in rows]

    def verify(self, *, is_finished: bool = False) -> list[str]:
        """What does not hold together, one sentence each; an empty list is a sound ledger.

        `is_finished` also asks that every question has its outcome.
        """
        self.flush()
        with new_cursor(self._connection) as cursor:
            return queries.verify(cursor, is_finished=is_finished)

    def _ids(self, sql: str) -> set[str]:
        self.flush()
        return set(self._each(sql))

    def _each(self, sql: str) -> Iterator[str]:
        """The first column of each row, fetched in batches."""
        with new_cursor(self._connection) as cursor:
            cursor.execute(sql)
            while rows := cursor.fetchmany(_FETCH_ROWS):
                for row in rows:
                    yield row[0]
