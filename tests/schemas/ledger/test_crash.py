"""kill -9 at random moments: nothing that was reported committed is lost, nothing is doubled."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.folders import TESTS
from helpers.ledger_rows import a_run

from schemas.ledger.ledger import Ledger

pytestmark = pytest.mark.heavy

WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from helpers.ledger_rows import a_question, a_run, accept, call_row
from schemas.ledger.ledger import Ledger
run, first = int(sys.argv[2]), 0
with Ledger.open(Path(sys.argv[1]), a_run(run)) as ledger:
    ledger.discard_unfinished()
    numbers = ledger.query("SELECT coalesce(max(CAST(request_id AS INTEGER)) + 1, 0) FROM calls"
                           " WHERE request_id <> ''")
    number = numbers[0][0]
    reported = 0
    while True:
        # a numbered row, then a whole question, whose rows are of six tables
        ledger.add_call(call_row(f"numbered-{number}", request_id=str(number), reply="x" * 3000))
        accept(ledger, a_question(number))
        number += 1
        if number % 7 == 0:
            ledger.flush()
            print(number - 1, flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_prefix_with_all_that_was_reported_committed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cot.duckdb"
    moments = random.Random(5)
    reported = -1
    for run in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path), str(run), str(TESTS)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        first = writer.stdout.readline()  # the kill falls into the writing, not into the start
        assert first, "the writer ended by itself"
        time.sleep(moments.uniform(0, 0.4))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        lines = (first + writer.stdout.read()).splitlines(keepends=True)
        reported = max(int(line) for line in lines if line.endswith("\n"))
        with Ledger.open(path, a_run(100 + run)) as ledger:
            stored = [
                number
                for (number,) in ledger.query(
                    "SELECT CAST(request_id AS INTEGER) FROM calls WHERE request_id <> ''"
                    " ORDER BY rowid"
                )
            ]
            assert stored == list(range(len(stored))), "no prefix, or a row twice"
            assert stored[-1] >= reported, "a row that was reported committed is gone"
            # The rows of one question are queued in order too: only the last one may be cut off.
            assert len(list(ledger.samples())) >= len(stored) - 1
            assert ledger.verify() == []
    assert reported > 50
