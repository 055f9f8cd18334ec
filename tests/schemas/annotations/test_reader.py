"""What a row of a question file means, and what each kind of bad row is called."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.question_files import (
    ROW,
    question,
    read,
    unreadable,
)

from schemas.annotations.reader import UnreadableRow
from schemas.questions import VideoQuestion
from schemas.samples import Reason


def test_a_video_r1_row_keeps_all_that_makes_the_question(tmp_path: Path) -> None:
    found = question(read(tmp_path, [ROW]))
    assert found.model_dump(mode="json") == {
        "problem": "Where is the person?",
        "options": ["A. Indoors", "B. Outdoors", "C. In the kitchen"],
        "solution": "C",
        "media": [{"kind": "video", "path": "Train/video_3217.mp4"}],
        "problem_type": "multiple choice",
        "data_source": "PerceptionTest/train",
        "problem_id": "29",
        "time_clues": [],
        "level": "",
        "answerable_blind": None,
        "row": 0,
    }


def test_a_row_of_texts_is_the_same_question_as_the_row_of_values(tmp_path: Path) -> None:
    # VideoP2R writes every value as a string, the list of options too.
    texts = {key: str(value) for key, value in ROW.items()} | {"reward": "1.0", "select": "True"}
    plain = question(read(tmp_path, [ROW]))
    stringified = question(read(tmp_path, gzip.compress(json.dumps([texts]).encode())))
    assert stringified == plain
    assert stringified.question_id == plain.question_id


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("['A. cat', 'B. dog']", ("A. cat", "B. dog")),
        ('["A. cat", "B. dog"]', ("A. cat", "B. dog")),
        ("""["A. the cat's", 'B. "dog"']""", ("A. the cat's", 'B. "dog"')),
        ("""['A. it\\'s', 'B. a, b']""", ("A. it's", "B. a, b")),
        ("[1, 2.5]", ("A. 1", "B. 2.5")),
    ],
)
def test_options_are_read_out_of_a_text(
    tmp_path: Path, written: str, options: tuple[str, ...]
) -> None:
    assert (
        question(read(tmp_path, [ROW | {"options": written, "solution": "A"}])).options == options
    )


@pytest.mark.parametrize("written", ["['A. cat', ", "__import__('os')", "[" * 10_000, "cat", "{}"])
def test_a_text_that_is_no_list_is_refused_and_never_run(tmp_path: Path, written: str) -> None:
    row = unreadable(read(tmp_path, [ROW | {"options": written}]))
    assert row.reason is Reason.INVALID_QUESTION
    assert "'options'" in row.detail


@pytest.mark.parametrize(
    ("problem_type", "solution", "kept"),
    [
        ("numerical", "<answer>42</answer>", "42"),
        ("numerical", 42, "42"),
        ("regression", 0.5, "0.5"),
        ("OCR", "<answer>Big Buck BUNNY</answer>", "Big Buck BUNNY"),
        ("ocr", "text", "text"),
        ("free form", " <answer> It falls. </answer> ", "It falls."),
        ("temporal grounding", "<answer>4.4 to 5.2</answer>", "4.4 to 5.2"),
    ],
)
def test_other_problem_types_keep_their_gold_text(
    tmp_path: Path, problem_type: str, solution: object, kept: str
) -> None:
    row = ROW | {"problem_type": problem_type, "solution": solution, "options": []}
    found = question(read(tmp_path, [row]))
    assert (found.solution, found.options) == (kept, ())
    assert found.problem_type.value.casefold().replace("-", " ") == problem_type.casefold()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"problem": None}, "problem"),
        ({"problem": "  "}, "problem"),
        ({"problem": ["a"]}, "problem"),
        ({"problem": True}, "problem"),
        ({"path": None}, "path"),
        ({"path": ""}, "path"),
        ({"path": "a\0b.mp4"}, "path"),
        ({"path": "./"}, "path"),
        ({"data_type": "audio"}, "data_type"),
        ({"data_type": None}, "data_type"),
        ({"problem_type": "riddle"}, "problem_type"),
        ({"problem_type": None}, "problem_type"),
        ({"solution": None}, "solution"),
        ({"solution": "<answer> </answer>"}, "solution"),
        ({"solution": {"a": 1}}, "solution"),
        ({"solution": float("nan")}, "solution"),
        ({"solution": 10**400}, "solution"),
        ({"solution": "D"}, "solution"),
        ({"solution": "A or B"}, "solution"),
        ({"options": None}, "options"),
        ({"options": []}, "options"),
        ({"options": ["A. only"]}, "options"),
        ({"options": 3}, "options"),
        ({"options": ["A. a", None]}, "options"),
        ({"time_clues": [[5, 2]]}, "time_clues"),
        ({"time_clues": [["a", "b"]]}, "time_clues"),
        ({"time_clues": [[1, 10**400]]}, "time_clues"),
        ({"time_clues": 3}, "time_clues"),
        ({"problem": "\ud800"}, "problem"),
        ({"options": ["A. a", "B. \udcff"]}, "options"),
        ({"data_source": "\udcff"}, "data_source"),
    ],
)
def test_a_row_that_is_no_question_names_the_field_and_the_rest_goes_on(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    other = ROW | {"problem": "Another?"}
    rows = read(tmp_path, [ROW | change, other])
    bad = unreadable(rows)
    assert (bad.row, bad.line, bad.reason) == (0, 1, Reason.INVALID_QUESTION)
    assert f"'{field}'" in bad.detail
    assert "\n" not in bad.detail
    assert bad.problem_id == "29"
    assert bad.data_source == change.get("data_source", "PerceptionTest/train").replace(
        "\udcff", "\\udcff"
    )
    assert question(rows, 1).row == 1


def test_a_duplicate_names_the_first_row(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        [
            ROW,
            ROW | {"problem": "Another?"},
            ROW | {"problem_id": 30, "data_source": "other"},  # the same question by another name
            ROW | {"solution": "A"},  # another gold answer: another question
            ROW,
        ],
    )
    duplicates = [row for row in rows if isinstance(row, UnreadableRow)]
    assert [(row.row, row.reason) for row in duplicates] == [
        (2, Reason.DUPLICATE),
        (4, Reason.DUPLICATE),
    ]
    assert all("as row 0" in row.detail for row in duplicates)
    assert duplicates[0].problem_id == "30"
    assert duplicates[0].problem_type == "multiple choice"


def test_unreadable_rows_have_ids_of_their_own_that_repeat(tmp_path: Path) -> None:
    content = [ROW, 1, 1, ROW]
    first = [row.question_id for row in read(tmp_path, content)]
    again = [row.question_id for row in read(tmp_path, content, "moved.json")]
    assert first == again
    assert len(set(first)) == 4


def test_a_prefix_is_stripped_at_a_folder_boundary_only(tmp_path: Path) -> None:
    paths = ["/group/data/v/a.mp4", "/group/database/b.mp4", "rel/c.mp4", "/group/data//d.mp4"]
    content = [ROW | {"path": path} for path in paths]

    def stripped(*prefixes: str) -> list[str]:
        rows = read(tmp_path, content, strip_prefix=prefixes)
        return [question(rows, number).media[0].path for number in range(len(paths))]

    assert stripped() == paths
    assert stripped("/group/data/") == ["v/a.mp4", "/group/database/b.mp4", "rel/c.mp4", "d.mp4"]
    assert stripped("/group/data") == stripped("/group/data/")
    assert stripped("/group/data", "/group/data/v", "rel") == [
        "a.mp4",
        "/group/database/b.mp4",
        "c.mp4",
        "d.mp4",
    ]
    assert stripped("./rel")[2] == "c.mp4"


def test_a_path_that_climbs_is_left_for_the_media_room(tmp_path: Path) -> None:
    rows = read(tmp_path, [ROW | {"path": "/data/../etc/passwd"}], strip_prefix=("/data",))
    assert question(rows).media[0].path == "../etc/passwd"


def test_our_own_lines_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = VideoQuestion.model_validate(
        {
            "problem": "When?",
            "solution": "1 to 2.5, 7 to 9",
            "media": [{"kind": "video", "path": "a.mp4"}, {"kind": "image", "path": "b.png"}],
            "problem_type": "temporal grounding",
            "data_source": "mine",
            "problem_id": "x1",
            "time_clues": [[1, 2.5], [7, 9]],
            "level": "L2",
        }
    )
    line = json.dumps(written.model_dump(mode="json") | {"question_id": "q", "row": 17})
    found = question(read(tmp_path, line + "\n", "mine.jsonl"))
    assert found == written
    assert found.data_type == "video+image"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"time_clue": []}, "time_clue"),
        ({"media": []}, "media"),
        ({"media": ["a.mp4"]}, "media"),
        ({"media": [{"kind": "audio", "path": "a.mp3"}]}, "kind"),
        ({"media": [{"kind": "video", "path": ""}]}, "path"),
    ],
)
def test_our_own_lines_are_checked_strictly(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    line = {
        "problem": "Why?",
        "solution": "x",
        "media": [{"kind": "video", "path": "a.mp4"}],
        "problem_type": "free-form",
    }
    row = unreadable(read(tmp_path, json.dumps(line | change), "mine.jsonl"))
    assert row.reason is Reason.INVALID_QUESTION
    assert f"'{field}'" in row.detail


def test_names_with_undecodable_bytes_can_be_stored(tmp_path: Path) -> None:
    content = json.dumps([ROW]).encode().replace(b"PerceptionTest", b"\xffPerception")
    row = unreadable(read(tmp_path, content))
    row.data_source.encode()
    row.question_id.encode()
    assert "'data_source'" in row.detail


def test_absolute_paths_below_the_media_root_are_relative_to_it(tmp_path: Path) -> None:
    root = tmp_path / "media"
    root.mkdir()
    paths = [f"{root}/a.mp4", "a.mp4", f"{root}/../b.mp4", f"{root}2/a.mp4", "/elsewhere/a.mp4"]
    rows = [ROW | {"problem": f"{n}?", "path": path} for n, path in enumerate(paths)]
    found = read(tmp_path, rows, media_root=root)
    assert [question(found, n).media[0].path for n in range(5)] == [
        "a.mp4",
        "a.mp4",
        "../b.mp4",  # climbs: the media room refuses it
        f"{root}2/a.mp4",
        "/elsewhere/a.mp4",
    ]
    link = tmp_path / "link"
    link.symlink_to(root)
    through = read(tmp_path, [ROW | {"path": f"{root.resolve()}/a.mp4"}], media_root=link)
    assert question(through).media[0].path == "a.mp4"
