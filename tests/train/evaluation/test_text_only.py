"""Text-only models in an evaluation: which questions need the video, and what a reply states."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from helpers.chat_requests import paid_requests
from helpers.evaluations import (
    OPTIONS,
    answers_of,
    command,
    environment,
    evaluate,
    report_of,
)
from servers.model_server import RunningServer, running_server

from cli.config import EXIT_OK, UsageError

pytestmark = pytest.mark.heavy

OUTPUTS = [
    "<think>r</think><answer>A</answer>",  # right, question 0 is answered blind
    "<think>r</think><answer>C</answer>",  # wrong, question 1 is not (gold B)
    "What I see is the colour of the sky and of the sea.",  # says B in other words
    "I cannot tell at all what the ball looks like.",
    "Well. It might be anything, who knows these days.",
]
GOLDS = "ABBBA"
REPLIES: list[dict[str, Any]] = [
    {"contains": ["not shown to you", "ball 0"], "reply": "<answer>red</answer>"},
    {"contains": ["not shown to you", "ball 4"], "reply": "<answer>red</answer>"},
    {"contains": ["not shown to you"], "reply": "<answer>green</answer>"},
    {"contains": ["<reply>", "of the sea"], "reply": "It means <extraction>B</extraction>"},
    {"contains": ["<reply>", "cannot tell"], "reply": "<extraction>No answer</extraction>"},
    {"contains": ["<reply>", "might be"], "reply": "<extraction>Z</extraction>"},
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    replies = tmp_path / "replies.jsonl"
    replies.write_text("".join(json.dumps(rule) + "\n" for rule in REPLIES))
    with running_server(tmp_path / "requests.jsonl", replies=replies) as running:
        yield running


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    rows = [
        {
            "question": {
                "problem_id": f"q{number}",
                "problem": f"Which colour is ball {number}?",
                "options": OPTIONS,
                "video": f"{number}.mp4",
            },
            "ground_truth": GOLDS[number],
            "model_output": output,
        }
        for number, output in enumerate(OUTPUTS)
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


_ANSWERED = "select count(*) from calls where step in ('blind', 'extract')"  # not the first check


def about_prompt(out: Path) -> str:
    """The prompt that the report names."""
    return str(report_of(out)["answer_extraction"]["prompt_id"])


def completions(server: RunningServer) -> list[dict[str, Any]]:
    return paid_requests(server, "/v1/chat/completions")


def test_every_score_is_shown_on_both_subsets(
    server: RunningServer, answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--predictions", str(answers), "--out", str(out)]
    options += ["--blind", f"openai:reader@{server.openai_url}"]
    assert evaluate(*options) == EXIT_OK
    report = report_of(out)
    parts = report["slices"]["blind"]
    # Questions 0 and 4 are answered blind ("red" is A); of these two the model has the first.
    assert parts["answerable blind"]["n"] == 2
    assert parts["answerable blind"]["strict"]["correct"] == 1
    assert parts["needs the video"]["n"] == 3
    assert parts["needs the video"]["strict"]["correct"] == 0
    assert report["overall"]["strict"]["n"] == 5
    about = report["blind"]
    assert (about["questions"], about["answerable_blind"], about["unscored"]) == (5, 2, 0)
    assert (about["samples"], about["correct_needed"]) == (4, 4)
    printed = capsys.readouterr().out
    assert "subset: answerable blind" in printed
    assert "answers 2 of 5 questions (4 of 4 samples correct)" in printed
    assert [row["answerable_blind"] for row in answers_of(out)] == [True, False, False, False, True]
    asked = len(completions(server))
    assert asked == 5 * 4
    assert evaluate(*options) == EXIT_OK
    assert len(completions(server)) == asked  # all of it from the ledger


def test_marks_stay_with_the_predictions(
    server: RunningServer, answers: Path, tmp_path: Path
) -> None:
    """Scored again, the file has both subsets without asking anybody."""
    reader = f"openai:reader@{server.openai_url}"
    evaluate("--predictions", str(answers), "--out", str(tmp_path / "a"), "--blind", reader)
    stored = tmp_path / "a" / "predictions.parquet"
    evaluate("--predictions", str(stored), "--out", str(tmp_path / "b"))
    first, again = report_of(tmp_path / "a"), report_of(tmp_path / "b")
    assert again["slices"]["blind"] == first["slices"]["blind"]
    assert "blind" not in again


def test_an_extractor_reads_what_rules_do_not_and_never_enters_their_scores(
    server: RunningServer, answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, out = tmp_path / "plain", tmp_path / "out"
    evaluate("--predictions", str(answers), "--out", str(plain))
    options = ["--predictions", str(answers), "--out", str(out)]
    options += ["--answer-extractor", f"openai:extractor@{server.openai_url}"]
    assert evaluate(*options) == EXIT_OK
    before, after = report_of(plain)["overall"], report_of(out)["overall"]
    assert (after["strict"], after["tolerant"]) == (before["strict"], before["tolerant"])
    assert "extracted" not in before
    # A by rules, C by rules (wrong), B by the model, none, unread.
    assert (after["extracted"]["correct"], after["extracted"]["unparsed"]) == (2, 2)
    rows = answers_of(out)
    assert [row["extracted_answer"] for row in rows[:3]] == ["A", "C", "B"]
    assert [row["extracted_is_parsed"] for row in rows] == [True, True, True, False, False]
    assert [row["tolerant_is_parsed"] for row in rows] == [True, True, False, False, False]
    model = options[-1]
    assert [row["extracted_by"] for row in rows] == ["rules", "rules", model, model, model]
    assert [row["extracted_reason"] for row in rows[2:]] == ["", "no_conclusion", "off_menu"]
    assert rows[0]["extracted_prompt"] == ""
    assert rows[2]["extracted_prompt"] == about_prompt(out)
    about = report_of(out)["answer_extraction"]
    assert (about["unread_by_rules"], about["extracted"]) == (3, 1)
    assert (about["state_no_answer"], about["unscored"]) == (1, 1)
    assert "with extractor" in capsys.readouterr().out
    # One call each for what can be read, three for the reply that never can.
    asked = completions(server)
    assert len(asked) == 5
    assert not any("ground" in record["text"] for record in asked)
    assert evaluate(*options) == EXIT_OK
    assert len(completions(server)) == 5


def test_a_killed_evaluation_asks_again_only_what_was_not_answered(
    server: RunningServer, answers: Path, tmp_path: Path
) -> None:
    """20 blind answers and 5 extractions; killed between answers of the reader."""
    model = f"openai:reader@{server.openai_url}"
    options = ["--predictions", str(answers), "--out", str(tmp_path / "out"), "--concurrency", "2"]
    options += ["--blind", model, "--answer-extractor", model]
    server.control(replies=REPLIES, latency_ms=200)
    process = subprocess.Popen(command(*options), env=environment())
    deadline = time.monotonic() + 120
    while len(completions(server)) < 12 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "out" / "report.json").exists()
    with duckdb.connect(str(tmp_path / "out" / "calls.duckdb")) as ledger:
        ((committed,),) = ledger.execute(_ANSWERED).fetchall()
    assert 0 < committed < 25
    time.sleep(0.5)  # what was in flight is in the server's log
    before = len(completions(server))
    server.control(replies=REPLIES)
    assert evaluate(*options) == EXIT_OK
    assert len(completions(server)) - before == 25 - committed
    report = report_of(tmp_path / "out")
    assert report["blind"]["answerable_blind"] == 2
    assert report["answer_extraction"]["extracted"] == 1


def test_both_need_a_folder_and_a_reachable_model(answers: Path, tmp_path: Path) -> None:
    dead = "openai:m@http://127.0.0.1:9/v1"
    for option in ("--blind", "--answer-extractor"):
        with pytest.raises(UsageError, match=f"{option} {dead} does not answer: .*be reached"):
            evaluate("--predictions", str(answers), "--out", str(tmp_path / "c"), option, dead)
    assert not (tmp_path / "c").exists()
