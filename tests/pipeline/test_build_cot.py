"""A build from end to end: real files, a real process, the real protocol."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.build_world import fate, gold, make_world, trace
from helpers.builds import (
    build_command,
    dataset_rows,
    environment,
    query,
    rejections,
    run_build,
)
from helpers.chat_requests import paid_requests
from servers.model_server import TEST_KEY, RunningServer, running_server

NUM_QUESTIONS = 60

pytestmark = pytest.mark.heavy


TESTS = Path(__file__).parent.parent


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    log = tmp_path / "requests.jsonl"
    with running_server(log, brain="helpers.build_world:brain", python_path=TESTS) as running:
        yield running


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return make_world(tmp_path / "world", NUM_QUESTIONS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one build from end to end, 16 calls in flight, for others to compare with."""
    folder = tmp_path_factory.mktemp("finished")
    log = folder / "requests.jsonl"
    with running_server(log, brain="helpers.build_world:brain", python_path=TESTS) as running:
        done = run_build(
            build_command(make_world(folder / "world", NUM_QUESTIONS), folder / "out"), running.url
        )
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_every_question_ends_as_its_script_says(finished: Path) -> None:
    out = finished
    rows = dataset_rows(out)
    accepted = [number for number in range(NUM_QUESTIONS) if fate(number) == "accepted"]
    assert [int(row["problem_id"]) for row in rows] == accepted  # the question file's order
    for row in rows:
        number = int(row["problem_id"])
        assert row["output"] == trace(number)
        assert row["solution"] == f"<answer>{gold(number)[1]}</answer>"
        assert row["answer"] == gold(number)[1]
        assert row["observation"].startswith("Based on the question, I need to notice")
        assert row["reward"] >= 0.6
        assert len(row["frame_indices"]) == len(row["frame_times"]) >= 1
    seen = {int(number): reason for number, (_, reason) in rejections(out).items()}
    assert seen == {n: fate(n) for n in range(NUM_QUESTIONS) if fate(n) != "accepted"}
    assert {path.name for path in out.iterdir()} >= {
        "cot.duckdb",
        "dataset",
        "README.md",
        "config.json",
        "progress.json",
    }


def test_a_finished_build_run_again_asks_nothing_and_changes_nothing(
    server: RunningServer, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run_build(build_command(questions, out), server.url).returncode == 0
    before, asked = dataset_rows(out), len(paid_requests(server))
    done = run_build(build_command(questions, out), server.url)
    assert done.returncode == 0, done.stderr
    assert dataset_rows(out) == before
    assert len(paid_requests(server)) == asked


def test_concurrency_changes_nothing_in_the_dataset(
    server: RunningServer, questions: Path, tmp_path: Path, finished: Path
) -> None:
    done = run_build(build_command(questions, tmp_path / "out", "--concurrency=1"), server.url)
    assert done.returncode == 0, done.stderr
    assert dataset_rows(tmp_path / "out") == dataset_rows(finished)


def test_batches_give_the_same_dataset(
    server: RunningServer, questions: Path, tmp_path: Path, finished: Path
) -> None:
    server.control(batch_seconds=0.5, batch_order="shuffled")
    waits = ("--batch-linger-seconds=0.3", "--batch-poll-seconds=0.2")
    out = tmp_path / "out"
    done = run_build(build_command(questions, out, "--batch", *waits), server.url)
    assert done.returncode == 0, done.stderr
    assert dataset_rows(out) == dataset_rows(finished)
    assert query(out, "select step from calls where not batch") == [("check",)] * 2
    assert paid_requests(server) == []


@pytest.mark.slow
def test_a_limit_stops_early_and_a_higher_one_goes_on(
    server: RunningServer, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run_build(build_command(questions, out, "--limit", "20"), server.url).returncode == 0
    assert query(out, "select count(*) from questions") == [(20,)]
    asked = len(paid_requests(server))
    assert run_build(build_command(questions, out), server.url).returncode == 0
    assert query(out, "select count(*) from questions") == [(NUM_QUESTIONS,)]
    bodies = Counter(r["body_hash"] for r in paid_requests(server)[asked:])
    assert not bodies.keys() & {r["body_hash"] for r in paid_requests(server)[:asked]}


def test_another_option_in_the_same_folder_is_refused_by_name(
    server: RunningServer, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run_build(build_command(questions, out, "--limit", "2"), server.url).returncode == 0
    done = run_build(build_command(questions, out, "--threshold", "0.9"), server.url)
    assert done.returncode == 2
    assert "--threshold was 0.6, is now 0.9" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_changed_question_file_is_refused(
    server: RunningServer, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run_build(build_command(questions, out, "--limit", "2"), server.url).returncode == 0
    questions.write_text(json.dumps(json.loads(questions.read_text())[1:]))
    done = run_build(build_command(questions, out, "--limit", "2"), server.url)
    assert done.returncode == 2
    assert "has changed" in done.stderr


def test_bad_media_cost_their_row_and_the_status_says_so(
    server: RunningServer, questions: Path, tmp_path: Path
) -> None:
    (questions.parent / "clip_1.mp4").write_text("this is no video")
    (questions.parent / "still_2.png").unlink()
    out = tmp_path / "out"
    done = run_build(build_command(questions, out), server.url)
    assert done.returncode == 1, done.stderr
    rows = json.loads(questions.read_text())
    broken = {str(r["problem_id"]) for r in rows if r["path"] in ("clip_1.mp4", "still_2.png")}
    lost = {number for number, (step, _) in rejections(out).items() if step == "media"}
    assert lost == broken
    assert {reason for _, (step, reason) in rejections(out).items() if step == "media"} == {
        "undecodable",
        "missing_file",
    }


@pytest.mark.slow
def test_retry_failed_gives_repaired_rows_another_chance(
    server: RunningServer, questions: Path, tmp_path: Path, finished: Path
) -> None:
    still = questions.parent / "still_2.png"
    content = still.read_bytes()
    still.unlink()
    out = tmp_path / "out"
    assert run_build(build_command(questions, out), server.url).returncode == 1
    still.write_bytes(content)
    assert run_build(build_command(questions, out), server.url).returncode == 1  # not by itself
    assert run_build(build_command(questions, out, "--retry-failed"), server.url).returncode == 0
    assert dataset_rows(out) == dataset_rows(finished)


@pytest.mark.slow
def test_ctrl_c_finishes_what_is_in_flight_and_the_same_command_resumes(
    server: RunningServer, questions: Path, tmp_path: Path, finished: Path
) -> None:
    server.control(latency_ms=300)
    out = tmp_path / "out"
    command = build_command(questions, out, "--concurrency", "4")
    process = subprocess.Popen(
        command, env=environment(server.url), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(paid_requests(server)) < 12 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert "the same command again resumes" in stderr
    status = subprocess.run(
        [sys.executable, "-m", "pipeline.status", str(out), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(status.stdout)["state"] == "stopped"
    answered = paid_requests(server)
    assert not any(record.get("client_gone") for record in answered)  # nothing was cut off
    assert len(answered) < NUM_QUESTIONS
    server.control(latency_ms=0)
    done = run_build(command, server.url)
    assert done.returncode == 0, done.stderr
    assert dataset_rows(out) == dataset_rows(finished)
    bodies = Counter(record["body_hash"] for record in paid_requests(server))
    repeats = {body for body, count in bodies.items() if count > 1}
    # Only deliberate repeats: a judge without a verdict is asked three times with the same words.
    unscored = sum(fate(number) == "unscored" for number in range(NUM_QUESTIONS))
    assert len(repeats) == unscored
    assert all(bodies[body] == 3 for body in repeats)


def test_check_counts_what_cannot_be_used_and_asks_nobody(
    questions: Path, server: RunningServer, tmp_path: Path
) -> None:
    rows = json.loads(questions.read_text())
    rows += [
        rows[0],
        {"problem": "no more"},
        rows[1] | {"path": "../../etc/passwd", "problem": "?"},
    ]
    questions.write_text(json.dumps(rows))
    (questions.parent / "still_1.png").unlink()
    done = run_build(build_command(questions, tmp_path / "out", "--check"), server.url)
    missing = sum(row.get("path") == "still_1.png" for row in rows[:-3])
    assert done.returncode == 1
    assert f"{len(rows)} questions read, {missing + 3} unusable" in done.stdout
    for reason in ("duplicate", "invalid_question", "unsafe_path", "missing_file"):
        assert reason in done.stdout
    assert server.requests() == []


def test_a_model_that_the_server_does_not_know_leaves_nothing_behind(
    server: RunningServer, questions: Path, tmp_path: Path
) -> None:
    """Bug seen: every row rejected, and the folder taken by the misspelt name."""
    out = tmp_path / "out"
    unknown = {"kind": "bad_request", "status": 404, "message": "model: claude-sonet"}
    server.control(script=[{"match": "Reply with", "faults": [unknown]}])
    done = run_build(build_command(questions, out), server.url)
    assert done.returncode == 2
    assert "--generator claude:claude-sonnet-5-5 does not answer: " in done.stderr
    assert "model: claude-sonet (check the model's name" in done.stderr
    assert not out.exists()
    assert paid_requests(server) == []


def test_the_key_is_nowhere_in_what_a_build_leaves(
    server: RunningServer, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fault = {"kind": "bad_request", "message": "bad key {key}"}
    server.control(script=[{"match": "observation", "faults": [fault]}])
    done = run_build(build_command(questions, out, "--limit", "3"), server.url)
    assert TEST_KEY not in done.stdout + done.stderr
    for path in out.rglob("*"):
        if path.is_file():
            assert TEST_KEY.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_allowed_leaks_are_judged_kept_and_still_flagged(
    server: RunningServer, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run_build(build_command(questions, out, "--allow-leaks"), server.url).returncode == 0
    leaking = {number for number in range(NUM_QUESTIONS) if fate(number) == "answer_leak"}
    assert leaking
    assert leaking <= {int(row["problem_id"]) for row in dataset_rows(out)}
    flagged = query(
        out,
        "select problem_id from sufficiency_verdicts join questions using (question_id) "
        "where answer_leak and verdict = 'yes'",
    )
    assert {int(problem_id) for (problem_id,) in flagged} == leaking
