"""What a running build says of itself: right counts, a file that is never half written."""

import io
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.built_ledger import question
from rich.console import Console

from judges.backends.base import Usage
from judges.backends.calls import CallStats
from pipeline import status
from pipeline.progress import FunnelKey, Progress, funnel_table, headline, row_line
from schemas.samples import CoTSample, Reason, Rejection, Step

LOW = Rejection(Step.VERIFY, Reason.LOW_SCORE, "0.1 is below 0.6")


def progress(out: Path, *, total: int = 10, **options: Any) -> Progress:
    before: Counter[FunnelKey] = Counter({("accepted", "", "street/train", "free-form"): 2})
    defaults: dict[str, Any] = {
        "funnel": before,
        "stats": {"generator": CallStats(4), "judge": CallStats(4)},
        "run_id": "run-1",
        "console": Console(file=io.StringIO(), width=200),
    }
    return Progress(out, total=total, **defaults | options)


def sample(row: int) -> CoTSample:
    return CoTSample(question(row).question_id, 0, "", "", "", "", 1.0, "")


def written(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "progress.json").read_text())
    return content


def test_outcomes_add_to_those_of_earlier_runs(tmp_path: Path) -> None:
    shown = progress(tmp_path)
    shown.outcome(question(1), sample(1))
    shown.outcome(question(3), LOW)
    shown.outcome(question(2), LOW)
    shown.refresh()
    found = written(tmp_path)
    assert (found["questions"], found["settled"], found["accepted"]) == (10, 5, 3)
    assert (found["state"], found["run_id"]) == ("running", "run-1")
    counts = {
        (row["step"], row["reason"], row["data_source"], row["problem_type"]): row["count"]
        for row in found["funnel"]
    }
    assert counts == {
        ("accepted", "", "street/train", "free-form"): 3,
        ("verify", "low_score", "kitchen/train", "free-form"): 1,
        ("verify", "low_score", "street/train", "multiple choice"): 1,
    }


def test_a_build_is_complete_when_every_question_has_its_outcome(tmp_path: Path) -> None:
    shown = progress(tmp_path, total=3)
    assert not shown.is_complete
    shown.outcome(question(3), LOW)
    assert shown.is_complete


def test_the_time_left_follows_from_this_runs_rate_alone(tmp_path: Path) -> None:
    """Questions finished by earlier runs do not count for the rate of this run."""
    shown = progress(tmp_path, total=1002)
    assert shown.snapshot()["eta_seconds"] is None  # no rate yet
    for row in range(10):
        shown.outcome(question(row), LOW)
    found = shown.snapshot()
    expected = 990 / 10 * found["seconds"]  # 990 left, 10 since the start
    assert found["eta_seconds"] == pytest.approx(expected, abs=99 * 0.1)


def test_nothing_left_has_no_time_left(tmp_path: Path) -> None:
    shown = progress(tmp_path, total=3)
    shown.outcome(question(3), LOW)
    assert shown.snapshot()["eta_seconds"] is None


def test_a_run_that_breaks_is_failed_and_one_that_ends_is_what_it_was_told(tmp_path: Path) -> None:
    with progress(tmp_path):
        assert written(tmp_path)["state"] == "running"
    with pytest.raises(ZeroDivisionError), progress(tmp_path):
        raise ZeroDivisionError
    assert written(tmp_path)["state"] == "failed"
    with pytest.raises(KeyboardInterrupt), progress(tmp_path):
        raise KeyboardInterrupt
    assert written(tmp_path)["state"] == "stopped"
    with progress(tmp_path) as shown:
        shown.state = "finished"
    assert written(tmp_path)["state"] == "finished"


def test_a_log_file_gets_lines_and_not_a_table_over_and_over(tmp_path: Path) -> None:
    log = io.StringIO()
    with progress(tmp_path, console=Console(file=log, width=20)) as shown:
        for _ in range(50):
            shown.refresh()
        shown.state, shown.note = "stopped", "the budget is spent"
    first, last = log.getvalue().splitlines()
    assert first == "running: 2 of 10 finished, 2 kept, 0 rejected, 0 calls/min, $0.0000"
    assert last.startswith("stopped: 2 of 10 finished")
    assert last.endswith("the budget is spent")


def test_the_headline_adds_up_what_is_known_of_the_cost(tmp_path: Path) -> None:
    priced, unpriced = CallStats(4), CallStats(4, is_cost_known=False)
    priced.count_usage(Usage(10, 10), 1.5)
    assert "$1.5000" in headline(progress(tmp_path, stats={"both": priced}).snapshot())
    both = progress(tmp_path, stats={"generator": priced, "judge": unpriced})
    assert "$1.5000 without calls of unknown price" in headline(both.snapshot())
    neither = headline(progress(tmp_path, stats={"both": unpriced}).snapshot())
    assert "$" not in neither
    assert "price" not in neither  # said once, when the build begins


def test_the_headline_says_that_calls_are_tried_again(tmp_path: Path) -> None:
    struggling = progress(tmp_path, stats={"both": CallStats(4, retries=1200)})
    assert "1,200 calls tried again" in headline(struggling.snapshot())


def test_the_table_has_a_row_per_reason_and_one_for_what_is_open(tmp_path: Path) -> None:
    shown = progress(tmp_path)
    for row in range(3):
        shown.outcome(question(row), LOW)
    console = Console(file=io.StringIO(), width=100)
    console.print(funnel_table(shown.snapshot()))
    table = console.file.getvalue()  # type: ignore[attr-defined]
    cells = [line.replace("│", " ").split() for line in table.splitlines()]
    assert ["verify", "low_score", "3", "30.0%"] in cells
    assert ["accepted", "2", "20.0%"] in cells
    assert ["open", "5", "50.0%"] in cells


def test_the_newest_rows_are_kept_with_what_became_of_them(tmp_path: Path) -> None:
    shown = progress(tmp_path, total=40)
    for row in range(1, 21):
        shown.outcome(question(row), LOW if row % 2 else sample(row))
    shown.refresh()
    newest = written(tmp_path)["newest"]
    assert [one["row"] for one in newest] == list(range(9, 21))
    assert (newest[0]["outcome"], newest[1]["outcome"]) == ("verify", "accepted")
    assert row_line(newest[0]).startswith("row 9: verify (low_score: 0.1 is below 0.6): ")
    assert row_line(newest[1]) == f"row 10: accepted: {question(10).problem}"


def test_watching_prints_each_row_once_and_ends_with_the_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = progress(tmp_path, total=5)
    shown.outcome(question(1), LOW)
    shown.refresh()

    def go_on(seconds: float) -> None:  # the clock; the build goes on while it is waited
        if not shown.is_complete:
            shown.outcome(question(2), sample(2))
            shown.outcome(question(3), sample(3))
        else:
            shown.state = "finished"
        shown.refresh()

    monkeypatch.setattr(time, "sleep", go_on)
    assert status.main([str(tmp_path), "--watch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["row 1", "row 2", "row 3", "finished"]


@pytest.mark.heavy
def test_ctrl_c_ends_watching_and_says_that_the_build_goes_on(tmp_path: Path) -> None:
    shown = progress(tmp_path)
    shown.outcome(question(1), LOW)
    shown.refresh()  # by this process, which lives on
    watching = subprocess.Popen(
        [sys.executable, "-m", "pipeline.status", str(tmp_path), "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith("row 1: verify")
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=60)
    assert (watching.returncode, said) == (3, "pipeline.status: stopped; the build goes on\n")
