"""Labels out to CSV and JSON Lines and back in: nothing lost, nothing leaked, all or nothing."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.labelled_audit import HOSTILE, JUDGES_SIDE, make_audit

from cli.config import UsageError
from judges.audits.label.files import COLUMNS, export_labels, import_labels
from judges.audits.store import AuditLabel, AuditStore, Label
from schemas.runs import start_run

pytestmark = pytest.mark.heavy

THEN = "2026-03-01T10:00:00.000+00:00"


@pytest.fixture
def store(tmp_path: Path):
    make_audit(tmp_path / "audit", None, num_rows=4)
    with AuditStore.open(tmp_path / "audit", start_run("label", {})) as opened:
        yield opened


def _add(store: AuditStore, row: int, annotator: str, label: Label, reason: str = "") -> None:
    store.add_label(AuditLabel(f"item-00{row}", annotator, label, reason, THEN, "page"))


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _labels(store: AuditStore) -> set[tuple[str, str, str | None, str, str]]:
    return {
        (one.item_id, one.annotator, one.label, one.reason, one.labelled_at)
        for one in store.labels()
    }


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_what_was_exported_comes_back_into_another_copy_of_the_audit(
    store: AuditStore, tmp_path: Path, name: str
) -> None:
    _add(store, 0, "ann", "sufficient", 'two lines,\n"quoted"; and a comma')
    _add(store, 1, "ann", "insufficient", "=1+1")
    _add(store, 1, "Zoë", "unsure", "'-")
    said = export_labels(store, tmp_path / name, None)
    assert said.endswith("4 rows, 3 labels")
    make_audit(tmp_path / "copy", None, num_rows=4)
    with AuditStore.open(tmp_path / "copy", start_run("label", {})) as copy:
        done = import_labels(copy, tmp_path / name, None, may_replace=False)
        assert "3 new labels, 0 replaced, 0 there already, 2 lines without a label" in done
        assert _labels(copy) == _labels(store)
        assert {one.origin for one in copy.labels()} == {f"file:{name}"}


@pytest.mark.parametrize("name", ["sheet.csv", "sheet.jsonl"])
def test_a_sheet_for_one_person_has_each_row_once_and_nobody_elses_labels(
    store: AuditStore, tmp_path: Path, name: str
) -> None:
    _add(store, 0, "ann", "sufficient", "hers")
    _add(store, 1, "bob", "insufficient", "his")
    export_labels(store, tmp_path / name, "ann")
    rows = _rows(tmp_path / name)
    assert [row["item_id"] for row in rows] == [f"item-00{row}" for row in range(4)]
    assert [row["label"] for row in rows] == ["sufficient", "", "", ""]
    assert {row["annotator"] for row in rows} == {"ann"}
    assert list(rows[0]) == list(COLUMNS)
    assert rows[0]["correct_answer"] == "B. The cup stands"


@pytest.mark.parametrize("name", ["blind.csv", "blind.jsonl"])
def test_a_file_tells_nothing_that_the_judge_said(
    store: AuditStore, tmp_path: Path, name: str
) -> None:
    """Bug to catch: writing all fields of a row, its source verdict with them."""
    export_labels(store, tmp_path / name, None)
    text = (tmp_path / name).read_text("utf-8")
    assert "verdict" not in text
    assert not [word for word in JUDGES_SIDE if word in text]
    assert all(cell not in ("yes", "no") for row in _rows(tmp_path / name) for cell in row.values())


def test_no_cell_of_a_csv_is_a_formula_and_reasons_come_back_without_the_quote(
    store: AuditStore, tmp_path: Path
) -> None:
    reasons = ["=HYPERLINK(1)", "+1", "-", "@x", "'=x", "'", "a=b"]
    for number, reason in enumerate(reasons):
        _add(store, 0, f"person {number}", "unsure", reason)
    export_labels(store, tmp_path / "labels.csv", None)
    cells = [cell for row in _rows(tmp_path / "labels.csv") for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    made = make_audit(tmp_path / "copy", None, num_rows=4)
    with AuditStore.open(made, start_run("label", {})) as copy:
        import_labels(copy, tmp_path / "labels.csv", None, may_replace=False)
        assert [one.reason for one in copy.labels()] == reasons


def test_hostile_texts_stay_texts_in_both_forms(store: AuditStore, tmp_path: Path) -> None:
    for name in ("all.csv", "all.jsonl"):
        export_labels(store, tmp_path / name, None)
        assert _rows(tmp_path / name)[1]["observation"] == HOSTILE


def test_an_export_never_replaces_a_file(store: AuditStore, tmp_path: Path) -> None:
    """It may hold the labels of somebody who filled it in."""
    path = tmp_path / "labels.csv"
    path.write_text("somebody's work")
    with pytest.raises(UsageError, match="the file exists"):
        export_labels(store, path, None)
    assert path.read_text() == "somebody's work"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["audit", "labels.csv"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ({"item_id": "item-999", "label": "unsure"}, "no row 'item-999'"),
        ({"item_id": "item-003", "label": "maybe"}, "sufficient, insufficient, unsure"),
        ({"item_id": "item-003", "label": "yes"}, "got 'yes'"),
        ({"item_id": "item-000", "label": "unsure"}, "in line 2 already"),
        ({"item_id": "item-003", "label": "unsure", "annotator": "bob"}, "its author is bob"),
        ({"item_id": "item-003", "label": "unsure", "reason": "x" * 3000}, "3,000 characters"),
        ({"item_id": "item-003", "label": "unsure", "labelled_at": "today"}, "ISO time"),
        ({"item_id": "item-003", "label": "unsure", "labelled_at": "2026-01-01"}, "time zone"),
        (
            {"item_id": "item-003", "label": "unsure", "labelled_at": "0001-01-01T00:00+14:00"},
            "ISO time",
        ),
    ],
)
def test_one_wrong_line_and_nothing_of_the_file_is_stored(
    store: AuditStore, tmp_path: Path, line: dict[str, str], complaint: str
) -> None:
    columns = ("item_id", "label", "reason", "annotator", "labelled_at")
    rows = [{"item_id": "item-000", "label": "sufficient"}, line]
    full = [{name: row.get(name, "") for name in columns} for row in rows]
    path = _write(tmp_path / "labels.csv", full)
    with pytest.raises(UsageError, match=f"nothing was stored.*line 3: .*{complaint}"):
        import_labels(store, path, "ann", may_replace=False)
    assert store.labels(current_only=False) == []


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("x.csv", "item_id|label\nitem-000|unsure\n", "no item_id and no label"),
        ("x.csv", "item_id,label\n", "holds no line"),
        ("x.csv", "item_id,label\nitem-000,unsure,extra\n", "3 columns where the header has 2"),
        ("x.jsonl", '{"item_id": "item-000"}\n', "no label"),
        ("x.jsonl", '{"item_id": "item-000", "label": 1}\n', "should be a text"),
        ("x.jsonl", "[]\n", "expected an object"),
        ("x.jsonl", '{"item_id": \n', "not JSON"),
        ("x.txt", "", "ends neither in .csv nor in .jsonl"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_place(
    store: AuditStore, tmp_path: Path, name: str, content: str, complaint: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=complaint):
        import_labels(store, tmp_path / name, "ann", may_replace=False)


def test_a_missing_file_is_one_sentence(store: AuditStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        import_labels(store, tmp_path / "nowhere.csv", "ann", may_replace=False)


def test_a_label_without_an_author_needs_one_named(store: AuditStore, tmp_path: Path) -> None:
    path = _write(tmp_path / "x.jsonl", [{"item_id": "item-000", "label": "S"}])
    with pytest.raises(UsageError, match="--annotator NAME"):
        import_labels(store, path, None, may_replace=False)
    import_labels(store, path, "ann", may_replace=False)
    assert [(one.annotator, one.label) for one in store.labels()] == [("ann", "sufficient")]


def test_importing_twice_stores_once(store: AuditStore, tmp_path: Path) -> None:
    path = _write(tmp_path / "x.csv", [{"item_id": "item-000", "label": "insufficient"}])
    import_labels(store, path, "ann", may_replace=False)
    assert "1 there already" in import_labels(store, path, "ann", may_replace=False)
    assert len(store.labels(current_only=False)) == 1


def test_another_label_of_the_same_person_is_replaced_only_when_asked_to(
    store: AuditStore, tmp_path: Path
) -> None:
    _add(store, 0, "ann", "sufficient")
    _add(store, 0, "bob", "sufficient")
    path = _write(tmp_path / "x.csv", [{"item_id": "item-000", "label": "insufficient"}])
    with pytest.raises(UsageError, match=r"ann has said sufficient .*--replace"):
        import_labels(store, path, "ann", may_replace=False)
    assert "1 replaced" in import_labels(store, path, "ann", may_replace=True)
    current = {(one.annotator, one.label) for one in store.labels()}
    assert current == {("ann", "insufficient"), ("bob", "sufficient")}
    assert len(store.labels(current_only=False)) == 3


def test_a_label_that_was_changed_in_an_exported_file_has_a_time_of_its_own(
    store: AuditStore, tmp_path: Path
) -> None:
    _add(store, 0, "ann", "sufficient")
    export_labels(store, tmp_path / "old.csv", None)
    rows = [
        row | {"label": "unsure"} if row["label"] else row for row in _rows(tmp_path / "old.csv")
    ]
    import_labels(store, _write(tmp_path / "new.csv", rows), None, may_replace=True)
    (label,) = store.labels()
    assert label.label == "unsure"
    assert label.labelled_at > THEN


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('item_id,label,reason\nitem-000,S,"not closed\nitem-001,S,x\n', "line 2: not CSV"),
        ("item_id,label,label\nitem-000,S,I\n", "column 'label' twice"),
    ],
)
def test_a_table_that_would_lose_labels_is_refused(
    store: AuditStore, tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UsageError, match=told):
        import_labels(store, tmp_path / "labels.csv", "ann", may_replace=False)
    assert not store.labels()
