"""The ledger: the DuckDB file of runs, questions, calls, traces, verdicts and rejections.

One process holds the file, one thread in it writes. Writes are queued and return at once; they are
committed in their order within a quarter of a second, so what a crash leaves is a prefix of what
was queued. Reads wait for the queue first, except `cached_reply`, which looks into it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from schemas.ledger.call_cache import (
    STATUS_OF_REASON,
    CachedCall,
    CallCache,
    OpenBatch,
    final_call,
    key_digest,
)
from schemas.ledger.file import (
    LedgerError,
    LedgerLockedError,
    LedgerVersionError,
    LedgerWriteError,
    checkpoint,
    claim,
    connect,
    memory_of_file,
    new_cursor,
    release,
)
from schemas.ledger.migrations import MIGRATIONS, Migration, migrate
from schemas.ledger.queries import FunnelRow, SpendRow
from schemas.ledger.reader import FINISHED, LedgerReader
from schemas.ledger.rows import (
    AnswerCheckRow,
    AttemptRow,
    BatchRow,
    CallRow,
    MediaRow,
    ReaderAnswerRow,
    ReaderCheckRow,
    SufficiencyRow,
)
from schemas.ledger.tables import (
    REPLACED_BY_KEY,
    WRITTEN_TABLES,
    columns,
    question_row,
    read_tables,
)
from schemas.ledger.writer import Append, Statement, Writer
from schemas.questions import VideoQuestion
from schemas.runs import RunInfo
from schemas.samples import Reason, Rejection

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from schemas.annotations.reader import UnreadableRow

__all__ = [
    "CachedCall",
    "FunnelRow",
    "Ledger",
    "LedgerError",
    "LedgerLockedError",
    "LedgerVersionError",
    "LedgerWriteError",
    "OpenBatch",
    "SpendRow",
]

_TRACE_TABLES = (
    "attempts",
    "answer_checks",
    "sufficiency_verdicts",
    "reader_answers",
    "reader_checks",
)
_PUT_ROWS = 200  # questions that enter the queue together


class Ledger(LedgerReader):
    """An open ledger. Close it, or use it in a `with` statement: closing commits and checkpoints.

    Methods may be called from any thread. A failure of the writer raises LedgerWriteError at the
    next call.

    A ledger with further tables is a subclass that names them and is opened with its migrations.
    """

    written_tables: ClassVar[tuple[str, ...]] = WRITTEN_TABLES
    replaced_by_key: ClassVar[Mapping[str, tuple[str, ...]]] = REPLACED_BY_KEY

    def __init__(
        self, path: Path, claimed: Path, connection: "DuckDBPyConnection", run: RunInfo
    ) -> None:
        super().__init__(connection, run.run_id)
        self.path = path
        self._claimed = claimed
        self._tables = read_tables(connection, self.written_tables, self.replaced_by_key)
        stored = self._each("SELECT question_id FROM questions")
        self._known = {key_digest(question_id) for question_id in stored}
        self._finished: set[bytes] = set()
        self._calls = CallCache()
        self._load_state()
        self._writer = Writer(new_cursor(connection), str(path), memory_of_file(path, connection))
        self._is_closed = False
        names = [column.name for column in self._tables["runs"].columns]
        described = run.as_json()
        self._add("runs", {name: described[name] for name in names if name in described})

    @classmethod
    def open(
        cls, path: Path, run: RunInfo, *, migrations: Sequence[Migration] = MIGRATIONS
    ) -> Self:
        """Open or create the file, bring its schema up to date, and record the run.

        Raises a LedgerError that says in one sentence why the file cannot be used.
        """
        claimed = claim(path)
        try:
            connection = connect(path, lambda found: migrate(found, migrations))
            return cls(path, claimed, connection, run)
        except BaseException:
            release(claimed)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is queued, checkpoint, and let the file go. A second close does nothing."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self._writer.close()
                checkpoint(self._connection, self.path)
            finally:
                self._cursor.close()
                self._connection.close()
                release(self._claimed)

    # Writes: queued, in order.

    def add_question(self, question: "VideoQuestion | UnreadableRow") -> bool:
        """Store one question or unreadable row; False when it is known already."""
        return self.add_questions([question]) == 1

    def add_questions(self, questions: "Iterable[VideoQuestion | UnreadableRow]") -> int:
        """Store those that are not known yet; returns how many that were."""
        table = self._tables["questions"]
        group: list[Append] = []
        added = 0
        with self._lock:
            for question in questions:
                digest = key_digest(question.question_id)
                if digest in self._known:
                    continue
                group.append(Append(table, table.row(question_row(question))))
                self._known.add(digest)
                added += 1
                if len(group) >= _PUT_ROWS:
                    self._writer.put(*group)
                    group = []
            if group:
                self._writer.put(*group)
        return added

    def add_media(self, row: MediaRow) -> None:
        """Store what was read of a media file; the same path and frame spec replaces the row."""
        self._add("media", columns(row))

    def add_attempt(self, row: AttemptRow) -> None:
        """Store an attempt; the same question and draw replaces the row."""
        self._add("attempts", columns(row))

    def add_answer_check(self, row: AnswerCheckRow) -> None:
        """Store step two's verdict on an attempt."""
        self._add("answer_checks", columns(row))

    def add_sufficiency(self, row: SufficiencyRow) -> None:
        """Store one reply of the judge, or an answer leak; the same draws replace the row."""
        self._add("sufficiency_verdicts", columns(row))

    def add_reading(self, check: ReaderCheckRow, answers: Iterable[ReaderAnswerRow]) -> None:
        """Store a text reader's answers and what followed from them, in one commit."""
        checks, table = self._tables["reader_checks"], self._tables["reader_answers"]
        self._writer.put(
            *(Append(table, table.row(columns(answer))) for answer in answers),
            Append(checks, checks.row(columns(check))),
        )

    def add_call(self, row: CallRow) -> None:
        """Store a billed or final attempt of a call."""
        table = self._tables["calls"]
        call = final_call(row)
        is_final = {"is_final": call is not None}
        stored = table.row({**columns(row), "run_id": row.run_id or self.run_id, **is_final})
        with self._lock:
            number = self._writer.put(Append(table, stored))
            if call is not None:
                self._calls.add(call, number, self._writer.committed)

    def add_rejection(self, question_id: str, rejection: Rejection) -> bool:
        """Store why a question is out. False when it has its outcome already: the first stays."""
        row = {
            "question_id": question_id,
            "step": rejection.step.value,
            "reason": rejection.reason.value,
            "detail": rejection.detail,
            "run_id": self.run_id,
        }
        with self._lock:
            digest = key_digest(question_id)
            if digest in self._finished:
                return False
            self._add("rejections", row)
            self._finished.add(digest)
            return True

    def add_batch(self, row: BatchRow, custom_ids: Iterable[str]) -> None:
        """Store the intent to send a batch together with its requests, in one commit."""
        batches, requests = self._tables["batches"], self._tables["batch_requests"]
        self._writer.put(
            Append(batches, batches.row(columns(row))),
            *(
                Append(requests, requests.row({"intent_id": row.intent_id, "custom_id": custom_id}))
                for custom_id in custom_ids
            ),
        )

    def update_batch(
        self, intent_id: str, *, status: str | None = None, batch_id: str | None = None
    ) -> None:
        """Change a batch's status or store the server's id of it; None leaves a value as it is."""
        self._writer.put(
            Statement(
                "UPDATE batches SET status = coalesce(?, status), batch_id = coalesce(?, batch_id)"
                " WHERE intent_id = ?",
                (status, batch_id, intent_id),
            )
        )

    def finish_batch_requests(self, intent_id: str, custom_ids: Iterable[str]) -> None:
        """Mark requests whose results are stored."""
        table = self._tables["batch_requests"]
        done = [
            Append(table, table.row({"intent_id": intent_id, "custom_id": name, "done": True}))
            for name in custom_ids
        ]
        if done:
            self._writer.put(*done)

    def end_run(self, exit_status: int) -> None:
        """Record how this run ended."""
        now = datetime.now(UTC).replace(tzinfo=None)
        self._writer.put(
            Statement(
                "UPDATE runs SET ended_at = ?, exit_status = ? WHERE run_id = ?",
                (now, exit_status, self.run_id),
            )
        )

    def flush(self) -> None:
        """Wait until all that was queued is committed."""
        self._writer.flush()

    def forget_failures(self, reasons: Iterable[Reason]) -> int:
        """Give questions rejected for `reasons` another chance; returns how many those are.

        Their failed calls, and failed calls of the same kind, no longer answer from the cache. The
        call rows stay, superseded, because they may have been paid.
        """
        words = sorted({Reason(reason).value for reason in reasons})
        statuses = [STATUS_OF_REASON[Reason(word)] for word in words if word in STATUS_OF_REASON]
        chosen = "(SELECT question_id FROM rejections WHERE reason IN (SELECT unnest(?)))"
        with self._lock:
            ((count,),) = self.query(
                "SELECT count(*) FROM rejections WHERE reason IN (SELECT unnest(?))", [words]
            )
            supersede = Statement(
                "UPDATE calls SET is_superseded = true WHERE is_final AND status <> 'ok' AND"
                f" (status IN (SELECT unnest(?)) OR question_id IN {chosen})",
                (statuses, words),
            )
            discard = (
                Statement(f"DELETE FROM {table} WHERE question_id IN {chosen}", (words,))
                for table in (*_TRACE_TABLES, "rejections")
            )
            self._writer.put(supersede, *discard)
            self.flush()
            self._load_state()
        return int(count)

    def forget_failed_calls(self, call_keys: Iterable[str]) -> None:
        """Let these calls be made again where they failed; what other failures led to stays."""
        with self._lock:
            self._writer.put(
                Statement(
                    "UPDATE calls SET is_superseded = true WHERE is_final AND status <> 'ok' AND"
                    " call_key IN (SELECT unnest(?))",
                    (sorted(call_keys),),
                )
            )
            self.flush()
            self._load_state()

    def discard_unfinished(self) -> int:
        """Remove attempts, checks and verdicts of questions without an outcome.

        A resumed build does them again, from cached replies. Returns how many attempts that were.
        """
        unfinished = (
            "NOT IN (SELECT question_id FROM rejections UNION SELECT question_id FROM accepted)"
        )
        with self._lock:
            ((count,),) = self.query(
                f"SELECT count(*) FROM attempts WHERE question_id {unfinished}"
            )
            self._writer.put(
                *(
                    Statement(f"DELETE FROM {table} WHERE question_id {unfinished}")
                    for table in reversed(_TRACE_TABLES)
                )
            )
            self.flush()
        return int(count)

    def cached_reply(self, call_key: str) -> CachedCall | None:
        """How this call ended, or None when it never did; queued rows count."""
        if call_key not in self._calls:
            return None
        with self._lock:
            return self._calls.find(call_key, self._writer.committed, self._cursor)

    def num_questions(self) -> int:
        """How many questions and unreadable rows are stored."""
        return len(self._known)

    def _add(self, table_name: str, row: Mapping[str, Any]) -> None:
        table = self._tables[table_name]
        self._writer.put(Append(table, table.row(row)))

    def _load_state(self) -> None:
        """What has ended, as sets of digests: most questions are answered without the file."""
        self._finished = {key_digest(key) for key in self._each(FINISHED)}
        self._calls.load(
            self._each("SELECT call_key FROM calls WHERE is_final AND NOT is_superseded")
        )
