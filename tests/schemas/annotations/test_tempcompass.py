"""TempCompass: options out of the question, and what is neither options nor yes or no."""

from pathlib import Path
from typing import Any

import pytest
from helpers.published_rows import INLINE, write_form
from helpers.question_files import question, unreadable

from schemas.annotations.reader import format_found, read_questions


def rows_of(tmp_path: Path, videos: dict[str, Any]) -> list[Any]:
    return list(read_questions(write_form(tmp_path, "object", [videos])))


def asked(question: str, answer: str) -> dict[str, str]:
    return {"question": question, "answer": answer}


def test_every_question_of_every_dimension_is_one(tmp_path: Path) -> None:
    videos = {
        "1": {"action": [asked(INLINE, "C. green"), asked("Is it red?", "no")]},
        "2": {"speed": [asked(INLINE, "A. red")]},
    }
    rows = rows_of(tmp_path, videos)
    assert [question(rows, n).solution for n in range(3)] == ["C", "no", "A"]
    assert [question(rows, n).media[0].path for n in range(3)] == ["1.mp4", "1.mp4", "2.mp4"]
    assert question(rows, 2).data_source == "TempCompass/speed"
    assert format_found(tmp_path / "rows.object") == "tempcompass"


@pytest.mark.parametrize(
    ("question_text", "answer", "sentence"),
    [
        (INLINE, "D. grey", "names none of the 3 options"),
        (INLINE, "A. blue", "names none of the 3 options"),
        ("What is it?", "red", "expected yes or no, or options inside of the question"),
    ],
)
def test_an_answer_that_fits_no_task_is_refused(
    tmp_path: Path, question_text: str, answer: str, sentence: str
) -> None:
    assert (
        sentence
        in unreadable(rows_of(tmp_path, {"1": {"action": [asked(question_text, answer)]}})).detail
    )


def test_what_is_no_question_costs_its_video_alone(tmp_path: Path) -> None:
    videos = {"1": {"action": [asked(INLINE, "A. red")]}, "2": {"action": 3, "speed": [4]}}
    rows = rows_of(tmp_path, videos)
    assert question(rows).solution == "A"
    assert "field 'action': expected a list of questions, got 3" in unreadable(rows, 1).detail
