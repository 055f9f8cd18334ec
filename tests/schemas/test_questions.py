"""A question and its content id."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.questions import MediaRef, ProblemType, VideoQuestion


def a_question(problem: str) -> VideoQuestion:
    return VideoQuestion(
        row=0,
        problem_id="1",
        problem=problem,
        options=("A. red", "B. blue"),
        solution="A",
        media=(MediaRef(kind="video", path="a.mp4"),),
        problem_type=ProblemType.MULTIPLE_CHOICE,
        data_source="test",
    )


def test_a_copy_with_other_words_has_the_id_of_those_words() -> None:
    first = a_question("Which colour?")
    assert first.question_id  # computed once and kept: the copy must not inherit it
    assert first.model_copy(update={"row": 5}).question_id == first.question_id
    other = first.model_copy(update={"problem": "Which one?"})
    assert other.question_id == a_question("Which one?").question_id != first.question_id


def test_a_question_about_whole_files_has_the_id_of_existing_builds() -> None:
    assert a_question("Which colour?").question_id == "question-87cb22a4142d21190ff5f0642766ad66"


def test_a_clip_of_a_file_is_another_question_than_the_file() -> None:
    whole = a_question("Which colour?")
    clips = [
        whole.model_copy(update={"media": (MediaRef(kind="video", path="a.mp4", **span),)})
        for span in ({"start": 1, "end": 3}, {"start": 1, "end": 4}, {"start": 2, "end": 4})
    ]
    assert len({question.question_id for question in (whole, *clips)}) == 4


@pytest.mark.parametrize(
    ("span", "sentence"),
    [
        ({"start": 1}, "needs both ends.*got start 1.0 and end None"),
        ({"end": 1}, "needs both ends"),
        ({"start": 2, "end": 2}, "0 <= start < end"),
        ({"start": -1, "end": 2}, "0 <= start < end"),
        ({"start": 0, "end": float("inf")}, "finite number"),
        ({"kind": "image", "start": 0, "end": 1}, "an image has no start and end"),
    ],
)
def test_a_span_that_is_none_is_refused(span: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        MediaRef(**{"kind": "video", "path": "a.mp4"} | span)
