"""An evaluation metric of the user's own, from a file that the product knows nothing of."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

PLUGIN = """
from schemas.questions import ProblemType
from train.evaluation.metrics import metric, of_types


@metric("reply_words", "words")
def reply_words(score):
    return len(score.prediction.output.split())


@metric("says_sure", "sure", applies=of_types(ProblemType.MULTIPLE_CHOICE), is_share=True)
def says_sure(score):
    return "sure" in score.prediction.output
"""
REPLIES = [
    ("red", "surely <answer>A</answer>", "paint"),
    ("red", "one two three <answer>B</answer>", "paint"),
    ("10", "I am sure: <answer>8</answer>", "cars"),
]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Answers to two multiple choice questions and one number, of three clips; the plugin."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    rows = []
    for number, (gold, reply, source) in enumerate(REPLIES):
        choice = {"options": ["red", "blue"], "problem_type": "multiple choice"}
        kind = choice if gold == "red" else {"problem_type": "regression"}
        asked = {"problem": f"What is {number}?", "video": f"{number}.mp4", "data_source": source}
        row = {"question": asked | kind, "model_output": reply}
        rows.append(row | {"ground_truth": "A" if gold == "red" else gold})
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def evaluate(
    folder: Path, repository: Path, *words: str, out: str = "out"
) -> subprocess.CompletedProcess[str]:
    """`train.evaluate` as a user runs it, from a folder of the user's own."""
    command = ["-m", "train.evaluate", "--predictions", "answers.jsonl", "--out", out]
    return subprocess.run(
        [sys.executable, *command, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


@pytest.mark.heavy
def test_a_metric_of_a_plugin_is_reported_everywhere(answers: Path, repository: Path) -> None:
    done = evaluate(answers, repository, "--plugin", "mine.py")
    assert done.returncode == 0, done.stderr
    report = report_of(answers / "out")
    words = report["overall"]["metrics"]["reply_words"]
    assert (words["value"], words["n"]) == (pytest.approx((2 + 4 + 4) / 3), 3)
    assert 2 <= words["low"] < words["value"] < words["high"] <= 4
    sure = report["overall"]["metrics"]["says_sure"]
    assert (sure["value"], sure["n"]) == (0.5, 2)
    by_type, by_source = report["slices"]["problem type"], report["slices"]["data source"]
    assert by_type["multiple choice"]["metrics"]["reply_words"]["value"] == 3
    assert "says_sure" not in by_type["regression"]["metrics"]
    assert by_source["cars"]["metrics"]["reply_words"] == {
        "value": 4, "n": 1, "low": None, "high": None
    }  # fmt: skip
    header, overall = (line.split() for line in done.stdout.splitlines()[1:5] if "%" in line
                       or "words" in line)  # fmt: skip
    assert header[-2:] == ["words", "sure"]
    assert overall[-3:] == ["3.333", "50", "%"]
    page = (answers / "out" / "index.html").read_text()
    assert '<th class="number">words</th>' in page
    assert "words 4, sure 0.0 %" in page
    rows = pq.read_table(answers / "out" / "predictions.parquet").to_pylist()
    assert [row["metric_reply_words"] for row in rows] == [2, 4, 4]
    assert [row["metric_says_sure"] for row in rows] == [1, 0, None]


@pytest.mark.heavy
def test_without_the_plugin_nothing_is_added(answers: Path, repository: Path) -> None:
    assert evaluate(answers, repository).returncode == 0
    plain = report_of(answers / "out")
    assert "metrics" not in plain["overall"]
    assert evaluate(answers, repository, "--plugin", "mine.py", out="more").returncode == 0
    more = report_of(answers / "more")
    del more["overall"]["metrics"]
    assert more["overall"] == plain["overall"]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("@metric('strict_score')\ndef f(score): return 1", "'strict_score' already"),
        ("@metric('bad')\ndef f(score): return float('nan')", "gave nan for row 0: expected a"),
        ("@metric('bad', is_share=True)\ndef f(score): return 2", "finite number in [0, 1], or"),
        ("@metric('bad')\ndef f(score): return {}['x']", "'bad' failed on row 0 (KeyError: 'x')"),
        ("@metric\ndef f(score): return 1", "(mine.py, line 3: @metric was given no name"),
    ],
)
def test_a_metric_that_cannot_be_used_is_one_sentence(
    text: str, sentence: str, answers: Path, repository: Path
) -> None:
    plugin = f"from train.evaluation.metrics import metric\n\n{text}\n"
    (answers / "mine.py").write_text(plugin)
    done = evaluate(answers, repository, "--plugin", "mine.py")
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[-1]
