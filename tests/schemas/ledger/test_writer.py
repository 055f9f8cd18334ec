"""How rows get into the ledger: refused at the door, soon, in order, redacted, none lost."""

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers.ledger_rows import (
    ColouredCall,
    a_question,
    a_run,
    accept,
    call_row,
)

from schemas.ledger.ledger import Ledger, LedgerWriteError
from schemas.ledger.rows import MediaRow
from schemas.samples import CALL_ERRORS, Reason, Rejection, Step


def test_rows_are_committed_soon_without_anybody_asking(ledger: Ledger) -> None:
    """Half a second is the promise, a quarter the aim; the median forgives a busy machine."""
    ledger.flush()
    delays = []
    for _ in range(5):
        before = ledger._writer.committed
        started = time.monotonic()
        ledger.add_call(call_row("x", "empty", is_final=False))
        while ledger._writer.committed == before:
            assert time.monotonic() - started < 5, "queued, and never committed"
            time.sleep(0.002)
        delays.append(time.monotonic() - started)
    assert sorted(delays)[2] < 0.5


def test_rows_are_stored_in_the_order_they_were_queued(ledger: Ledger) -> None:
    """A prefix is all that a kill may leave, so a later row must never overtake."""
    for number in range(3000):
        ledger.add_call(call_row(f"{number}"))
    stored = ledger.query("SELECT call_key FROM calls ORDER BY rowid")
    assert [key for (key,) in stored] == [f"{number}" for number in range(3000)]


def test_many_threads_may_write_and_nothing_is_lost(ledger: Ledger) -> None:
    def write(number: int) -> None:
        for i in range(300):
            ledger.add_call(call_row(f"{number}-{i}"))
            assert ledger.cached_reply(f"{number}-{i}") is not None

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.query("SELECT count(DISTINCT call_key), count(*) FROM calls") == [(1200, 1200)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"input_tokens": "3"}, r"calls\.input_tokens takes an integer .* not '3'"),
        ({"input_tokens": 2**63}, r"calls\.input_tokens takes an integer of at most 64 bits"),
        ({"batch": 1}, r"calls\.batch takes True or False, not 1"),
        ({"call_key": None}, r"calls\.call_key is missing"),
        ({"finished_at": datetime(2026, 1, 1)}, "takes a time with its zone"),
        ({"status": "fine"}, "status is one of"),
        ({"status": "failed"}, "needs is_final"),
        ({"is_final": False}, "an ok call row is final"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_at_the_door(
    ledger: Ledger, row: dict, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ledger.add_call(call_row("a", **row))
    ledger.add_call(call_row("b"))  # and the writer goes on
    assert ledger.query("SELECT call_key FROM calls") == [("b",)]


def test_a_column_that_the_file_has_not_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match=r"calls has no column \['colour'\]"):
        ledger.add_call(ColouredCall(**vars(call_row("a")), colour="red"))
    ledger.add_call(call_row("b"))
    assert ledger.query("SELECT call_key FROM calls") == [("b",)]


def test_times_are_stored_in_utc_and_json_columns_hold_json(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "cot.duckdb", a_run(0, threshold=0.6, words=["é"])) as ledger:
        ledger.add_call(call_row("a", finished_at="2026-01-01T12:00:00+02:00"))
        assert ledger.query("SELECT finished_at FROM calls") == [(datetime(2026, 1, 1, 10),)]
        ledger.add_question(a_question(0))
        ((options, media, clues),) = ledger.query(
            "SELECT options, media, time_clues FROM questions"
        )
        assert json.loads(options) == ["A. a fall", "B. a “jump” — é"]
        assert json.loads(media) == [{"kind": "video", "path": "clips/0.mp4"}]
        assert json.loads(clues) == [[0.5, 1.25]]
        ledger.end_run(1)
    with Ledger.open(tmp_path / "cot.duckdb", a_run(1)) as ledger:
        assert ledger.run_configs() == [{"threshold": 0.6, "words": ["é"]}]
        ((status, ended),) = ledger.query(
            "SELECT exit_status, ended_at FROM runs WHERE run_id = 'run-0'"
        )
        assert status == 1
        assert abs((datetime.now(UTC).replace(tzinfo=None) - ended).total_seconds()) < 60


def test_text_that_is_no_text_costs_a_character_and_not_the_run(ledger: Ledger) -> None:
    ledger.add_call(call_row("a", reply="half \ud83d of a pair, and \x00"))
    ledger.flush()
    stored = ledger.cached_reply("a")
    assert stored is not None
    assert stored.reply == "half \ufffd of a pair, and \x00"


def test_no_key_is_stored(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2-hunter2")
    ledger.add_call(
        call_row(
            "a",
            "rejected",
            is_final=True,
            error="bad key hunter2-hunter2",
            endpoint="http://u:p@h/",
        )
    )
    ledger.add_rejection("q", Rejection(Step.GENERATE, Reason.BAD_REQUEST, "hunter2-hunter2?"))
    assert ledger.query("SELECT error, endpoint FROM calls") == [
        ("bad key [redacted]", "http://[redacted]@h/")
    ]
    ledger.close()
    assert b"hunter2" not in (tmp_path / "cot.duckdb").read_bytes()


def test_a_failure_of_the_writer_reaches_the_next_call_and_the_closing_one(tmp_path: Path) -> None:
    path = tmp_path / "cot.duckdb"
    ledger = Ledger.open(path, a_run(0))
    ledger.add_question(a_question(0))
    ledger.flush()
    ledger.query("DROP TABLE media")
    ledger.add_media(MediaRow(path="a", kind="video", media_id="m", frame_spec_id="f"))
    with pytest.raises(LedgerWriteError, match=r"cot\.duckdb failed: .*media.*committed before is"):
        ledger.flush()
    with pytest.raises(LedgerWriteError):
        ledger.add_question(a_question(1))
    with pytest.raises(LedgerWriteError):
        ledger.funnel()
    with pytest.raises(LedgerWriteError):
        ledger.close()
    ledger.close()


def test_a_closed_ledger_takes_no_rows(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "cot.duckdb", a_run())
    ledger.close()
    with pytest.raises(LedgerWriteError, match="closed"):
        ledger.add_question(a_question(0))


def test_a_checkpoint_leaves_one_file(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "cot.duckdb", a_run()) as ledger:
        accept(ledger, a_question(0))
    assert [path.name for path in tmp_path.iterdir()] == ["cot.duckdb"]


def test_every_call_error_has_its_call_status() -> None:
    from schemas.ledger.call_cache import STATUS_OF_REASON, STATUSES

    assert set(STATUS_OF_REASON) == CALL_ERRORS
    assert set(STATUS_OF_REASON.values()) == STATUSES - {"ok"}
