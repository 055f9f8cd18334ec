"""Chats become questions: what is asked, what is gold, and which files are shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.published_rows import INLINE, write_form
from helpers.question_files import question, unreadable

from schemas.annotations.reader import format_found, read_questions
from schemas.questions import ProblemType

VIDEO = ["clip.mp4"]


def chat(*said: str, **fields: Any) -> dict[str, Any]:
    roles = ("user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    return {"messages": messages, "videos": VIDEO} | fields


def rows_of(tmp_path: Path, *records: Any, form: str = "lines", **options: Any) -> list[Any]:
    return list(read_questions(write_form(tmp_path, form, list(records)), **options))


@pytest.mark.parametrize(
    ("answer", "solution", "kind"),
    [
        ("B", "B", "multiple choice"),
        ("(B) blue", "B", "multiple choice"),
        ("<think>It is blue.</think><answer>B</answer>", "B", "multiple choice"),
        ("It is blue, I think.", "It is blue, I think.", "free-form"),
    ],
)
def test_a_gold_answer_is_an_option_or_a_text(
    tmp_path: Path, answer: str, solution: str, kind: str
) -> None:
    found = question(rows_of(tmp_path, chat(f"<video>{INLINE}", answer)))
    assert (found.solution, found.problem_type.value) == (solution, kind)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (chat(INLINE, "D"), "'D' looks like an option, but the question holds 3 other options"),
        (chat("What?", "B."), "'B.' looks like an option, but the question holds no options"),
        (chat("What?"), "holds no answer of the assistant, and there is no solution"),
        (chat("One?", "1", "Two?", "2"), "expected one question and its answer"),
        (chat("<video><video>What?", "x"), "1 files, but 2 <video> in the question"),
        (chat("What?", "x", videos=[["1.jpg", "2.jpg"]]), "lists the frames of a video"),
        (chat("What?", "x", videos=["data:video/mp4;base64,AA"]), "holds the video itself"),
        (chat("What?", "x", videos=[{"bytes": "AA"}]), "holds the video itself"),
        (chat(INLINE, "<answer>A</answer><answer>B</answer>"), "2 different answers in tags"),
        (chat("<video>", "x"), "the question or its answer is empty"),
        (
            {"query": "What?", "response": "x", "history": [["a", "b"]], "videos": VIDEO},
            "a dialogue of several turns",
        ),
        ({"messages": [{"role": ["x"], "content": "y"}], "videos": VIDEO}, "expected one question"),
        ({"messages": [3], "videos": VIDEO}, "expected a list of messages"),
    ],
)
def test_what_is_no_single_question_with_a_known_answer_is_refused(
    tmp_path: Path, record: dict[str, Any], sentence: str
) -> None:
    assert sentence in unreadable(rows_of(tmp_path, record, format="ms-swift")).detail


def test_files_are_shown_in_the_order_of_their_marks(tmp_path: Path) -> None:
    asked = "<image>Which of <video>these <image>fits?"
    record = chat(asked, "the first", images=["1.png", "2.png"])
    found = question(rows_of(tmp_path, record))
    assert [ref.path for ref in found.media] == ["1.png", "clip.mp4", "2.png"]
    assert found.problem == "Which of these fits?"
    unmarked = question(rows_of(tmp_path, chat("What?", "x", images=["1.png"])))
    assert [ref.path for ref in unmarked.media] == ["clip.mp4", "1.png"]


def test_a_solution_is_gold_whatever_the_assistant_says(tmp_path: Path) -> None:
    found = question(rows_of(tmp_path, chat(f"<video>{INLINE}", "A", solution="C")))
    assert found.solution == "C"


def test_system_messages_are_left_out(tmp_path: Path) -> None:
    record = chat("<video>What?", "x")
    record["messages"].insert(0, {"role": "system", "content": "You are a helper."})
    assert question(rows_of(tmp_path, record)).problem == "What?"


def test_the_same_messages_are_ms_swift_in_lines_llamafactory_in_an_array_and_trl_in_a_table(
    tmp_path: Path,
) -> None:
    record = chat("<video>What?", "x")
    found = {form: write_form(tmp_path, form, [record]) for form in ("lines", "array", "parquet")}
    names = {form: format_found(path) for form, path in found.items()}
    assert names == {"lines": "ms-swift", "array": "llamafactory", "parquet": "trl"}
    (same,) = {question(list(read_questions(path))).question_id for path in found.values()}
    assert same


def test_a_clip_of_a_video_is_honoured_in_verls_rows(tmp_path: Path) -> None:
    video = {"video": "file://clip.mp4", "video_start": 2, "video_end": 4.5}
    record = {
        "prompt": [{"role": "user", "content": "<video>What?"}],
        "videos": [video],
        "reward_model": {"ground_truth": "x"},
    }
    (ref,) = question(rows_of(tmp_path, record)).media
    assert (ref.path, ref.span) == ("clip.mp4", (2.0, 4.5))
    record["videos"] = [{"video": "clip.mp4", "video_start": 2}]
    assert "needs video_start and video_end" in unreadable(rows_of(tmp_path, record)).detail


def test_turns_of_llava_video_are_questions_of_their_own(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "a man"},
        {"from": "human", "value": "Where?"}, {"from": "gpt", "value": "at home"},
    ]  # fmt: skip
    record = {"id": "v", "video": "clip.mp4", "data_source": "s", "conversations": turns}
    rows = rows_of(tmp_path, record, form="array")
    assert [(question(rows, n).problem, question(rows, n).solution) for n in (0, 1)] == [
        ("Who?", "a man"),
        ("Where?", "at home"),
    ]
    assert [question(rows, n).problem_id for n in (0, 1)] == ["v_0", "v_1"]
    odd = rows_of(tmp_path, record | {"conversations": turns[:3]}, form="array")
    assert "expected questions and answers, got 3 texts" in unreadable(odd).detail


def test_llamafactory_reads_the_names_that_dataset_info_gives(tmp_path: Path) -> None:
    info = {
        "mine": {
            "file_name": "rows.array",
            "formatting": "sharegpt",
            "columns": {"messages": "talk", "videos": "clips"},
            "tags": {
                "role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "it",
            },
        }
    }  # fmt: skip
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    record = {
        "talk": [{"who": "me", "what": "<video>What?"}, {"who": "it", "what": "a door"}],
        "clips": VIDEO,
    }
    found = question(rows_of(tmp_path, record, form="array", format="llamafactory"))
    assert (found.problem, found.solution, found.media[0].path) == ("What?", "a door", "clip.mp4")


def test_llamafactorys_alpaca_rows_are_read(tmp_path: Path) -> None:
    record = {"instruction": "<video>What?", "input": "Be short.", "output": "4", "videos": VIDEO}
    path = write_form(tmp_path, "array", [record])
    assert format_found(path) == "llamafactory"
    found = question(list(read_questions(path)))
    assert (found.problem, found.solution) == ("What?\nBe short.", "4")
    assert found.problem_type is ProblemType.NUMERICAL


def test_nemo_gym_without_options_is_an_open_question(tmp_path: Path) -> None:
    parts = [
        {"type": "input_video", "video_url": {"url": "clip.mp4"}},
        {"type": "input_text", "text": "What?"},
    ]
    record = {
        "responses_create_params": {"input": [{"role": "user", "content": parts}]},
        "expected_answer": "a door",
    }
    found = question(rows_of(tmp_path, record))
    assert (found.problem, found.solution, found.media[0].path) == ("What?", "a door", "clip.mp4")
    record["responses_create_params"] = {"input": [{"role": "user", "content": [{"type": "x"}]}]}
    assert "a part of type 'x'" in unreadable(rows_of(tmp_path, record)).detail
