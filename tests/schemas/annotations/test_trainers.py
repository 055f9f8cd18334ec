"""Rows of other trainers and of our own datasets."""

from pathlib import Path
from typing import Any

import pytest
from helpers.published_rows import write_form
from helpers.question_files import question, unreadable

from schemas.annotations.reader import format_found, read_questions

EASY: dict[str, Any] = {
    "problem": "<video>When?",
    "answer": "[1.5, 6.9]",
    "videos": ["clip.mp4"],
    "data_type": "video",
    "problem_type": "temporal grounding",
    "options": [],
}
OURS: dict[str, Any] = {
    "problem": "Which?",
    "options": ["A. red", "B. blue"],
    "solution": "<answer>B</answer>",
    "answer": "A",  # the teacher's, not the gold one
    "path": "b.mp4",
    "data_type": "video+image",
    "problem_type": "multiple choice",
    "data_source": "s",
    "problem_id": "7",
    "paths": ["a.png", "b.mp4"],
    "kinds": ["image", "video"],
    "spans": [[], [1.0, 2.5]],
    "level": "",
    "time_clues": [],
}


def rows_of(tmp_path: Path, *records: Any, form: str = "array") -> list[Any]:
    return list(read_questions(write_form(tmp_path, form, list(records))))


@pytest.mark.parametrize("gold", ["[1.5, 6.9]", "<answer>1.5 to 6.9</answer>", [[1.5, 6.9]]])
def test_seconds_are_read_however_they_are_written(tmp_path: Path, gold: Any) -> None:
    assert question(rows_of(tmp_path, EASY | {"answer": gold})).solution == "1.5 to 6.9"


def test_a_broken_tag_is_named_and_never_read(tmp_path: Path) -> None:
    broken = EASY | {"answer": "<[PLHD21_never_used_51bce0c785ca2f68081bfa7d91973934]>1 to 2"}
    assert "'answer': holds a broken tag" in unreadable(rows_of(tmp_path, broken)).detail


@pytest.mark.parametrize("videos", [[], ["a.mp4", "b.mp4"], "a.mp4", None])
def test_a_row_without_one_file_is_refused(tmp_path: Path, videos: Any) -> None:
    row = unreadable(rows_of(tmp_path, EASY | {"videos": videos}))
    assert "field 'videos'" in row.detail


@pytest.mark.parametrize("form", ["array", "parquet"])
def test_a_dataset_of_ours_is_the_questions_that_it_was_made_of(tmp_path: Path, form: str) -> None:
    path = write_form(tmp_path, form, [OURS, OURS | {"problem": "Who?", "spans": None}])
    assert format_found(path) == "p2r-dataset"
    rows = list(read_questions(path))
    assert question(rows).solution == "B"
    assert [(ref.kind, ref.path, ref.span) for ref in question(rows).media] == [
        ("image", "a.png", None),
        ("video", "b.mp4", (1.0, 2.5)),
    ]
    assert [ref.span for ref in question(rows, 1).media] == [None, None]


def test_a_dataset_row_whose_lists_do_not_fit_is_refused(tmp_path: Path) -> None:
    row = unreadable(rows_of(tmp_path, OURS | {"kinds": ["video"]}))
    assert "2 paths, 1 kinds and 2 spans" in row.detail
