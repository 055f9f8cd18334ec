"""Labels to and from files, CSV or JSON Lines by their name, for people who label elsewhere.

A file has one line per row of the audit and annotator. Only `item_id`, `label`, `reason`,
`annotator` and `labelled_at` are read back, the rest is there to be read by a person. Judges'
verdicts are never written. An import stores all labels or none.
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cli.config import UsageError
from judges.audits.label.queue import LabelBook, annotator_name, checked_reason
from judges.audits.stated_answers import refuse_without_answer
from judges.audits.store import AuditItem, AuditLabel, AuditStore, utc_now
from judges.sufficiency import correct_answer_text
from schemas.annotations.records import BadRecord, Record, read_records

COLUMNS = (
    "row",
    "item_id",
    "media",
    "problem_type",
    "question",
    "options",
    "correct_answer",
    "observation",
    "label",
    "reason",
    "annotator",
    "labelled_at",
)
_NEEDED = ("item_id", "label")
_READ_BACK = ("item_id", "label", "reason", "annotator", "labelled_at")
_SHOWN_COMPLAINTS = 5
# A spreadsheet runs a cell that begins so as a formula; a quote in front makes it text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export_labels(store: AuditStore, path: Path, annotator: str | None) -> str:
    """Write the rows with their labels to a new file; returns what was done, as a sentence.

    With an `annotator` each row once, with that person's label or none; without one each label
    of anybody, and the rows that nobody labelled.
    """
    layout = _layout(path)
    book = LabelBook(store)
    records = list(_records(book, annotator))
    text = _as_csv(records) if layout == "csv" else _as_lines(records)
    _write_new(path, text)
    given = sum(1 for record in records if record["label"])
    return f"{path}: {len(book.items)} rows, {given} labels"


def import_labels(
    store: AuditStore, path: Path, annotator: str | None, *, may_replace: bool
) -> str:
    """Store the labels of a file, all or none; returns what was done, as a sentence.

    `annotator` is who gave them where the file does not say. Lines without a label are skipped,
    labels that are there already are not stored again. A label that differs from the same person's
    on the same row is refused unless `may_replace`.
    """
    book = LabelBook(store)
    reader = _Reader(book, annotator, path, may_replace=may_replace)
    try:
        for record in read_records(path, _layout(path)):
            reader.take(record)
    except OSError as error:
        raise UsageError(f"--import {path} cannot be read ({error.strerror})") from None
    if reader.complaints:
        shown = "; ".join(reader.complaints[:_SHOWN_COMPLAINTS])
        more = len(reader.complaints) - _SHOWN_COMPLAINTS
        raise UsageError(
            f"--import {path}: nothing was stored, because of {shown}"
            f"{f'; and {more} more lines' if more > 0 else ''}"
        )
    if not reader.counts.total():
        raise UsageError(f"--import {path} holds no line: give a file that --export wrote")
    store.add_labels(reader.labels)
    counts = reader.counts
    return (
        f"{path}: {counts['new']} new labels, {counts['replaced']} replaced, "
        f"{counts['same']} there already, {counts['empty']} lines without a label"
    )


def _layout(path: Path) -> Literal["csv", "lines"]:
    match path.suffix.lower():
        case ".csv":
            return "csv"
        case ".jsonl":
            return "lines"
    raise UsageError(f"{path} ends neither in .csv nor in .jsonl: its name says how it is written")


def _records(book: LabelBook, annotator: str | None) -> Iterator[dict[str, Any]]:
    names = [annotator] if annotator is not None else list(book.counts())
    labels = {name: book.labels(name) for name in names}
    for row, item in enumerate(book.items):
        given = [labels[name].get(item.item_id) for name in names]
        labels_here = [label for label in given if label is not None]
        for label in labels_here or (None,):
            shown = correct_answer_text(item.question) if book.kind.answer_title else ""
            yield _record(row, item, label, annotator or "", shown)


def _record(
    row: int, item: AuditItem, label: AuditLabel | None, annotator: str, answer: str
) -> dict[str, Any]:
    question = item.question
    return {
        "row": row + 1,
        "item_id": item.item_id,
        "media": [ref.path for ref in question.media],
        "problem_type": question.problem_type.value,
        "question": question.problem,
        "options": list(question.options),
        "correct_answer": answer,
        "observation": item.observation,
        "label": (label and label.label) or "",
        "reason": label.reason if label else "",
        "annotator": label.annotator if label else annotator,
        "labelled_at": label.labelled_at if label else "",
    }


def _as_csv(records: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        cells = {
            name: "\n".join(value) if isinstance(value, list) else str(value)
            for name, value in record.items()
        }
        writer.writerow(
            {
                name: f"'{cell}" if cell.startswith((*_FORMULA, "'")) else cell
                for name, cell in cells.items()
            }
        )
    return "\ufeff" + text.getvalue()  # spreadsheets take a CSV without the mark for Latin-1


def _as_lines(records: Iterable[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)


def _write_new(path: Path, text: str) -> None:
    """The whole file or none; a file that is there may hold somebody's work."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        try:
            os.link(temporary, path)
        finally:
            temporary.unlink()
    except FileExistsError:
        raise UsageError(f"--export {path}: the file exists; give a new name") from None
    except OSError as error:
        raise UsageError(
            f"--export {path} cannot be written ({error.strerror}); give a path in a folder that "
            "you may write to"
        ) from None


@dataclass(frozen=True)
class _Line:
    """What a file says of one row: the cells that are read back, all texts."""

    item_id: str
    label: str
    reason: str
    annotator: str
    labelled_at: str


class _Reader:
    """Checks a file line by line and gathers its labels, its complaints, and what was counted."""

    def __init__(
        self, book: LabelBook, annotator: str | None, path: Path, *, may_replace: bool
    ) -> None:
        self._book = book
        self._annotator = annotator
        self._origin = f"file:{path.name}"
        self._is_csv = _layout(path) == "csv"
        self._may_replace = may_replace
        self._lines_of: dict[tuple[str, str], int] = {}
        self._now = utc_now()
        self.labels: list[AuditLabel] = []
        self.complaints: list[str] = []
        self.counts: Counter[str] = Counter()

    def take(self, record: Record | BadRecord) -> None:
        """One line of the file."""
        try:
            if isinstance(record, BadRecord):
                raise ValueError(record.detail)
            self._take(_line(record.value, self._is_csv), record.line)
        except ValueError as error:
            self.complaints.append(f"line {record.line}: {error}")

    def _take(self, line: _Line, number: int) -> None:
        if not line.label:
            self.counts["empty"] += 1
            return
        label = self._label(line)
        key = (label.item_id, label.annotator)
        if key in self._lines_of:
            raise ValueError(
                f"{label.annotator} has labelled this row in line {self._lines_of[key]} already"
            )
        self._lines_of[key] = number
        before = self._book.labels(label.annotator).get(label.item_id)
        if before is not None and (before.label, before.reason) == (label.label, label.reason):
            self.counts["same"] += 1
            return
        if before is not None and not self._may_replace:
            raise ValueError(
                f"{label.annotator} has said {before.label} of this row before and now says "
                f"{label.label} (--replace lets the file win)"
            )
        if before is not None and before.labelled_at == label.labelled_at:
            label = replace(label, labelled_at=self._now)  # changed in an exported file
        self.counts["new" if before is None else "replaced"] += 1
        self.labels.append(label)

    def _label(self, line: _Line) -> AuditLabel:
        if line.item_id not in self._book.row_of:
            raise ValueError(f"the audit has no row {line.item_id!r}; is it another audit's file?")
        said = line.label.casefold()
        kind = self._book.kind
        known = next(
            (label for label in kind.labels if said in (label, kind.keys[label].casefold())), None
        )
        reason = line.reason
        if known is None and kind.yes_is_an_answer and not reason:
            known, reason = kind.yes, line.label  # the answer itself in the place of its label
        if known is None:
            raise ValueError(f"expected one of {', '.join(kind.labels)}, got {line.label!r}")
        reason = checked_reason(reason)
        question = self._book.items[self._book.row_of[line.item_id]].question
        refuse_without_answer(kind, question, known, reason)
        return AuditLabel(
            item_id=line.item_id,
            annotator=self._author(line.annotator),
            label=known,
            reason=reason,
            labelled_at=_time(line.labelled_at) if line.labelled_at else self._now,
            origin=self._origin,
        )

    def _author(self, named: str) -> str:
        if not named and self._annotator is None:
            raise ValueError("nobody is named as its author: give --annotator NAME")
        name = annotator_name(named or self._annotator or "")
        if self._annotator is not None and name != self._annotator:
            raise ValueError(
                f"its author is {name}, not {self._annotator}: leave --annotator out to take the "
                "names in the file"
            )
        return name


def _line(value: Any, is_csv: bool) -> _Line:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    missing = [name for name in _NEEDED if name not in value]
    if missing:
        raise ValueError(f"there is no {' and no '.join(missing)}; a file of --export has both")
    cells: dict[str, str] = {}
    for name in _READ_BACK:
        cell = value.get(name)
        if not isinstance(cell, str | None):
            raise ValueError(f"{name} should be a text, not {cell!r}")
        text = (cell or "").strip()
        cells[name] = _without_quote(text) if is_csv else text
    return _Line(**cells)


def _without_quote(cell: str) -> str:
    is_quoted = cell.startswith("'") and cell[1:].startswith((*_FORMULA, "'"))
    return cell[1:] if is_quoted else cell


def _time(text: str) -> str:
    try:
        time = datetime.fromisoformat(text)
        in_utc = time.astimezone(UTC)
    except (ValueError, OverflowError):  # in UTC the year may be 0
        raise ValueError(f"labelled_at should be an ISO time, not {text!r}") from None
    if time.tzinfo is None:
        raise ValueError(f"labelled_at {text!r} has no time zone; in UTC it ends in +00:00")
    return in_utc.isoformat(timespec="milliseconds")
