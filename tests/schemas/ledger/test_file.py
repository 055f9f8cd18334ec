"""Opening a ledger: locks, files that are none, rights, and the migrations of its schema."""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from helpers.folders import TESTS
from helpers.ledger_rows import ColouredCall, a_question, a_run, accept, call_row

from schemas.ledger.ledger import Ledger, LedgerError, LedgerLockedError, LedgerVersionError
from schemas.ledger.migrations import MIGRATIONS, Migration
from schemas.ledger.tables import WRITTEN_TABLES
from schemas.samples import Reason, Rejection, Step

HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from helpers.ledger_rows import a_run
from schemas.ledger.ledger import Ledger
with Ledger.open(Path(sys.argv[1]), a_run()):
    print("open", flush=True)
    sys.stdin.read()
"""
NOBODY = 65534
NEXT = Migration(
    len(MIGRATIONS) + 1,
    "calls_have_a_colour",
    "ALTER TABLE calls ADD COLUMN colour VARCHAR; UPDATE calls SET colour = 'grey';"
    "CREATE VIEW colours AS SELECT colour, count(*) AS count FROM calls GROUP BY colour",
)


class FirstLedger(Ledger):
    """What the first release wrote: there were no text readers."""

    written_tables = tuple(name for name in WRITTEN_TABLES if not name.startswith("reader_"))


def test_a_ledger_held_by_another_process_says_whom_to_ask(tmp_path: Path) -> None:
    path = tmp_path / "out" / "cot.duckdb"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(TESTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(LedgerLockedError) as refused:
        Ledger.open(path, a_run())
    assert f"`python -m pipeline.status {path.parent}`" in str(refused.value)
    assert "progress.json" in str(refused.value)
    holder.stdin.close()
    assert holder.wait(timeout=30) == 0
    Ledger.open(path, a_run(1)).close()


def test_one_process_opens_a_ledger_once(tmp_path: Path) -> None:
    path = tmp_path / "cot.duckdb"
    with Ledger.open(path, a_run(0)):
        with pytest.raises(LedgerLockedError, match="already open in this process"):
            Ledger.open(tmp_path / "." / "cot.duckdb", a_run(1))
        with Ledger.open(tmp_path / "other.duckdb", a_run(1)):
            pass
    Ledger.open(path, a_run(1)).close()


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\x00" + bytes(100)])
def test_a_file_that_is_no_duckdb_file_is_refused_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "cot.duckdb"
    path.write_bytes(content)
    for _ in range(2):  # a refused file is not held
        with pytest.raises(LedgerError, match="is not a ledger"):
            Ledger.open(path, a_run())
    assert path.read_bytes() == content
    assert [found.name for found in tmp_path.iterdir()] == ["cot.duckdb"]


def test_somebody_elses_duckdb_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cot.duckdb"
    with duckdb.connect(str(path)) as other:
        other.execute("CREATE TABLE customers (name VARCHAR)")
    with pytest.raises(LedgerError, match=r"not a ledger \(it holds \['customers'\]\)"):
        Ledger.open(path, a_run())
    with duckdb.connect(str(path)) as other:
        assert other.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [
            ("customers",)
        ]


def test_a_torn_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "cot.duckdb"
    with Ledger.open(path, a_run()) as ledger:
        accept(ledger, a_question(0))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(LedgerError, match="cannot be opened") as refused:
        Ledger.open(path, a_run())
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="is a folder"):
        Ledger.open(tmp_path, a_run())
    (tmp_path / "file").write_text("x")
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger.open(tmp_path / "file" / "cot.duckdb", a_run())


def test_a_path_with_a_quote_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "it's; DROP" / "cot.duckdb"
    Ledger.open(path, a_run()).close()
    assert path.is_file()


@pytest.fixture
def folder_for_all() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "out"
        folder.mkdir()
        Path(name).chmod(0o755)
        yield folder
        folder.chmod(0o755)


def test_a_read_only_folder_is_one_sentence(folder_for_all: Path) -> None:
    path = folder_for_all / "cot.duckdb"
    Ledger.open(path, a_run()).close()
    folder_for_all.chmod(0o555)
    path.chmod(0o444)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)  # root may write anywhere
    try:
        for name in ("cot.duckdb", "new.duckdb"):
            with pytest.raises(LedgerError, match="out is read-only, and a ledger is written to"):
                Ledger.open(folder_for_all / name, a_run())
        with pytest.raises(LedgerError, match=r"cannot be opened .Permission denied"):
            Ledger.open(folder_for_all / "sub" / "cot.duckdb", a_run())
    finally:
        if is_root:
            os.seteuid(0)


def test_the_oldest_schema_is_upgraded_with_its_rows(tmp_path: Path) -> None:
    """A second migration that only this test knows adds a column, fills it, and adds a view."""
    path = tmp_path / "cot.duckdb"
    with FirstLedger.open(path, a_run(0), migrations=MIGRATIONS[:1]) as ledger:
        accept(ledger, a_question(0))
        ledger.add_question(a_question(1))
        ledger.add_rejection(a_question(1).question_id, Rejection(Step.VERIFY, Reason.LOW_SCORE))
    with Ledger.open(path, a_run(1), migrations=(*MIGRATIONS, NEXT)) as ledger:
        assert ledger.query("SELECT colour, count FROM colours") == [("grey", 2)]
        ledger.add_call(ColouredCall(**vars(call_row("new")), colour="red"))
        assert ledger.query("SELECT colour FROM calls WHERE call_key = 'new'") == [("red",)]
        assert [sample.question for sample in ledger.samples()] == [a_question(0)]
        assert [sample.answerable_blind for sample in ledger.samples()] == [None]
        assert ledger.verify(is_finished=True) == []
        recorded = ledger.query("SELECT number, name FROM schema_migrations ORDER BY number")
        assert recorded == [(m.number, m.name) for m in (*MIGRATIONS, NEXT)]
    with Ledger.open(path, a_run(2), migrations=(*MIGRATIONS, NEXT)) as ledger:
        assert ledger.query("SELECT count(*) FROM schema_migrations") == [(len(MIGRATIONS) + 1,)]


def test_a_failing_migration_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "cot.duckdb"
    with Ledger.open(path, a_run(0)) as ledger:
        accept(ledger, a_question(0))
    broken = replace(NEXT, sql="ALTER TABLE calls ADD COLUMN colour VARCHAR; SELECT nonsense")
    with pytest.raises(LedgerError, match="nonsense"):
        Ledger.open(path, a_run(1), migrations=(*MIGRATIONS, broken))
    with Ledger.open(path, a_run(2)) as ledger:
        assert "colour" not in str(ledger.query("SELECT column_name FROM duckdb_columns()"))
        assert len(list(ledger.samples())) == 1


def test_a_newer_ledger_and_another_history_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cot.duckdb"
    Ledger.open(path, a_run(0), migrations=(*MIGRATIONS, NEXT)).close()
    number = len(MIGRATIONS)
    with pytest.raises(
        LedgerVersionError, match=f"version {number + 1}, newer than this program's {number}"
    ):
        Ledger.open(path, a_run(1))
    with pytest.raises(LedgerVersionError, match="made by other migrations"):
        Ledger.open(path, a_run(1), migrations=(*MIGRATIONS, replace(NEXT, name="other")))


def test_migrations_are_numbered_in_their_order() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_importing_the_ledger_does_not_import_duckdb() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import schemas.ledger.ledger, sys; print('duckdb' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


@pytest.mark.heavy
def test_memory_follows_the_length_of_the_texts(tmp_path: Path) -> None:
    """2,048 rows are read at a time, whatever is in them: 150 MB here, and again after opening."""
    path = tmp_path / "cot.duckdb"
    count_characters = "SELECT sum(length(reply)) FROM calls"
    with Ledger.open(path, a_run()) as ledger:
        for number in range(500):
            text = random.Random(number).randbytes(150_000).hex()
            ledger.add_call(call_row(f"call-{number}", reply=text))
        assert ledger.query(count_characters) == [(500 * 300_000,)]
    with Ledger.open(path, a_run(1)) as ledger:
        assert ledger.query(count_characters) == [(500 * 300_000,)]
        assert len(ledger.cached_reply("call-7").reply) == 300_000  # type: ignore[union-attr]


def test_memory_stays_small_for_rows_of_usual_size(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "cot.duckdb", a_run()) as ledger:
        for number in range(300):
            ledger.add_call(call_row(f"call-{number}", reply="x" * 10_000))
        ledger.flush()
        limit = "SELECT value FROM duckdb_settings() WHERE name = 'memory_limit'"
        assert ledger.query(limit) == [("244.1 MiB",)]
