"""Each published format: how its rows become questions, and how it is recognised."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.question_files import (
    CSV_HEADER,
    ROW,
    SEED_ROW,
    VALIDATION_ROW,
    VIDEO,
    csv_row,
    question,
    read,
    unreadable,
    write,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.annotations.formats import (
    FORMATS,
    AnnotationFormat,
    every_file,
    format_choices,
    register_format,
)
from schemas.annotations.published import video_r1
from schemas.annotations.reader import UnreadableRow, read_questions
from schemas.questions import ProblemType
from schemas.samples import Reason


def test_next_gqa_csv_without_its_companions(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        "\n".join([CSV_HEADER, csv_row(), csv_row(answer="scarf"), csv_row(answer="shoe")]),
        "test.csv",
    )
    found = question(rows)
    assert found.problem == "why, then"
    assert found.options == ("A. scarf", "B. cap", "C. turban", "D. hat", "E. scarf")
    assert (found.solution, question(rows, 1).solution) == ("B", "A")  # equal options: the first
    assert found.media[0].path == "11.mp4"
    assert found.problem_type is ProblemType.MULTIPLE_CHOICE
    assert (found.problem_id, found.data_source) == ("11_3", "NExT-GQA/test")
    assert found.time_clues == ()
    assert "'answer'" in unreadable(rows, 2).detail


def test_next_gqa_csv_takes_spans_and_folders_from_the_files_beside_it(tmp_path: Path) -> None:
    write(tmp_path, {"11": {"location": {"3": [[1.5, 2], [4, 5]]}}}, "gsub_test.json")
    write(tmp_path, {"11": "0007/11", "12": "0008/12"}, "map_vid_vidorID.json")
    table = [CSV_HEADER, csv_row(), csv_row(qid="4"), csv_row(video_id="12"), csv_row(video_id="9")]
    rows = read(tmp_path, "\n".join(table), "test.csv")
    assert question(rows).time_clues == ((1.5, 2.0), (4.0, 5.0))
    assert question(rows).media[0].path == "0007/11.mp4"
    assert "no span" in unreadable(rows, 1).detail
    assert "no span" in unreadable(rows, 2).detail
    assert "map_vid_vidorID.json" in unreadable(rows, 3).detail


def test_a_broken_companion_file_is_said_before_the_first_row(tmp_path: Path) -> None:
    write(tmp_path, "{", "gsub_test.json")
    with pytest.raises(ValueError, match=r"gsub_test\.json, which belongs to test\.csv"):
        read_questions(write(tmp_path, f"{CSV_HEADER}\n{csv_row()}", "test.csv"))


def test_next_gqa_as_appo_trains_on_it_counts_gold_from_zero(tmp_path: Path) -> None:
    row = {
        "qid": "1",
        "question": "why",
        "video_path": "/group/videos/488.mp4",
        "options": ["share", "approach", "unwrap it", "play", "gesture"],
        "answer": "2",
        "split": "val",
        "time_clues": [[13.8, 29.8]],
    }
    rows = read(tmp_path, [row, row | {"answer": "5"}, row | {"answer": "unwrap it"}])
    found = question(rows)
    assert (found.solution, found.options[2]) == ("C", "C. unwrap it")
    assert found.time_clues == ((13.8, 29.8),)
    assert (found.problem_id, found.data_source) == ("488_1", "NExT-GQA/val")
    assert "'answer'" in unreadable(rows, 1).detail
    assert "index" in unreadable(rows, 2).detail


@pytest.mark.parametrize(
    "options",
    [
        ["(A) run", "(B) jump up", "(C) sit"],
        "(A) run (B) jump up (C) sit",
        "(A) run\n(B) jump up\n(C) sit",
    ],
)
def test_next_gqa_in_the_video_chat_r1_form(tmp_path: Path, options: object) -> None:
    row = {
        "id": 5,
        "video": "1/2.mp4",
        "question": "why",
        "options": options,
        "duration": 30,
        "glue": [[1, 2.5]],
        "type": "CW",
        "answer": "(C)",
    }
    found = question(read(tmp_path, [row]))
    assert found.options == ("A. run", "B. jump up", "C. sit")
    assert (found.solution, found.time_clues) == ("C", ((1.0, 2.5),))
    assert found.media[0].path == "1/2.mp4"


@pytest.mark.parametrize("layout", ["one video", "by name", "list"])
def test_perception_test_as_published(tmp_path: Path, layout: str) -> None:
    content = {"one video": VIDEO, "by name": {"video_10": VIDEO}, "list": [VIDEO]}[layout]
    rows = read(tmp_path, json.dumps(content, indent=1))
    assert [question(rows, row).problem for row in (0, 1)] == ["Moving?", "Lamp on?"]
    assert [question(rows, row).solution for row in (0, 1)] == ["C", "A"]
    found = question(rows, 1)
    assert found.row == 1
    assert found.options == ("A. yes", "B. no", "C. unsure")
    assert found.media[0].path == "video_10.mp4"
    assert (found.problem_id, found.data_source) == ("video_10_1", "PerceptionTest/valid")
    assert len(rows) == 2  # questions about tracks are none that words can answer


def test_perception_test_rows_that_make_no_question(tmp_path: Path) -> None:
    bad_index = {**VIDEO["mc_question"][0], "answer_id": 3}  # type: ignore[dict-item]
    videos = {
        "a": VIDEO | {"mc_question": [bad_index, 7]},
        "b": {"metadata": 3},
        "c": VIDEO,
        "d": 4,
    }
    rows = read(tmp_path, videos)
    assert "'answer_id'" in unreadable(rows, 0).detail
    assert "'mc_question'" in unreadable(rows, 1).detail
    assert "'metadata'" in unreadable(rows, 2).detail
    assert question(rows, 3).row == 3
    assert unreadable(rows, 5).reason is Reason.UNREADABLE_ROW


def test_seed_training_form_shows_video_and_image_and_four_options(tmp_path: Path) -> None:
    found = question(read(tmp_path, json.dumps(SEED_ROW), "training_6k.jsonl"))
    assert [(ref.kind, ref.path) for ref in found.media] == [
        ("video", "videos/EpicKitchens/P22_07.mp4"),
        ("image", "images/EpicKitchens/P22_07.png"),
    ]
    assert len(found.options) == 4
    assert found.options["ABCD".index(found.solution)].endswith(". clean microwave")
    assert (found.problem_id, found.data_source) == ("7", "SEED-Bench-R1/EpicKitchens")
    assert found.level == ""


def test_seed_without_progress_shows_the_image_only(tmp_path: Path) -> None:
    row = {key: value for key, value in SEED_ROW.items() if key != "video_basename"}
    found = question(read(tmp_path, [row | {"task_progress_metadata": []}]))
    assert found.data_type == "image"


def test_seed_options_depend_on_the_content_and_on_nothing_else(tmp_path: Path) -> None:
    random.seed(1)
    first = question(read(tmp_path, [SEED_ROW]))
    random.seed(2)
    negatives = list(reversed(SEED_ROW["negative_answers"]))
    moved = [SEED_ROW | {"question": "Other?"}, SEED_ROW | {"negative_answers": negatives}]
    again = question(read(tmp_path, moved), 1)
    assert again.question_id == first.question_id
    assert again.options == first.options


def test_seed_gold_letters_are_spread_evenly(tmp_path: Path) -> None:
    rows = [SEED_ROW | {"question": f"What next, {number}?"} for number in range(2000)]
    found = read(tmp_path, rows)
    letters = Counter(question(found, number).solution for number in range(2000))
    assert set(letters) == set("ABCD")
    # 500 each expected, standard deviation 19: 5 of them either way.
    assert all(400 < count < 600 for count in letters.values())
    chosen = Counter(option[3:] for n in range(2000) for option in question(found, n).options)
    # Each of five wrong answers is one of the three chosen in 1200 of 2000 questions, sd 22.
    assert all(1090 < chosen[wrong] < 1310 for wrong in SEED_ROW["negative_answers"])


def test_seed_validation_form_keeps_order_letter_and_level(tmp_path: Path) -> None:
    found = question(read(tmp_path, json.dumps(VALIDATION_ROW), "validation_L3.jsonl"))
    assert found.options == (
        "A. move detergent",
        "B. clean microwave",
        "C. spray",
        "D. wash sponge",
    )
    assert (found.solution, found.level) == ("B", "L3")
    assert question(read(tmp_path, [VALIDATION_ROW | {"level": 2}])).level == "2"
    row = unreadable(read(tmp_path, [VALIDATION_ROW | {"golden_choice_idx": "E"}]))
    assert "'golden_choice_idx'" in row.detail


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([ROW], "video-r1"),
        ([ROW | {"options": "['a', 'b']"}], "videop2r"),
        ([SEED_ROW], "seed-bench-r1"),
        (json.dumps(VIDEO), "perception-test"),
        (f"{CSV_HEADER}\n{csv_row()}", "nextgqa"),
        ([1, "x", ROW], "video-r1"),
    ],
)
def test_the_format_told_by_content_reads_as_the_format_given(
    tmp_path: Path, content: Any, found: str
) -> None:
    assert read(tmp_path, content) == read(tmp_path, content, format=found)
    assert found in FORMATS


def test_perception_test_may_be_in_the_layout_that_appo_publishes(tmp_path: Path) -> None:
    assert question(read(tmp_path, [ROW], format="perception-test")).solution == "C"


def test_a_format_that_does_not_fit_says_so_row_by_row(tmp_path: Path) -> None:
    row = unreadable(read(tmp_path, [SEED_ROW], format="video-r1"))
    assert row.reason is Reason.INVALID_QUESTION
    assert "'problem_type': is missing" in row.detail or "'data_type': is missing" in row.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=5,
)
OWN_ROW = {
    "problem": "Why?",
    "solution": "x",
    "media": [{"kind": "video", "path": "a.mp4"}],
    "problem_type": "free-form",
}
VIDEO_CHAT_ROW = {"video": "1.mp4", "question": "?", "options": "(A) a (B) b", "answer": "(A)"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(
        [
            (ROW, "video-r1"),
            (SEED_ROW, "seed-bench-r1"),
            (VALIDATION_ROW, "seed-bench-r1"),
            (VIDEO, "perception-test"),
            (VIDEO_CHAT_ROW, "nextgqa"),
            (OWN_ROW, "jsonl"),
        ]
    ),
    st.data(),
)
def test_no_value_of_any_field_stops_the_reading(
    tmp_path: Path, case: tuple[dict[str, Any], str], data: st.DataObject
) -> None:
    row, name = case
    field = data.draw(st.sampled_from([*row, "time_clues", "level", "glue", "problem_id"]))
    rows = read(tmp_path, [row | {field: data.draw(json_values)}, row], format=name)
    assert [found.row for found in rows] == list(range(len(rows)))
    for found in rows:
        found.question_id.encode()
        if isinstance(found, UnreadableRow):
            assert "\n" not in found.detail


def test_a_format_of_tables_is_known_by_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fields(record: dict[str, str]) -> dict[str, Any]:
        return video_r1(ROW | {"problem": record["ask"], "path": record["clip"]})

    table = AnnotationFormat(
        "clip-table",
        "tables",
        lambda record: "clip" in record,
        every_file(fields),
        csv_column="clip",
    )
    monkeypatch.setitem(FORMATS, "clip-table", table)
    rows = read(tmp_path, "ask,clip\nWhat is red?,a.mp4\n", "q.csv")
    assert (question(rows).problem, question(rows).media[0].path) == ("What is red?", "a.mp4")
    assert list(format_choices())[-1] == "clip-table"


@pytest.mark.parametrize("name", ["auto", "video-r1"])
def test_a_format_cannot_take_the_name_of_another(name: str) -> None:
    row = AnnotationFormat(name, "mine", lambda record: True, every_file(video_r1))
    with pytest.raises(ValueError, match=f"format '{name}' exists already"):
        register_format(row)


def my_format(**functions: Any) -> AnnotationFormat:
    """A format of a user's, with a mistake."""
    kept = {"matches": lambda record: "ask" in record, "reader_of": every_file(video_r1)}
    return AnnotationFormat("quiz", "mine", **(kept | functions))


@pytest.mark.parametrize(
    ("functions", "detail"),
    [
        ({"reader_of": every_file(lambda record: record["answer"])}, "KeyError: 'answer'"),
        ({"reader_of": every_file(lambda record: 1 // 0)}, "ZeroDivisionError: "),
        ({"reader_of": every_file(lambda record: None)}, "gave None for the record; exp"),
        (
            {"reader_of": every_file(lambda record: {"problem": "?"})},
            "expected a dict with problem",
        ),
        ({"reader_of": every_file(lambda record: {"media": [3]})}, "TypeError: "),
        ({"questions_of": lambda record: iter(record["parts"])}, "KeyError: 'parts'"),
        ({"questions_of": lambda record: iter([3])}, "AttributeError: "),
    ],
)
def test_a_mistake_in_a_format_is_the_reason_of_its_rows(
    functions: dict[str, Any], detail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "quiz", my_format(**functions))
    rows = read(tmp_path, [{"ask": "?"}, {"ask": "!"}])
    assert [unreadable(rows, n).reason for n in (0, 1)] == [Reason.INVALID_QUESTION] * 2
    assert unreadable(rows, 0).detail.startswith("format 'quiz': ")
    assert detail in unreadable(rows, 0).detail


@pytest.mark.parametrize(
    ("functions", "sentence"),
    [
        ({"matches": lambda record: record["kind"] == "quiz"}, "cannot tell whether .*KeyError"),
        ({"reader_of": video_r1}, "'quiz' cannot read .*TypeError: .*see every_file"),
    ],
)
def test_a_format_that_cannot_begin_is_one_sentence(
    functions: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "quiz", my_format(**functions))
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path, [{"ask": "?"}])


def test_an_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown format 'video-r2'.*did you mean 'video-r1'"):
        read(tmp_path, [ROW], format="video-r2")


CHAT = [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": "a door"}]


@pytest.mark.parametrize(
    ("record", "names"),
    [
        (ROW | {"messages": CHAT, "videos": ["a.mp4"]}, "video-r1 and ms-swift"),
        (ROW | {"media": []}, "video-r1 and jsonl"),
        (
            {"conversations": CHAT, "video": "a.mp4", "videos": ["a.mp4"]},
            "llava-video-178k and ms-swift",
        ),
    ],
)
def test_a_file_that_two_formats_fit_is_refused_with_both_names(
    tmp_path: Path, record: dict[str, Any], names: str
) -> None:
    path = write(tmp_path, "\n".join([json.dumps(record)] * 2), "q.jsonl")
    with pytest.raises(ValueError, match=f"cannot tell the format of {path}: its rows fit {names}"):
        read_questions(path)
    assert list(read_questions(path, format=names.split(" ")[0]))


def test_of_two_formats_that_fit_a_row_the_next_rows_may_leave_one(tmp_path: Path) -> None:
    both = ROW | {"messages": CHAT, "videos": ["a.mp4"]}
    rows = read(tmp_path, "\n".join(map(json.dumps, [both, ROW | {"problem": "Who?"}])), "q.jsonl")
    assert [question(rows, n).problem for n in (0, 1)] == ["Where is the person?", "Who?"]


def test_a_format_of_a_plugin_goes_before_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = AnnotationFormat(
        "quiz",
        "mine",
        lambda record: "problem" in record,
        every_file(lambda record: video_r1(record) | {"data_source": "mine"}),
    )
    monkeypatch.setitem(FORMATS, "quiz", mine)
    assert question(read(tmp_path, [ROW])).data_source == "mine"


def test_a_clip_of_a_video_is_read_in_our_own_lines(tmp_path: Path) -> None:
    clips = [{"start": 1, "end": 2.5}, {"start": 3, "end": 2}, {"start": 1}, {"end": None}]
    rows = [
        OWN_ROW | {"problem": f"{n}?", "media": [{"kind": "video", "path": "a.mp4", **clip}]}
        for n, clip in enumerate(clips)
    ]
    found = read(tmp_path, "\n".join(map(json.dumps, rows)), "q.jsonl")
    assert question(found).media[0].span == (1.0, 2.5)
    assert "field 'media': a clip needs both ends, with 0 <= start" in unreadable(found, 1).detail
    assert "needs start and end, got only start" in unreadable(found, 2).detail
    assert question(found, 3).media[0].span is None
