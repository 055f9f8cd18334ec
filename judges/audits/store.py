"""An audit's folder: `audit.duckdb` (rows, labels, verdicts, calls) and `config.json`.

One process at a time has the folder open. Within it every method may be called from any thread.
"""

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from judges.audits.audit_kinds import KINDS, SUFFICIENCY, AuditKind
from judges.audits.ledger_tables import AUDIT_MIGRATIONS, AuditLedger
from judges.audits.records import (
    REAL,
    AuditError,
    AuditItem,
    AuditLabel,
    AuditVerdict,
    Label,
    Stratum,
    Verdict,
)
from schemas.ledger.accepted_samples import QUESTION_COLUMNS, stored_question
from schemas.ledger.file import LedgerLockedError
from schemas.runs import RunInfo

__all__ = [
    "REAL",
    "AuditError",
    "AuditItem",
    "AuditLabel",
    "AuditStore",
    "AuditVerdict",
    "Label",
    "Stratum",
    "Verdict",
]

LEDGER_NAME = "audit.duckdb"
CONFIG_NAME = "config.json"
_ITEM_COLUMNS = (
    "item_id, observation, source_verdict, source_judge, source_prompt_id, video, stratum, "
    "weight, position, inclusion_probability, source_unscored_reason, draw, frame_spec"
)
_LABEL_COLUMNS = "item_id, annotator, label, reason, labelled_at, origin"
_VERDICT_COLUMNS = (
    "item_id, judge, variant, permutation, probe, repeat, verdict, unscored_reason, prompt_id, "
    "call_key, seconds, cost_usd, reply, call_keys, probe_text"
)
_CURRENT_LABELS = (
    f"SELECT {_LABEL_COLUMNS} FROM audit_labels QUALIFY label IS NOT NULL AND label_number ="
    " max(label_number) OVER (PARTITION BY item_id, annotator) ORDER BY label_number"
)
# A call whose price is not known makes the sum unknown, not smaller.
_COSTS = """
SELECT call_key, sum(seconds), CASE WHEN count(cost_usd) = count(*) THEN sum(cost_usd) END
FROM calls GROUP BY call_key
"""


class AuditStore:
    """An open audit. Close it, or use it in a `with` statement."""

    def __init__(self, folder: Path, ledger: AuditLedger) -> None:
        self.folder = folder
        self.ledger = ledger
        self._lock = threading.RLock()
        ((last,),) = ledger.query("SELECT coalesce(max(label_number), 0) FROM audit_labels")
        self._last_label = int(last)
        self._item_ids = {name for (name,) in ledger.query("SELECT item_id FROM audit_items")}

    @classmethod
    def open(cls, folder: Path, run: RunInfo) -> "AuditStore":
        """Open an audit that `sample` has drawn. Raises AuditError or LedgerError."""
        if not (folder / LEDGER_NAME).is_file():
            raise AuditError(
                f"{folder} holds no audit (no {LEDGER_NAME}): draw one first with "
                f"python -m judges.audit sample {folder} --build OUT"
            )
        store = cls.create(folder, run)
        if not store.num_items:
            store.close()
            raise AuditError(
                f"the audit in {folder} has no rows: its sampling was interrupted; repeat the "
                "sample command"
            )
        return store

    @classmethod
    def create(cls, folder: Path, run: RunInfo) -> "AuditStore":
        """Open an audit, or begin an empty one."""
        path = folder / LEDGER_NAME
        try:
            ledger = AuditLedger.open(path, run, migrations=AUDIT_MIGRATIONS)
        except LedgerLockedError as error:
            raise LedgerLockedError(
                f"{path} is held by another command of this audit (label, run, report), and only "
                "one at a time can open it: end that one, or wait for its end"
            ) from error
        return cls(folder, ledger)

    def __enter__(self) -> "AuditStore":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is queued and let the file go. A second close does nothing."""
        self.ledger.close()

    @property
    def num_items(self) -> int:
        """How many rows the audit has."""
        return len(self._item_ids)

    @property
    def source(self) -> dict[str, Any]:
        """What the rows were drawn from and how: `kind`, `ledger`, `seed`, counts."""
        facts = self.ledger.query("SELECT value FROM audit_facts WHERE name = 'source'")
        found: dict[str, Any] = json.loads(facts[0][0]) if facts else {}
        return found

    @property
    def kind(self) -> AuditKind:
        """What the audit asks about its rows."""
        return KINDS[self.source.get("kind", SUFFICIENCY.name)]

    @property
    def media_root(self) -> Path | None:
        """The folder under which the videos' paths lie; None where nobody said."""
        given = self.source.get("media_root")
        return None if given is None else Path(given)

    def add_sample(
        self,
        items: Sequence[AuditItem],
        strata: Iterable[Stratum],
        source: dict[str, Any],
        verdicts: Iterable[AuditVerdict] = (),
    ) -> None:
        """Store the drawn rows, with what was said of them before, all together or not at all."""
        if self._item_ids:
            raise AuditError(
                f"the audit in {self.folder} has its {self.num_items} rows already; give another "
                "--audit folder to draw anew"
            )
        self.ledger.add_questions(item.question for item in items)
        rows: list[tuple[str, dict[str, Any]]] = [
            ("audit_items", _item_row(item)) for item in items
        ]
        rows += [("audit_strata", asdict(stratum)) for stratum in strata]
        rows += [("audit_verdicts", self._verdict_row(verdict)) for verdict in verdicts]
        rows.append(("audit_facts", {"name": "source", "value": source}))
        self.ledger.add_rows(rows)
        self.ledger.flush()
        self._item_ids = {item.item_id for item in items}

    def items(self) -> list[AuditItem]:
        """All rows in the blind order."""
        questions = {
            row[0]: stored_question(row)
            for row in self.ledger.query(f"SELECT {QUESTION_COLUMNS} FROM questions")
        }
        rows = self.ledger.query(
            f"SELECT question_id, {_ITEM_COLUMNS} FROM audit_items ORDER BY position"
        )
        return [
            AuditItem(item_id, questions[question_id], *others)
            for question_id, item_id, *others in rows
        ]

    def strata(self) -> list[Stratum]:
        """The population's cells with their counts, those without a drawn row included."""
        rows = self.ledger.query(
            "SELECT stratum, source_verdict, problem_type, data_source, population, sampled"
            " FROM audit_strata ORDER BY stratum"
        )
        return [Stratum(*row) for row in rows]

    def labels(self, *, current_only: bool = True) -> list[AuditLabel]:
        """Labels in the order they were given; without `current_only` the whole history."""
        everything = f"SELECT {_LABEL_COLUMNS} FROM audit_labels ORDER BY label_number"
        return [
            AuditLabel(*row)
            for row in self.ledger.query(_CURRENT_LABELS if current_only else everything)
        ]

    def add_label(self, label: AuditLabel) -> None:
        """Store a label; it is committed when this returns.

        An annotator's later label on an item counts instead of the earlier ones, which stay in the
        history. Raises ValueError for an item or a label that there is not.
        """
        self.add_labels([label])

    def add_labels(self, labels: Sequence[AuditLabel]) -> None:
        """Store several labels in their order, in one commit."""
        for label in labels:
            self._check_label(label)
        with self._lock:
            rows = []
            for label in labels:
                self._last_label += 1
                rows.append(("audit_labels", {"label_number": self._last_label, **asdict(label)}))
            self.ledger.add_rows(rows)
        self.ledger.flush()

    def withdraw_label(self, item_id: str, annotator: str, *, origin: str = "page") -> None:
        """Withdraw the label of `annotator` on an item: it counts as not labelled."""
        self.add_label(AuditLabel(item_id, annotator, None, "", utc_now(), origin))

    def verdicts(self) -> list[AuditVerdict]:
        """All verdicts of judges asked by this audit, in a fixed order.

        Where a verdict came with no seconds or dollars of its own, those of its calls count.
        """
        took = {key: (seconds, dollars) for key, seconds, dollars in self.ledger.query(_COSTS)}
        rows = self.ledger.query(
            f"SELECT {_VERDICT_COLUMNS} FROM audit_verdicts"
            " ORDER BY judge, variant, probe, permutation, repeat, item_id"
        )
        return [_verdict(row, took) for row in rows]

    def add_verdict(self, verdict: AuditVerdict) -> None:
        """Store a verdict; one on the same row by the same judge asked the same way replaces it."""
        self._check_item(verdict.item_id)
        if verdict.verdict not in get_args(Verdict):
            raise ValueError(f"a verdict is yes, no or unscored, not {verdict.verdict!r}")
        self.ledger.add_rows([("audit_verdicts", self._verdict_row(verdict))])

    def _verdict_row(self, verdict: AuditVerdict) -> dict[str, Any]:
        return asdict(verdict) | {"run_id": self.ledger.run_id}

    def _check_item(self, item_id: str) -> None:
        if item_id not in self._item_ids:
            raise ValueError(f"the audit in {self.folder} has no row {item_id!r}")

    def _check_label(self, label: AuditLabel) -> None:
        self._check_item(label.item_id)
        if label.label is not None and label.label not in self.kind.labels:
            expected = ", ".join(self.kind.labels)
            raise ValueError(f"a label is one of {expected}, not {label.label!r}")
        if not label.annotator.strip():
            raise ValueError(f"the label on {label.item_id} has no annotator: say who gave it")


def utc_now() -> str:
    """The time as labels record it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _item_row(item: AuditItem) -> dict[str, Any]:
    names = [name.strip() for name in _ITEM_COLUMNS.split(",")]
    return {name: getattr(item, name) for name in names} | {
        "question_id": item.question.question_id
    }


def _verdict(
    row: tuple[Any, ...], took: dict[str, tuple[float | None, float | None]]
) -> AuditVerdict:
    columns = [name.strip() for name in _VERDICT_COLUMNS.split(",")]
    values = dict(zip(columns, row, strict=True))
    values["call_keys"] = tuple(json.loads(values["call_keys"]))
    parts = [took[key] for key in values["call_keys"] if key in took]
    for name, of_calls in (
        ("seconds", [seconds for seconds, _ in parts]),
        ("cost_usd", [dollars for _, dollars in parts]),
    ):
        if values[name] is None:
            values[name] = _sum_of_known(of_calls)
    return AuditVerdict(**values)


def _sum_of_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
