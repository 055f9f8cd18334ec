"""How rows enter the ledger's tables: columns by name, each value checked at the door.

A row that does not fit is refused here, at the call that brought it: behind the door it would stop
the writer and everything queued with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from schemas.questions import VideoQuestion
from schemas.serialization import canonical_json, redact, whole_characters

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from schemas.annotations.reader import UnreadableRow

WRITTEN_TABLES = (
    "runs",
    "questions",
    "media",
    "attempts",
    "answer_checks",
    "sufficiency_verdicts",
    "reader_answers",
    "reader_checks",
    "calls",
    "rejections",
    "batches",
    "batch_requests",
)
# A row of these tables replaces an earlier one of the same key: a resumed build repeats steps.
REPLACED_BY_KEY: Mapping[str, tuple[str, ...]] = {
    "media": ("path", "frame_spec_id"),
    "attempts": ("question_id", "draw"),
    "answer_checks": ("question_id", "draw"),
    "sufficiency_verdicts": ("question_id", "draw", "judge_draw"),
    "reader_answers": ("question_id", "evidence", "draw", "sample"),
    "reader_checks": ("question_id", "evidence", "draw"),
    "batches": ("intent_id",),
    "batch_requests": ("intent_id", "custom_id"),
}
_WORDS_OF_OTHERS = frozenset({"error", "detail", "endpoint", "command"})  # may quote a key
_INT_BITS = {"INTEGER": 31, "BIGINT": 63}


class _MisfitError(ValueError):
    """A value that its column does not take."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _MisfitError("a text")
    return whole_characters(value)


@lru_cache(maxsize=1024)
def _redacted(text: str) -> str:
    """Endpoints come with every call; reading all secrets of the environment each time is slow."""
    return redact(text)


def _words_of_others(value: Any) -> str:
    return _redacted(_text(value))


def _json(value: Any) -> str:
    try:
        return _text(canonical_json(value))
    except (TypeError, ValueError) as error:
        raise _MisfitError(f"what JSON can hold ({error})") from error


def _integer(bits: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value.bit_length() > bits:
            raise _MisfitError(f"an integer of at most {bits + 1} bits")
        return value

    return check


def _double(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _MisfitError("a number")
    return float(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _MisfitError("True or False")
    return value


def _timestamp(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise _MisfitError("an ISO time") from error
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise _MisfitError("a time with its zone")
    return value.astimezone(UTC).replace(tzinfo=None)


def _list_of(check: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def check_all(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise _MisfitError("a list")
        return [check(item) for item in value]

    return check_all


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "VARCHAR": _text,
    "JSON": _json,
    "INTEGER": _integer(_INT_BITS["INTEGER"]),
    "BIGINT": _integer(_INT_BITS["BIGINT"]),
    "DOUBLE": _double,
    "BOOLEAN": _boolean,
    "TIMESTAMP": _timestamp,
    "INTEGER[]": _list_of(_integer(_INT_BITS["INTEGER"])),
    "DOUBLE[]": _list_of(_double),
}


@dataclass(frozen=True)
class Column:
    """One column of the open file: its name, the check of its values, and its default."""

    name: str
    check: Callable[[Any], Any]
    is_required: bool
    default: Any


class Table:
    """Turns dicts into rows of one table."""

    def __init__(self, name: str, columns: tuple[Column, ...], key: tuple[str, ...] = ()) -> None:
        self.name = name
        self.columns = columns
        self._names = frozenset(column.name for column in columns)
        names = [column.name for column in columns]
        self.key_places = tuple(names.index(part) for part in key)

    def row(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The row of `values`, or a ValueError that names table, column and value."""
        unknown = values.keys() - self._names
        if unknown:
            raise ValueError(
                f"{self.name} has no column {sorted(unknown)!r}; it has {sorted(self._names)!r}"
            )
        return tuple(self._value(column, values.get(column.name)) for column in self.columns)

    def _value(self, column: Column, value: Any) -> Any:
        if value is None:
            if column.is_required:
                raise ValueError(f"{self.name}.{column.name} is missing and has no default")
            return column.default
        try:
            return column.check(value)
        except _MisfitError as error:
            raise ValueError(
                f"{self.name}.{column.name} takes {error}, not {value!r}"
            ) from error.__cause__


def read_tables(
    connection: "DuckDBPyConnection",
    written: Sequence[str] = WRITTEN_TABLES,
    replaced_by_key: Mapping[str, tuple[str, ...]] = REPLACED_BY_KEY,
) -> dict[str, Table]:
    """The written tables with their columns, as the open file has them."""
    columns: dict[str, list[Column]] = {name: [] for name in written}
    rows = connection.execute(
        "SELECT table_name, column_name, data_type, is_nullable, column_default"
        " FROM duckdb_columns() WHERE database_name = 'ledger' ORDER BY table_name, column_index"
    ).fetchall()
    for table, name, data_type, is_nullable, default_sql in rows:
        if table not in columns:
            continue
        default = None
        if default_sql is not None:
            found = connection.execute(f"SELECT {default_sql}").fetchone()
            default = found[0] if found else None
        check = _words_of_others if name in _WORDS_OF_OTHERS else _CHECKS[data_type]
        is_required = not is_nullable and default is None
        columns[table].append(Column(name, check, is_required, default))
    return {
        name: Table(name, tuple(found), replaced_by_key.get(name, ()))
        for name, found in columns.items()
    }


def columns(row: object) -> dict[str, Any]:
    """The columns of a row of `schemas.ledger.rows`, by name."""
    return dict(vars(row))


def question_row(question: "VideoQuestion | UnreadableRow") -> dict[str, Any]:
    """The `questions` row; content columns are missing where no reader understood the row."""
    row: dict[str, Any] = {
        "question_id": question.question_id,
        "row": question.row,
        "problem_id": question.problem_id,
        "data_source": question.data_source,
        "problem_type": str(question.problem_type),
    }
    if isinstance(question, VideoQuestion):
        row |= {
            "data_type": question.data_type,
            "problem": question.problem,
            "options": question.options,
            "solution": question.solution,
            "media": [ref.as_fields() for ref in question.media],
            "time_clues": question.time_clues,
            "level": question.level,
        }
    return row
