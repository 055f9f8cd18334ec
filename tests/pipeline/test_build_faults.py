"""A server that fails in every way it can: an outcome for each question, and no row too many or too
few.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.build_world import fate, is_known_blind, make_world, trace
from helpers.builds import JUDGE, build_command, dataset_rows, query, rejections, run_build
from helpers.chat_requests import paid_requests
from servers.model_server import running_server

RATES = {
    "rate_limit": 0.20,
    "overloaded": 0.05,
    "server_error": 0.05,
    "drop": 0.03,
    "empty": 0.02,
    "truncated": 0.02,
    "refused": 0.01,
}
# By the rules: refusals are final at once; empty and truncated replies after two more tries; errors
# that may pass after eight. Everything else must come out as without faults.
FINAL_REASONS = {"refused", "empty_reply", "truncated", "call_failed"}

pytestmark = pytest.mark.heavy


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_thousand_questions_survive_a_faulty_server(tmp_path: Path) -> None:
    _compare(tmp_path, num_questions=2000)


@pytest.mark.slow
def test_sixty_questions_survive_a_faulty_server(tmp_path: Path) -> None:
    _compare(tmp_path, num_questions=60)


@pytest.mark.slow
def test_sixty_questions_and_their_text_reader_survive_a_faulty_server(tmp_path: Path) -> None:
    _compare(tmp_path, 60, "--blind-filter", JUDGE, samples=4)
    marks = query(tmp_path / "out", _MARKS)
    assert len(marks) > 40
    # Unusable replies leave a mark open; they never make one question the other kind.
    assert all(mark in (is_known_blind(int(number)), None) for number, mark in marks)
    assert sum(mark is None for _, mark in marks) < 10


_MARKS = "select problem_id, answerable_blind from blind_marks join questions using (question_id)"


def _compare(tmp_path: Path, num_questions: int, *options: str, samples: int = 1) -> None:
    questions = make_world(tmp_path / "world", num_questions)
    out = tmp_path / "out"
    with running_server(
        tmp_path / "requests.jsonl",
        brain="helpers.build_world:brain",
        python_path=Path(__file__).parent.parent,
        rates=RATES,
        seed=3,
        latency_ms=5,
    ) as server:
        done = run_build(
            build_command(
                questions,
                out,
                "--concurrency=16",
                "--retry-base-seconds=0.05",
                "--retry-cap-seconds=1",
                *options,
            ),
            server.url,
            timeout=1200,
        )
        log = paid_requests(server)

    rejected = {int(number): end for number, end in rejections(out).items()}
    accepted = {int(row["problem_id"]) for row in dataset_rows(out)}
    assert accepted.isdisjoint(rejected)
    assert accepted | rejected.keys() == set(range(num_questions))
    changed = {
        number: rejected.get(number, ("", "accepted"))
        for number in range(num_questions)
        if rejected.get(number, ("", "accepted"))[1] != fate(number)
    }
    # A judge without a usable reply gives no verdict: the row is unscored, never a No.
    assert all(reason in FINAL_REASONS | {"unscored"} for _, reason in changed.values()), changed
    assert (done.returncode == 1) == any(reason in FINAL_REASONS for _, reason in rejected.values())
    for row in dataset_rows(out):
        assert row["output"] == trace(int(row["problem_id"]))
    # Each loss is backed by what the server did to that question, and each final fault is a loss.
    for number, (_, reason) in changed.items():
        assert _served(log, number) & CAUSES[reason], (number, reason)
    for record in log:
        # What a text reader refuses leaves its question's mark open, and costs no row.
        if record["outcome"] == "refused" and "not shown to you" not in record["text"]:
            assert rejected[_number(record)][1] in {"refused", "unscored"}
    # No attempt is repeated without cause: at most 9 per call for errors, 3 for bad replies.
    attempts = Counter((record["body_hash"]) for record in log)
    assert max(attempts.values()) <= 27 * samples
    failed = query(out, "select count(*) from calls where status = 'failed'")[0][0]
    print(f"{len(log)} requests, {len(changed)} rows lost to final faults, {failed} failed calls")


# What the server must have done to a question for its row to end like this.
CAUSES = {
    "refused": {"refused"},
    "empty_reply": {"empty"},
    "truncated": {"truncated"},
    "call_failed": {"status_429", "status_529", "status_500", "drop"},
    "unscored": {"refused", "empty", "truncated"},
}


def _number(record: dict[str, Any]) -> int:
    return int(record["text"].split("Question ", 1)[1].split(":", 1)[0])


def _served(log: list[dict[str, Any]], number: int) -> set[str]:
    return {record["outcome"] for record in log if _number(record) == number}
