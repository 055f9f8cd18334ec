"""The call cache: what ended is not asked again, queued rows count, failures can be forgotten."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from helpers.ledger_rows import a_question, a_run, accept, attempt_row, call_row

from schemas.ledger.ledger import Ledger, OpenBatch
from schemas.ledger.rows import BatchRow
from schemas.samples import CALL_ERRORS, MEDIA_ERRORS, Reason, Rejection, Step


def test_a_reply_is_found_while_it_is_queued_and_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "cot.duckdb"
    row = call_row("a", reply="yes, ü", request_id="req-1", cache_write_tokens=4)
    with Ledger.open(path, a_run(0)) as ledger:
        assert ledger.cached_reply("a") is None
        # Nothing is committed while this statement holds the writer's transaction up: a queue of
        # rows before the call makes sure that the look-up comes first.
        ledger.add_questions(a_question(number) for number in range(400))
        ledger.add_call(row)
        queued = ledger.cached_reply("a")
        ledger.flush()
        committed = ledger.cached_reply("a")
    with Ledger.open(path, a_run(1)) as ledger:
        reopened = ledger.cached_reply("a")
    assert queued == committed == reopened
    assert queued is not None
    assert queued.is_ok
    assert (queued.reply, queued.stop_reason, queued.model) == ("yes, ü", "end", "m")
    assert (queued.input_tokens, queued.output_tokens) == (10, 3)
    assert (queued.cache_write_tokens, queued.request_id, queued.error) == (4, "req-1", "")


def test_a_ledger_closes_after_a_reply_was_looked_up_and_a_row_replaced(tmp_path: Path) -> None:
    """A resumed run does both; an unfinished look-up would keep the file from being closed."""
    path = tmp_path / "cot.duckdb"
    for number in range(2):
        with Ledger.open(path, a_run(number)) as ledger:
            ledger.add_question(a_question(0))
            ledger.add_attempt(attempt_row(a_question(0).question_id))
            ledger.add_call(call_row("a")) if number == 0 else ledger.cached_reply("a")
            ledger.add_attempt(attempt_row(a_question(0).question_id))


class CountingCursor:
    """A cursor of the file that counts what is asked of it."""

    def __init__(self, ledger: Ledger) -> None:
        self.asked = 0
        self._cursor = ledger._cursor

    def execute(self, *arguments: Any) -> Any:
        self.asked += 1
        return self._cursor.execute(*arguments)


def test_a_row_that_is_looked_up_again_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the texts of what was looked up are too long, the oldest first."""
    monkeypatch.setattr("schemas.ledger.call_cache._KEPT_CHARACTERS", 2_500)
    with Ledger.open(tmp_path / "cot.duckdb", a_run(0)) as ledger:
        for key in "abc":
            ledger.add_call(call_row(key, reply=key * 500))
        ledger.flush()
        cursor = CountingCursor(ledger)

        def look_up(key: str) -> int:
            """How often the file was asked."""
            before = cursor.asked
            found = ledger._calls.find(key, ledger._writer.committed, cursor)  # type: ignore[arg-type]
            assert found is not None
            assert found.reply == key * 500
            return cursor.asked - before

        assert [look_up(key) for key in "aabab"] == [1, 0, 1, 0, 0]
        assert [look_up(key) for key in "cba"] == [1, 0, 1]  # room for two: a was the oldest


def test_a_failure_that_was_looked_up_and_then_forgotten_is_forgotten(ledger: Ledger) -> None:
    ledger.add_call(call_row("a", "failed", is_final=True, error="gone"))
    ledger.flush()
    assert ledger.cached_reply("a") is not None
    assert ledger.cached_reply("a") is not None
    ledger.forget_failed_calls(["a"])
    assert ledger.cached_reply("a") is None
    ledger.add_call(call_row("a", attempt=1, reply="at last"))
    ledger.flush()
    found = ledger.cached_reply("a")
    assert found is not None
    assert found.reply == "at last"


def test_only_final_attempts_answer(ledger: Ledger) -> None:
    ledger.add_call(call_row("a", "truncated", attempt=0, is_final=False))
    ledger.flush()
    assert ledger.cached_reply("a") is None
    ledger.add_call(call_row("a", "truncated", attempt=1, is_final=False))
    ledger.add_call(call_row("a", "refused", attempt=2, is_final=True, error="will not say"))
    for _ in range(2):
        found = ledger.cached_reply("a")
        assert found is not None
        assert not found.is_ok
        assert (found.status, found.error) == ("refused", "will not say")
        ledger.flush()
    assert ledger.query("SELECT count(*) FROM calls") == [(3,)]


def test_a_miss_touches_nothing_on_disk(ledger: Ledger) -> None:
    for number in range(2000):
        ledger.add_call(call_row(f"call-{number}"))
    ledger.flush()
    started = time.process_time()
    for number in range(10_000):
        assert ledger.cached_reply(f"other-{number}") is None
    per_miss = (time.process_time() - started) / 10_000
    assert per_miss < 100e-6  # about 1 us on an idle machine; a query would take 1,000


def test_replies_wait_in_memory_only_until_they_are_committed(ledger: Ledger) -> None:
    for number in range(50):
        ledger.add_call(call_row(f"call-{number}", reply="x" * 1000))
    ledger.flush()
    ledger.add_call(call_row("last"))
    assert len(ledger._calls._fresh) == 1


def test_forgotten_failures_are_asked_again_and_stay_paid(tmp_path: Path) -> None:
    path = tmp_path / "cot.duckdb"
    failed, lost, refused, low, taken = (a_question(row) for row in range(5))
    with Ledger.open(path, a_run(0)) as ledger:
        accept(ledger, taken)
        for question in (failed, lost, refused, low):
            ledger.add_question(question)
        ledger.add_call(call_row("f", "failed", is_final=True, question_id=failed.question_id))
        ledger.add_call(call_row("r", "refused", is_final=True, question_id=refused.question_id))
        ledger.add_call(call_row("l", question_id=low.question_id))
        ledger.add_attempt(attempt_row(failed.question_id))
        for question, step, reason in (
            (failed, Step.FILTER, Reason.CALL_FAILED),
            (lost, Step.MEDIA, Reason.MISSING_FILE),
            (refused, Step.GENERATE, Reason.REFUSED),
            (low, Step.VERIFY, Reason.LOW_SCORE),
        ):
            ledger.add_rejection(question.question_id, Rejection(step, reason))
        assert ledger.forget_failures(MEDIA_ERRORS | {Reason.CALL_FAILED}) == 2
        assert ledger.cached_reply("f") is None
        kept = ledger.cached_reply("r")
        assert kept is not None
        assert kept.status == "refused"
        assert ledger.finished_question_ids() == {
            question.question_id for question in (refused, low, taken)
        }
        assert ledger.query("SELECT count(*) FROM attempts") == [(1,)]  # the accepted one
        assert sum(row.calls for row in ledger.spend()) == 5
        # the same run ends a forgotten question again
        assert ledger.add_rejection(lost.question_id, Rejection(Step.MEDIA, Reason.EMPTY_FILE))
    with Ledger.open(path, a_run(1)) as ledger:
        assert ledger.cached_reply("f") is None
        assert ledger.forget_failures(CALL_ERRORS) == 1
        assert ledger.cached_reply("r") is None
        found = ledger.cached_reply("l")
        assert found is not None
        assert found.is_ok
        ledger.add_call(call_row("f", question_id=failed.question_id))
        answered = ledger.cached_reply("f")
        assert answered is not None
        assert answered.is_ok
        assert ledger.add_rejection(failed.question_id, Rejection(Step.VERIFY, Reason.LOW_SCORE))
        assert ledger.query("SELECT count(*) FROM calls WHERE call_key = 'f'") == [(2,)]
        assert ledger.verify() == []


def test_a_failure_without_its_rejection_is_forgotten_too(ledger: Ledger) -> None:
    """A kill can fall between the failed call and the rejection that follows from it."""
    ledger.add_call(call_row("a", "failed", is_final=True, question_id="q"))
    assert ledger.forget_failures({Reason.CALL_FAILED}) == 0
    assert ledger.cached_reply("a") is None


def test_a_batch_and_its_requests_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "cot.duckdb"
    created = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    row = BatchRow(
        intent_id="intent-1",
        provider="claude",
        model="m",
        endpoint="https://api",
        created_at=created,
        status="intended",
    )
    with Ledger.open(path, a_run(0)) as ledger:
        ledger.add_batch(row, ["c", "a", "b"])
        ledger.add_batch(replace(row, intent_id="intent-2"), ["z"])
        ledger.finish_batch_requests("intent-2", ["z"])
    with Ledger.open(path, a_run(1)) as ledger:
        assert ledger.open_batches() == [
            OpenBatch(
                "intent-1", "claude", "m", "https://api", None, created, "intended", ("a", "b", "c")
            )
        ]
        ledger.update_batch("intent-1", batch_id="batch-9")
        ledger.update_batch("intent-1", status="submitted")
        ledger.finish_batch_requests("intent-1", ["a"])
        (batch,) = ledger.open_batches()
        assert (batch.batch_id, batch.status) == ("batch-9", "submitted")
        assert batch.custom_ids == ("b", "c")
        ledger.finish_batch_requests("intent-1", ["b", "c"])
        assert ledger.open_batches() == []
        assert ledger.verify() == []
