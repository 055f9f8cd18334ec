"""The further formats of an export, read back with our own reader and with `datasets`."""

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers.built_ledger import add_attempt, built_ledger, empty_ledger, question
from helpers.exports import ACCEPTED, load, rich_questions, rows_of

from cli.config import UsageError
from pipeline.export import (
    export_dataset,
    export_further,
    export_trl,
    export_videop2r,
    refuse_unwritable_outputs,
)
from schemas.annotations.reader import read_questions
from schemas.dataset_rows import question_of_row
from schemas.questions import MediaRef


def test_videop2r_has_the_releases_fields_and_types(tmp_path: Path) -> None:
    with built_ledger(tmp_path) as ledger:
        export_videop2r(ledger, tmp_path)
    rows = json.loads(gzip.decompress((tmp_path / "videop2r/sft.part1of1.json.gz").read_bytes()))
    assert rows[0] == {
        "problem": "What happens in clip 0?",
        "options": '["A. red | green", "B. *blue*", "C. <b>none</b>"]',
        "solution": "<answer>A</answer>",
        "answer": "A",
        "path": "clips/000.mp4",
        "data_source": "kitchen/train",
        "data_type": "video",
        "problem_type": "multiple choice",
        "observation": "seen",
        "process": "<think>thought 0 0</think>",
        "output": "<observation>seen</observation> <think>thought 0 0</think><answer>A</answer>",
        "problem_id": "0",
        "reward": 1.0,
        "select": True,
        "clean_version": "",
    }
    assert [int(row["problem_id"]) for row in rows] == ACCEPTED


@pytest.mark.parametrize("format_name", ["videop2r", "auto"])
def test_our_reader_reads_the_videop2r_export_back_to_the_same_questions(
    tmp_path: Path, format_name: str
) -> None:
    with built_ledger(tmp_path) as ledger:
        export_videop2r(ledger, tmp_path)
    read = list(read_questions(tmp_path / "videop2r/sft.part1of1.json.gz", format=format_name))
    expected = [
        question(row).model_copy(update={"row": place}) for place, row in enumerate(ACCEPTED)
    ]
    assert read == expected


def test_questions_on_several_files_are_left_out_of_videop2r_and_counted(tmp_path: Path) -> None:
    with empty_ledger(tmp_path) as ledger:
        ledger.add_questions(rich_questions())
        for asked in rich_questions():
            add_attempt(ledger, asked)
        exported = export_videop2r(ledger, tmp_path)
    assert (exported.num_rows, exported.num_left_out) == (3, 1)
    rows = json.loads(gzip.decompress((tmp_path / "videop2r/sft.part1of1.json.gz").read_bytes()))
    assert [row["problem_id"] for row in rows] == ["0", "1", "2"]


def test_what_was_written_is_said_with_what_was_left_out(tmp_path: Path) -> None:
    with empty_ledger(tmp_path) as ledger:
        ledger.add_questions(rich_questions())
        for asked in rich_questions():
            add_attempt(ledger, asked)
        said = export_further(ledger, tmp_path, ["trl", "videop2r"])
    assert said == [
        f"{tmp_path}/videop2r: rows 3, left out 1: it has one path of a whole file per row, "
        "they have several or a part of one",
        f"{tmp_path}/trl: rows 4",
    ]


def test_a_part_of_a_file_is_no_path_of_other_layouts(tmp_path: Path) -> None:
    clip = MediaRef(kind="video", path="clips/000.mp4", start=1.5, end=4)
    with empty_ledger(tmp_path) as ledger:
        for asked in (question(0), question(0, media=(clip,))):
            ledger.add_question(asked)
            add_attempt(ledger, asked)
        export_dataset(ledger, tmp_path)
        assert [export_trl(ledger, tmp_path).num_left_out] == [1]
        assert [export_videop2r(ledger, tmp_path).num_left_out] == [1]
    whole, part = rows_of(tmp_path / "dataset")
    assert (whole["spans"], part["spans"]) == (None, [[1.5, 4.0]])
    assert question_of_row(part).media == (clip,)
    assert question_of_row(part).question_id == part["question_id"] != whole["question_id"]
    assert [row["videos"] for row in rows_of(tmp_path / "trl")] == [["clips/000.mp4"]]


def test_what_an_earlier_run_wrote_does_not_go_stale(tmp_path: Path) -> None:
    with empty_ledger(tmp_path) as ledger:
        assert export_further(ledger, tmp_path, []) == []
        assert not (tmp_path / "trl").exists()
        export_further(ledger, tmp_path, ["trl", "videop2r"])
        ledger.add_question(question(0))
        add_attempt(ledger, question(0))
        said = export_further(ledger, tmp_path, ["trl"])
    assert said[0] == f"{tmp_path}/videop2r: rows 1 (an earlier run asked for this format)"
    assert said[1] == f"{tmp_path}/trl: rows 1"
    (part,) = (tmp_path / "videop2r").iterdir()
    assert [row["problem_id"] for row in json.loads(gzip.decompress(part.read_bytes()))] == ["0"]
    assert [row["question_id"] for row in rows_of(tmp_path / "trl")] == [question(0).question_id]


def test_files_of_others_are_not_deleted_for_an_export_that_nobody_asked_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "videop2r").mkdir()
    (tmp_path / "videop2r" / "notes.txt").write_text("mine")
    with empty_ledger(tmp_path) as ledger:
        export_further(ledger, tmp_path, ["trl"])
        (tmp_path / "trl" / "checkpoint.pt").write_text("mine")
        (said,) = export_further(ledger, tmp_path, [])
    assert "trl is of an earlier run and was not brought up to date" in said
    assert "--export trl brings it up to date" in said
    assert (tmp_path / "trl" / "checkpoint.pt").exists()
    assert (tmp_path / "videop2r" / "notes.txt").exists()


@pytest.mark.parametrize("name", ["dataset", "trl", "videop2r"])
def test_files_of_others_stay_where_an_export_is_brought_up_to_date(
    tmp_path: Path, name: str
) -> None:
    formats = [] if name == "dataset" else [name]
    with empty_ledger(tmp_path) as ledger:
        export_dataset(ledger, tmp_path)
        export_further(ledger, tmp_path, formats)
        (tmp_path / name / "mine").mkdir()
        (tmp_path / name / "mine" / "notes.txt").write_text("mine")
        (tmp_path / name / "mine.parquet").write_text("no table")
        (tmp_path / f".{name}.old").mkdir()  # of an attempt that was interrupted
        (tmp_path / f".{name}.old" / "older.txt").write_text("mine")
        asked = question(3)
        ledger.add_question(asked)
        add_attempt(ledger, asked, score=1.0)
        export_dataset(ledger, tmp_path)
        export_further(ledger, tmp_path, formats)
    kept = {path.name for path in (tmp_path / name).iterdir()}
    assert {"mine", "mine.parquet", "older.txt"} < kept
    assert len(kept) == 4
    assert (tmp_path / name / "mine" / "notes.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()


def test_a_link_to_a_larger_disk_is_written_through(tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "data"
    disk.mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset").symlink_to(disk)
    with empty_ledger(tmp_path) as ledger:
        for number in range(2):
            asked = question(number)
            ledger.add_question(asked)
            add_attempt(ledger, asked, score=1.0)
            export_dataset(ledger, tmp_path / "out")
            (file,) = disk.iterdir()
            assert pq.read_metadata(file).num_rows == number + 1
    assert (tmp_path / "out" / "dataset").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["data"]


def test_a_folder_that_was_half_replaced_is_put_back(tmp_path: Path) -> None:
    with empty_ledger(tmp_path) as ledger:
        export_dataset(ledger, tmp_path)
        (tmp_path / "dataset" / "mine.txt").write_text("mine")
        (tmp_path / "dataset").rename(tmp_path / ".dataset.old")
        export_dataset(ledger, tmp_path)
    assert (tmp_path / "dataset" / "mine.txt").read_text() == "mine"
    assert not (tmp_path / ".dataset.old").exists()


@pytest.mark.parametrize("name", ["dataset", "pictures", "trl", "README.md", "progress.json"])
def test_what_stands_in_the_way_of_an_output_is_said(tmp_path: Path, name: str) -> None:
    refuse_unwritable_outputs(tmp_path)
    if "." in name:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=f"{name} is (no|a) folder.* move it away"):
        refuse_unwritable_outputs(tmp_path)
    refuse_unwritable_outputs(tmp_path / "new")
    (tmp_path / "new" / "dataset").mkdir(parents=True)
    (tmp_path / "new" / "dataset" / "mine.parquet").touch()
    with pytest.raises(UsageError, match=r"mine\.parquet was written by no build"):
        refuse_unwritable_outputs(tmp_path / "new")


def test_an_empty_videop2r_export_is_an_empty_list(tmp_path: Path) -> None:
    with empty_ledger(tmp_path) as ledger:
        export_videop2r(ledger, tmp_path)
    (part,) = (tmp_path / "videop2r").iterdir()
    assert json.loads(gzip.decompress(part.read_bytes())) == []


def test_trl_messages_are_plain_texts_with_the_gold_answer(tmp_path: Path) -> None:
    with empty_ledger(tmp_path) as ledger:
        asked = question(3)
        ledger.add_question(asked)
        add_attempt(
            ledger,
            asked,
            score=0.7,
            output="<observation>o</observation>\n<think>t</think><answer>nearly</answer>",
            answer="nearly",
        )
        export_trl(ledger, tmp_path)
    loaded = load(tmp_path / "trl", tmp_path / "cache")
    assert loaded.column_names == ["messages", "videos", "question_id"]
    user, assistant = loaded[0]["messages"]
    assert user["role"] == "user"
    assert user["content"].startswith("What happens in clip 3?")
    assert assistant == {
        "role": "assistant",
        "content": (
            "<observation>o</observation> <think>t</think><answer>thing 3 “happens”</answer>"
        ),
    }
    assert loaded[0]["videos"] == ["clips/003.mp4"]


def test_trl_names_videos_and_images_apart(tmp_path: Path) -> None:
    with empty_ledger(tmp_path) as ledger:
        ledger.add_questions(rich_questions())
        for asked in rich_questions():
            add_attempt(ledger, asked)
        export_trl(ledger, tmp_path)
    loaded = load(tmp_path / "trl", tmp_path / "cache")
    assert loaded.column_names == ["messages", "videos", "images", "question_id"]
    assert loaded["videos"][:] == [["clips/000.mp4"], ["clips/001.mp4"], [], ["clips/past.mp4"]]
    assert loaded["images"][:] == [[], [], ["stills/a b.png"], ["stills/now.png"]]
