"""`--needs-video only`: what training leaves out, and what it says where nothing is known."""

import json
from pathlib import Path

import pytest
from helpers.training_world import dataset_row, question

from cli.config import UsageError
from schemas.annotations.reader import read_questions
from schemas.dataset_rows import question_of_row
from schemas.questions import VideoQuestion
from train.early_checks import needing_video


def asked(*marks: bool | None) -> list[VideoQuestion]:
    return [
        question(f"{number}.mp4").model_copy(update={"answerable_blind": mark})
        for number, mark in enumerate(marks)
    ]


def of_questions(questions: list[VideoQuestion]) -> list[VideoQuestion]:
    return needing_video(
        questions, lambda one: one.answerable_blind, called="questions", is_printed=True
    )


def test_only_rows_marked_as_answerable_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    questions = asked(True, False, None, True)
    assert of_questions(questions) == questions[1:3]
    assert "--needs-video only: 2 of 4 questions are left out" in capsys.readouterr().err


def test_rows_of_a_dataset_keep_their_mark() -> None:
    row = dataset_row(question("a.mp4")) | {"answerable_blind": True}
    assert question_of_row(row).answerable_blind is True
    assert question_of_row(dataset_row(question("a.mp4"))).answerable_blind is None


def test_where_nothing_is_marked_nothing_is_known() -> None:
    with pytest.raises(UsageError, match=r"only: none of the 2 questions is marked; .*--blind-fi"):
        of_questions(asked(None, None))


def test_nothing_left_is_said() -> None:
    with pytest.raises(UsageError, match="--needs-video only leaves none of the 2 questions"):
        of_questions(asked(True, True))


def test_a_mark_is_no_part_of_a_questions_identity() -> None:
    one, other, third = asked(True, False, None)
    same = [row.model_copy(update={"media": one.media}) for row in (one, other, third)]
    assert len({row.question_id for row in same}) == 1
    assert of_questions(same) == same[1:]


@pytest.mark.parametrize(
    ("value", "mark"), [(True, True), (False, False), (None, None), ("true", True), ("", None)]
)
def test_a_question_file_of_any_layout_may_carry_the_mark(
    tmp_path: Path, value: object, mark: bool | None
) -> None:
    row = {"problem": "What falls?", "solution": "<answer>3</answer>", "problem_type": "numerical"}
    video_r1 = row | {"path": "a.mp4", "data_type": "video", "answerable_blind": value}
    own = row | {"media": [{"kind": "video", "path": "a.mp4"}], "answerable_blind": value}
    for number, record in enumerate((video_r1, own)):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(record) + "\n")
        (read,) = read_questions(path)
        assert isinstance(read, VideoQuestion)
        assert read.answerable_blind is mark


def test_another_word_for_a_mark_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(
        json.dumps(
            {
                "problem": "What falls?",
                "solution": "3",
                "problem_type": "numerical",
                "media": [{"kind": "video", "path": "a.mp4"}],
                "answerable_blind": "perhaps",
            }
        )
    )
    (row,) = read_questions(path)
    assert "field 'answerable_blind': expected true, false or null" in getattr(row, "detail", "")
