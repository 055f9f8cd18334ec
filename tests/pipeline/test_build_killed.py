"""kill -9 at random moments: nothing that was committed is paid again, and the dataset is the
same.
"""

import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest
from helpers.build_world import make_world
from helpers.builds import JUDGE, build_command, dataset_rows, environment, query, run_build
from helpers.chat_requests import paid_requests
from servers.model_server import RunningServer, running_server

NUM_QUESTIONS, NUM_KILLS = 400, 30
CONCURRENCY = 8
# 30 kills after at most this many answers, and 8 more in flight at each, stay below the 744 needed.
MAX_CALLS_BETWEEN_KILLS = 15

pytestmark = pytest.mark.heavy


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_thirty_kills_change_nothing_and_repeat_only_what_was_not_committed(tmp_path: Path) -> None:
    _killed(tmp_path, NUM_QUESTIONS, NUM_KILLS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_between_a_text_readers_answers_change_nothing(tmp_path: Path) -> None:
    """40 questions need about 280 calls: 8 without and with an observation, teacher and judge."""
    reader = ("--blind-filter", JUDGE, "--sufficiency", "both")
    _killed(tmp_path, 40, 6, *reader)
    out, reference = tmp_path / "out", tmp_path / "reference"
    for table in ("reader_answers", "reader_checks"):
        rows = query(out, f"from {table} order by all")
        assert len(rows) >= 40
        assert rows == query(reference, f"from {table} order by all")


def _killed(tmp_path: Path, num_questions: int, num_kills: int, *options: str) -> None:
    questions = make_world(tmp_path / "world", num_questions)
    helpers = Path(__file__).parent.parent
    with running_server(
        tmp_path / "requests.jsonl", brain="helpers.build_world:brain", python_path=helpers
    ) as server:
        reference, out = tmp_path / "reference", tmp_path / "out"
        assert run_build(build_command(questions, reference, *options), server.url).returncode == 0
        once = paid_requests(server)
        server.control(latency_ms=250)
        command = build_command(questions, out, "--concurrency", str(CONCURRENCY), *options)
        draw = random.Random(0)
        committed_at: list[tuple[float, Counter[Call]]] = []
        while len(committed_at) < num_kills:
            process = subprocess.Popen(
                command,
                env=environment(server.url),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            # Some kills hit the start or the planning, most the calls. They count calls, not
            # seconds, so that a fast machine is not done before the last kill.
            answered = _num_answered(server) + draw.randint(1, MAX_CALLS_BETWEEN_KILLS)
            deadline = time.monotonic() + (draw.uniform(0.5, 3.0) if draw.random() < 0.3 else 60.0)
            while time.monotonic() < deadline and _num_answered(server) < answered:
                time.sleep(0.02)
            alive = process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert alive, f"ended by itself ({process.returncode}) after {len(committed_at)} kills"
            committed_at.append((time.time(), _committed_calls(out)))
        done = run_build(command, server.url)
        assert done.returncode == 0, done.stderr
        log = paid_requests(server)[len(once) :]

    assert dataset_rows(out) == dataset_rows(reference)
    assert query(out, _OUTCOMES) == query(reference, _OUTCOMES)
    needed = Counter(map(_call, once))
    assert Counter(map(_call, log)).keys() == needed.keys()
    repeats = len(log) - len(once)
    assert repeats > 0, "no kill hit a call in flight: the test has shown nothing"
    for killed_at, committed in committed_at:
        asked_later = Counter(_call(record) for record in log if record["time"] > killed_at)
        paid_twice = {call for call in asked_later if committed[call] >= needed[call]}
        assert not paid_twice, f"committed at the kill, yet asked again: {sorted(paid_twice)[:5]}"
    print(f"{num_kills} kills, {len(once)} calls needed, {repeats} repeated")


Call = tuple[int, str]  # number of the question, and the step


def _num_answered(server: RunningServer) -> int:
    return server.log_path.read_bytes().count(b"\n")


def _call(record: dict[str, Any]) -> Call:
    number = int(record["text"].split("Question ", 1)[1].split(":", 1)[0])
    if record["images"]:
        return number, "generate"
    if "<given_observation>" in record["text"]:
        return number, "filter-answer"
    return number, "blind" if "not shown to you" in record["text"] else "filter"


def _committed_calls(out: Path) -> Counter[Call]:
    """Calls in the file as the kill left it; that it opens at all is part of the test."""
    if not (out / "cot.duckdb").exists():
        return Counter()
    with duckdb.connect(str(out / "cot.duckdb")) as connection:
        if ("calls",) not in connection.execute("show tables").fetchall():
            return Counter()
        rows = connection.execute(
            "select problem_id, step from calls join questions using (question_id) "
            "where status = 'ok'"
        ).fetchall()
    return Counter((int(problem_id), step) for problem_id, step in rows)


_OUTCOMES = """
    select q.row, r.step, r.reason, r.detail, a.output
    from questions q left join rejections r using (question_id)
    left join attempts a using (question_id)
    order by q.row
"""
