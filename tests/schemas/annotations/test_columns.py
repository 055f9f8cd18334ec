"""Files of any columns: which column holds what, and what a gold answer may be."""

from pathlib import Path
from typing import Any

import pytest
from helpers.published_rows import INLINE, THREE, write_form
from helpers.question_files import question, unreadable

from schemas.annotations.columns import parse_columns
from schemas.annotations.reader import format_found, read_questions
from schemas.questions import ProblemType

NAMES = parse_columns(["problem=ask,options=choices", "solution=reply, path=file"])
ROW: dict[str, Any] = {"ask": "Which?", "choices": THREE, "reply": "blue", "file": "a.mp4"}


def rows_of(
    tmp_path: Path, *records: Any, form: str = "lines", columns: dict[str, str] = NAMES
) -> list[Any]:
    return list(read_questions(write_form(tmp_path, form, list(records)), columns=columns))


def test_columns_are_pairs_of_a_key_and_a_name() -> None:
    assert NAMES == {"problem": "ask", "options": "choices", "solution": "reply", "path": "file"}
    assert parse_columns(["problem=Question Type"]) == {"problem": "Question Type"}
    for words, sentence in [
        ("problem", "expected KEY=COLUMN.*got 'problem'"),
        ("problem=", "expected KEY=COLUMN"),
        ("answer=reply", "with one of problem, options, solution, path.*got 'answer=reply'"),
        ("problem=a,problem=b", "problem is named twice: 'a' and 'b'"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            parse_columns([words])


@pytest.mark.parametrize(
    ("change", "options", "solution"),
    [
        ({}, ("A. red", "B. blue", "C. green"), "B"),
        ({"reply": "B"}, ("A. red", "B. blue", "C. green"), "B"),
        ({"reply": 1}, ("A. red", "B. blue", "C. green"), "B"),
        ({"choices": "red|blue | green"}, ("A. red", "B. blue", "C. green"), "B"),
        ({"choices": "['red', 'blue']"}, ("A. red", "B. blue"), "B"),
        ({"choices": {"A": "red", "B": "blue"}}, ("A. red", "B. blue"), "B"),
        ({"choices": ["(a) red", "(b) blue"], "reply": "b"}, ("A. red", "B. blue"), "B"),
        ({"reply": "<answer>blue</answer>"}, ("A. red", "B. blue", "C. green"), "B"),
        ({"choices": None, "ask": INLINE, "reply": "B"}, ("A. red", "B. blue", "C. green"), "B"),
    ],
)
def test_a_gold_answer_is_a_letter_an_index_or_a_text(
    tmp_path: Path, change: dict[str, Any], options: tuple[str, ...], solution: str
) -> None:
    found = question(rows_of(tmp_path, ROW | change))
    assert (found.options, found.solution) == (options, solution)
    assert found.problem_type is ProblemType.MULTIPLE_CHOICE


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"choices": ["3", "2", "1"], "reply": 2}, "could be C by its index from 0 and B"),
        ({"choices": None, "reply": "B"}, "'B' is to be an option, but there is no such option"),
        ({"choices": None, "ask": INLINE, "reply": "E"}, "'E' is to be an option"),
        ({"reply": 3}, "is none of the 3 options"),
        ({"choices": "red"}, "2 to 26 options, got 1"),
        ({"file": ""}, "'path': is empty"),
        ({"file": {"bytes": "x", "path": "a.mp4"}}, "the file is inside of the table"),
    ],
)
def test_what_could_be_two_things_or_none_is_refused(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    assert sentence in unreadable(rows_of(tmp_path, ROW | change)).detail


@pytest.mark.parametrize(
    ("reply", "kind"), [("a red door", "free-form"), ("12.5", "numerical"), (3, "numerical")]
)
def test_without_options_a_question_is_a_number_or_a_text(
    tmp_path: Path, reply: object, kind: str
) -> None:
    found = question(rows_of(tmp_path, ROW | {"choices": [], "reply": reply}))
    assert (found.problem_type.value, found.solution) == (kind, str(reply))


def test_a_type_that_is_given_decides(tmp_path: Path) -> None:
    columns = NAMES | {"problem_type": "kind", "start": "from", "end": "until"}
    extra = {"kind": "temporal grounding", "choices": None, "from": 2, "until": 9}
    rows = rows_of(
        tmp_path,
        ROW | extra | {"reply": [1.5, 4]},
        ROW | extra | {"reply": "4", "kind": "regression"},
        ROW | extra | {"reply": "4", "kind": "guess"},
        columns=columns,
    )
    assert (question(rows).solution, question(rows).media[0].span) == ("1.5 to 4", (2.0, 9.0))
    assert question(rows, 1).problem_type is ProblemType.REGRESSION
    assert "'problem_type': expected one of" in unreadable(rows, 2).detail


def test_a_table_of_any_columns_is_read_in_every_form(tmp_path: Path) -> None:
    texts = ROW | {"choices": "red|blue|green"}
    found = [rows_of(tmp_path, ROW, form=form) for form in ("lines", "array", "parquet")]
    found.append(rows_of(tmp_path, texts, form="csv"))
    assert len({question(rows).question_id for rows in found}) == 1
    assert format_found(tmp_path / "rows.csv", columns=NAMES) == "columns"


def test_an_image_is_known_by_its_ending(tmp_path: Path) -> None:
    found = question(rows_of(tmp_path, ROW | {"file": "a.JPG"}))
    assert found.media[0].kind == "image"


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        ({"problem": "question", "solution": "reply", "path": "file"}, "no column 'question' for"),
        ({"problem": "ask", "path": "file"}, "no column 'solution' for solution"),
        (NAMES | {"options": "answers"}, "no column 'answers' for options"),
    ],
)
def test_a_column_that_is_not_there_is_one_sentence_before_the_first_row(
    tmp_path: Path, columns: dict[str, str], missing: str
) -> None:
    with pytest.raises(ValueError, match=f"{missing}.*its columns are ask, choices, reply, file"):
        rows_of(tmp_path, ROW, columns=columns)


def test_columns_and_a_format_are_not_given_together(tmp_path: Path) -> None:
    path = write_form(tmp_path, "lines", [ROW])
    with pytest.raises(ValueError, match="--columns was given with --format mvbench"):
        read_questions(path, columns=NAMES, format="mvbench")
