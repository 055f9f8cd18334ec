"""Opening the ledger's file: one process, one opening, and one sentence where it cannot be.

The message of each error is one sentence for the user.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MAGIC_OFFSET = 8
_MAGIC = b"DUCK"
# Enough for 263,055 questions with their traces; larger work spills to `<file>.tmp`. What it cannot
# spill are the rows that it reads at a time, whatever is in them: long texts need more.
_LEAST_MEMORY_MB = 256
_ROWS_AT_A_TIME = 2048
_MEMORY_PER_BYTE = 4
_COMPRESSION = 4  # of texts in the file, at the most
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": 2,
    "checkpoint_threshold": "8MB",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
# A commit that checkpoints rewrites the last row group of each table. With DuckDB's usual 122,880
# rows that stops the writer for seconds once rows are traces; with these, for a tenth of one.
_ROW_GROUP_ROWS = 2048
_open_here: set[Path] = set()


class LedgerError(Exception):
    """The ledger cannot be used as asked."""


class LedgerLockedError(LedgerError):
    """Another process (or this one) holds the file."""


class LedgerVersionError(LedgerError):
    """The file's schema is newer than this program, or was made by another line of migrations."""


class LedgerWriteError(LedgerError):
    """The writer thread failed. What was committed before is safe, later rows are not stored."""


def claim(path: Path) -> Path:
    """Mark the file as open in this process; DuckDB itself only keeps other processes out."""
    resolved = path.resolve()
    if resolved in _open_here:
        raise LedgerLockedError(
            f"{path} is already open in this process: close it first, or use the open Ledger"
        )
    _open_here.add(resolved)
    return resolved


def release(claimed: Path) -> None:
    """Undo `claim`."""
    _open_here.discard(claimed)


def memory_mb(bytes_at_a_time: int) -> int:
    """Megabytes that DuckDB may use where its rows at a time hold that many bytes of text."""
    return max(_LEAST_MEMORY_MB, _MEMORY_PER_BYTE * bytes_at_a_time // 10**6)


def allow_memory(connection: "DuckDBPyConnection", megabytes: int) -> None:
    """Set the limit, in MB, of all connections to this file."""
    connection.execute(f"SET memory_limit = '{megabytes}MB'")


def memory_of_file(path: Path, connection: "DuckDBPyConnection") -> int:
    """Megabytes for the rows of the open file, by their mean size."""
    ((num_rows,),) = connection.execute(
        "SELECT coalesce(sum(estimated_size), 0)::BIGINT FROM duckdb_tables()"
        " WHERE database_name = 'ledger'"
    ).fetchall()
    share = min(1.0, _ROWS_AT_A_TIME / max(1, num_rows))
    return memory_mb(int(_COMPRESSION * path.stat().st_size * share))


def _connected(path: Path, options: str) -> "DuckDBPyConnection":
    """The file attached as `ledger`, with memory for the rows that it holds."""
    import duckdb

    connection = duckdb.connect(config={**_SETTINGS, "temp_directory": f"{path}.tmp"})
    try:
        # What a crash left in the log is replayed while the file is attached.
        log = Path(f"{path}.wal")
        allow_memory(connection, memory_mb(log.stat().st_size if log.exists() else 0))
        quoted = str(path).replace("'", "''")
        connection.execute(f"ATTACH '{quoted}' AS ledger ({options})")
        connection.execute("USE ledger")
        allow_memory(connection, memory_of_file(path, connection))
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: Path, prepare: Callable[["DuckDBPyConnection"], Any]) -> "DuckDBPyConnection":
    """Open the file and `prepare` its schema. Raises LedgerError."""
    import duckdb

    _look_at(path)
    try:
        connection = _connected(path, f"ROW_GROUP_SIZE {_ROW_GROUP_ROWS}")
    except duckdb.Error as error:
        raise _opening_error(path, str(error)) from error
    try:
        _refuse_other_database(path, connection)
        prepare(connection)
    except LedgerVersionError as error:
        connection.close()
        raise LedgerVersionError(f"{path} cannot be used, {error}") from error
    except duckdb.Error as error:
        connection.close()
        raise _opening_error(path, str(error)) from error
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def reading(path: Path) -> Iterator["DuckDBPyConnection"]:
    """A finished ledger, opened only to read: nothing in its folder changes. Raises LedgerError."""
    import duckdb

    if not path.is_file():
        raise LedgerError(f"{path} is not there: give the path of a ledger, like OUT/cot.duckdb")
    _look_for_magic(path)
    claimed = claim(path)
    try:
        try:
            connection = _connected(path, "READ_ONLY")
        except duckdb.Error as error:
            raise _opening_error(path, str(error)) from error
        with connection:
            _refuse_other_database(path, connection)
            yield connection
    finally:
        release(claimed)


def new_cursor(connection: "DuckDBPyConnection") -> "DuckDBPyConnection":
    """A further connection to the open ledger, for one thread or one streamed result."""
    cursor = connection.cursor()
    cursor.execute("USE ledger")
    return cursor


def _look_at(path: Path) -> None:
    folder = path.parent
    if path.is_dir():
        raise LedgerError(f"{path} is a folder; a ledger is a file in it: give its path")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _look_for_magic(path)
    except OSError as error:
        raise LedgerError(
            f"{path} cannot be opened ({error.strerror}): give a path in a folder you may write to"
        ) from error
    as_effective_user = os.access in os.supports_effective_ids
    for needed in (folder, path):
        if needed.exists() and not os.access(needed, os.W_OK, effective_ids=as_effective_user):
            raise LedgerError(
                f"{needed} is read-only, and a ledger is written to even when it is only read: "
                "change its rights, or copy the ledger to a folder you may write to"
            )


def _look_for_magic(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(_MAGIC_OFFSET + len(_MAGIC))
    if start[_MAGIC_OFFSET:] != _MAGIC:
        raise LedgerError(
            f"{path} is not a ledger (no DuckDB file): move it away or give another path"
        )


def _refuse_other_database(path: Path, connection: "DuckDBPyConnection") -> None:
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = 'ledger'"
    ).fetchall()
    names = {name for (name,) in found}
    if names and "schema_migrations" not in names:
        raise LedgerError(
            f"{path} is a DuckDB file but not a ledger (it holds {sorted(names)[:3]!r}): "
            "give another path"
        )


def _opening_error(path: Path, words: str) -> LedgerError:
    if "Could not set lock" in words:
        return LedgerLockedError(
            f"{path} is held by another process, and only one at a time can open it, even to read: "
            f"ask `python -m pipeline.status {path.parent}`, which reads progress.json, or wait "
            "for its end"
        )
    first_line = words.strip().splitlines()[0]
    return LedgerError(f"{path} cannot be opened: {first_line}")


def checkpoint(connection: "DuckDBPyConnection", path: Path) -> None:
    """Fold the write-ahead log into the file; a disk that is full raises LedgerWriteError."""
    import duckdb

    try:
        connection.execute("CHECKPOINT ledger")
    except duckdb.Error as error:
        raise write_error(path, error) from error


def write_error(path: Path | str, error: BaseException) -> LedgerWriteError:
    """The sentence for a write that failed, whatever failed in it."""
    words = str(error).strip().split("\n", 1)[0].rstrip(".")
    return LedgerWriteError(
        f"writing the ledger {path} failed: {words}. What was committed before is safe; mend the "
        "cause (disk space, rights) and run the same command again"
    )
