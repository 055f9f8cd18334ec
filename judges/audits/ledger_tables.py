"""The audit's tables beside those of a ledger, in one DuckDB file."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from schemas.ledger.ledger import Ledger
from schemas.ledger.migrations import MIGRATIONS, Migration
from schemas.ledger.tables import REPLACED_BY_KEY, WRITTEN_TABLES
from schemas.ledger.writer import Append, Statement

_AUDIT_TABLES = """
CREATE TABLE audit_facts (
    name VARCHAR PRIMARY KEY,
    value JSON NOT NULL
);
CREATE TABLE audit_strata (
    stratum VARCHAR PRIMARY KEY,
    source_verdict VARCHAR NOT NULL,
    problem_type VARCHAR NOT NULL,
    data_source VARCHAR NOT NULL,
    population BIGINT NOT NULL,
    sampled BIGINT NOT NULL
);
CREATE TABLE audit_items (
    item_id VARCHAR PRIMARY KEY,
    question_id VARCHAR NOT NULL,
    draw INTEGER NOT NULL,
    observation VARCHAR NOT NULL,
    source_verdict VARCHAR NOT NULL,
    source_unscored_reason VARCHAR NOT NULL,
    source_judge VARCHAR NOT NULL,
    source_prompt_id VARCHAR NOT NULL,
    video VARCHAR NOT NULL,
    frame_spec VARCHAR NOT NULL,
    stratum VARCHAR NOT NULL,
    inclusion_probability DOUBLE NOT NULL,
    weight DOUBLE NOT NULL,
    position INTEGER NOT NULL
);
-- Labels are never changed: the highest number of an annotator on an item counts, a NULL label
-- takes the earlier ones back.
CREATE TABLE audit_labels (
    label_number BIGINT PRIMARY KEY,
    item_id VARCHAR NOT NULL,
    annotator VARCHAR NOT NULL,
    label VARCHAR,
    reason VARCHAR NOT NULL,
    labelled_at VARCHAR NOT NULL,
    origin VARCHAR NOT NULL
);
CREATE TABLE audit_verdicts (
    item_id VARCHAR NOT NULL,
    judge VARCHAR NOT NULL,
    variant VARCHAR NOT NULL,
    permutation INTEGER NOT NULL,
    probe VARCHAR NOT NULL,
    repeat INTEGER NOT NULL,
    verdict VARCHAR NOT NULL,
    unscored_reason VARCHAR NOT NULL,
    prompt_id VARCHAR NOT NULL,
    call_key VARCHAR NOT NULL,
    call_keys JSON NOT NULL,
    seconds DOUBLE,
    cost_usd DOUBLE,
    reply VARCHAR NOT NULL,
    probe_text VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    PRIMARY KEY (item_id, judge, variant, permutation, probe, repeat)
);
"""

# Written out one by one: a ledger migration that comes later goes behind the audit's own, with the
# next number, because the files that exist have theirs in this order.
AUDIT_MIGRATIONS: tuple[Migration, ...] = (
    MIGRATIONS[0],
    Migration(2, "audit_tables", _AUDIT_TABLES),
    replace(MIGRATIONS[1], number=3),
)


class AuditLedger(Ledger):
    """A ledger that also holds an audit's rows."""

    written_tables: ClassVar[tuple[str, ...]] = (
        *WRITTEN_TABLES,
        "audit_facts",
        "audit_strata",
        "audit_items",
        "audit_labels",
        "audit_verdicts",
    )
    replaced_by_key: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **REPLACED_BY_KEY,
        "audit_verdicts": (
            "item_id",
            "judge",
            "variant",
            "permutation",
            "probe",
            "repeat",
        ),
    }

    def add_rows(self, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Queue `(table, row)` pairs that are committed together."""
        group = [Append(self._tables[name], self._tables[name].row(row)) for name, row in rows]
        if group:
            self._writer.put(*group)

    def change(self, sql: str, parameters: tuple[Any, ...] = ()) -> None:
        """Queue an UPDATE or DELETE, run after all rows queued before it."""
        self._writer.put(Statement(sql, parameters))
