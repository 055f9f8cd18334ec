"""Answers that an audit draws from: a row that cannot be read costs itself alone."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from judges.audits.sample.population import read_answers

REPLY = "<think>It barks. So the answer is A.</think><answer>A</answer>"
OPTIONS = ["A. dog", "B. cow"]


def answers_file(tmp_path: Path, *questions: dict[str, Any], reply: str = REPLY) -> Path:
    path = tmp_path / "answers.jsonl"
    rows = ({"question": question, "model_output": reply} for question in questions)
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ({"problem": "q", "options": ["A. dog", ""]}, "its options cannot be read"),
        ({"problem": "q", "options": ["A. dog", None]}, "its options cannot be read"),
        ({"problem": "q", "options": ["A. dog"]}, "its options cannot be read"),
        (
            {"problem": "q", "options": ["B, cow", "A, dog"]},
            "its options bring letters that do not go by place",
        ),
        ({"problem": "", "options": OPTIONS}, "not multiple choice"),
        ({"problem": "q", "options": []}, "not multiple choice"),
    ],
)
def test_a_row_that_cannot_be_read_costs_itself_alone(
    tmp_path: Path, question: dict[str, Any], why: str
) -> None:
    good = {"problem": "good", "options": OPTIONS, "video": "/"}
    found = read_answers(answers_file(tmp_path, question, good))
    assert found.left_out == Counter({why: 1})
    assert [row.video for row in found.population.rows] == ["row 1"]


@pytest.mark.parametrize(
    "options", [OPTIONS, "['dog', 'cow']", {"A": "dog", "B": "cow"}, ["dog \ud800", "cow"]]
)
def test_options_are_read_as_evaluations_read_them(tmp_path: Path, options: Any) -> None:
    found = read_answers(answers_file(tmp_path, {"problem": "q", "options": options}))
    (text,) = found.texts.values()
    assert text.question.solution == "A"
    assert text.question.options[1] == "B. cow"


def test_an_option_alone_on_the_first_line_is_the_answer(tmp_path: Path) -> None:
    reply = "<think>So the answer is A.</think>A. dog\n\nIt barks, as a dog does and no other."
    question = {"problem": "q", "options": OPTIONS}
    assert len(read_answers(answers_file(tmp_path, question, reply=reply)).population.rows) == 1


def test_the_table_of_an_evaluation_is_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    row = {
        "problem": "q",
        "options": OPTIONS,
        "problem_id": "7",
        "paths": ["a.mp4"],
        "output": REPLY,
    }
    pq.write_table(pa.Table.from_pylist([row, row | {"output": ""}]), path)
    found = read_answers(path)
    assert [(one.video, one.verdict) for one in found.population.rows] == [("a.mp4", "yes")]
    assert found.left_out == Counter({"the answer names no option": 1})
    pq.write_table(pa.table({"other": [1]}), path)
    with pytest.raises(ValueError, match="has no column problem, options"):
        read_answers(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read_answers(path)
