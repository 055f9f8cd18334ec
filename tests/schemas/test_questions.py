"""A question and its content id."""

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
