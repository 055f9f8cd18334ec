"""Files of questions: lines, parts, broken ends, and what stops before the first row."""

import csv
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.question_files import (
    ROW,
    question,
    read,
    unreadable,
    write,
)

from schemas.annotations.reader import UnreadableRow, read_questions
from schemas.questions import VideoQuestion
from schemas.samples import Reason


def test_rows_that_are_no_objects_are_reported_with_their_lines(tmp_path: Path) -> None:
    content = f"[\n{json.dumps(ROW)},\n3,\nnull,\n{json.dumps(ROW | {'problem': 'B?'})}]"
    rows = read(tmp_path, content)
    assert [type(row).__name__ for row in rows] == [
        "VideoQuestion",
        "UnreadableRow",
        "UnreadableRow",
        "VideoQuestion",
    ]
    assert [(row.row, row.line, row.reason) for row in rows if isinstance(row, UnreadableRow)] == [
        (1, 3, Reason.UNREADABLE_ROW),
        (2, 4, Reason.UNREADABLE_ROW),
    ]
    assert "expected an object, got 3" in unreadable(rows, 1).detail


def test_a_file_broken_in_the_middle_gives_all_before_the_break(tmp_path: Path) -> None:
    good = [ROW | {"problem": f"Question {number}?"} for number in range(50)]
    content = json.dumps(good, indent=1)
    rows = read(tmp_path, content[: content.index("Question 40") + 5])
    assert [row.row for row in rows] == list(range(41))
    assert all(isinstance(row, VideoQuestion) for row in rows[:40])
    bad = unreadable(rows, 40)
    assert bad.reason is Reason.UNREADABLE_ROW
    assert "nothing after this could be read" in bad.detail


def test_json_lines_of_video_r1_rows_are_read_too(tmp_path: Path) -> None:
    content = f"{json.dumps(ROW)}\noops\n{json.dumps(ROW | {'problem': 'B?'})}\n"
    rows = read(tmp_path, content, "q.jsonl")
    assert (unreadable(rows, 1).line, unreadable(rows, 1).reason) == (2, Reason.UNREADABLE_ROW)
    assert question(rows, 2).row == 2


def test_parts_are_read_in_their_natural_order_as_one_file(tmp_path: Path) -> None:
    for part in (10, 1, 2):
        rows = [ROW | {"problem": f"part {part} row {row}?"} for row in range(2)]
        write(tmp_path, gzip.compress(json.dumps(rows).encode()), f"rl.part{part}of10.json.gz")
    many = [ROW | {"problem": f"{number * 7919 % 10007}?"} for number in range(5000)]
    packed = gzip.compress(json.dumps(many).encode())
    write(tmp_path, packed[: len(packed) // 2], "rl.part9of10.json.gz")
    rows = list(read_questions(tmp_path / "rl.part*of10.json.gz"))
    places = [*range(4), -2, -1]  # part 10 stands last, behind a part that was cut
    assert [question(rows, place).problem for place in places] == [
        f"part {part} row {row}?" for part in (1, 2, 10) for row in range(2)
    ]
    assert [row.row for row in rows] == list(range(len(rows)))
    bad = [row for row in rows if isinstance(row, UnreadableRow)]
    assert len(bad) == 1
    assert bad[0].detail.startswith("rl.part9of10.json.gz: ")


def test_a_duplicate_is_found_across_parts(tmp_path: Path) -> None:
    for part in (1, 2):
        write(tmp_path, [ROW], f"p{part}.json")
    rows = list(read_questions(tmp_path / "p*.json"))
    assert unreadable(rows, 1).reason is Reason.DUPLICATE


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \n\n ", "is empty"),
        ([], "holds no questions"),
        ("[", "cannot tell the format"),
        ([{"a": 1, "b": 2}], "has the fields a, b; known are video-r1, "),
        ([1, 2], "its first record is 1, expected an object"),
        ("hello\nworld\n", "cannot tell the format .* line 1: not JSON"),
        (b"\x1aE\xdf\xa3\0\0\0\0", "neither JSON nor CSV"),
        (b"PAR1\0\0\0\0", "cannot be read as Parquet"),
        (gzip.compress(b"[]", mtime=0)[:9], "cannot read"),
    ],
)
def test_a_file_without_questions_is_refused_in_one_sentence(
    tmp_path: Path, content: Any, sentence: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_questions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_files_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no question file at"):
        read_questions(tmp_path / "missing.json")
    with pytest.raises(ValueError, match="no question file at"):
        read_questions(tmp_path / "missing*.json")
    with pytest.raises(ValueError, match="is a directory"):
        read_questions(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_questions(tmp_path / "pipe")


def test_unknown_formats_and_empty_prefixes_are_refused_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, [ROW])
    with pytest.raises(ValueError, match="unknown format 'csv': expected one of auto, video-r1"):
        read_questions(path, format="csv")
    with pytest.raises(ValueError, match="prefix"):
        read_questions(path, strip_prefix=("/",))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_of_the_documented_fields_is_read(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "questions.csv"
    fields = {
        "problem": "What is seen?",
        "options": '["A. cat", "B. dog"]',
        "solution": "B",
        "problem_type": "multiple choice",
        "media": '[{"kind": "video", "path": "a.mp4"}]',
    }
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(fields)
        writer.writerow(fields.values())
    (question,) = read_questions(path)
    assert isinstance(question, VideoQuestion)
    assert (question.solution, question.media[0].path) == ("B", "a.mp4")
    assert question.options == ("A. cat", "B. dog")


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".arrow":
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    else:
        pq.write_table(table, path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_dataset_folder_is_read_part_by_part(tmp_path: Path, suffix: str) -> None:
    for part in (1, 0):
        rows = [ROW | {"problem": f"part {part} row {row}?"} for row in range(2)]
        write_table(tmp_path / "data" / f"train-{part:05d}-of-00002{suffix}", rows)
    (tmp_path / "README.md").write_text("about")
    found = list(read_questions(tmp_path))
    assert [question(found, n).problem for n in range(4)] == [
        f"part {part} row {row}?" for part in (0, 1) for row in (0, 1)
    ]


def test_a_folder_of_several_splits_names_them(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_table(tmp_path / "data" / f"{split}-00000-of-00001.parquet", [ROW])
    with pytest.raises(ValueError, match="holds several tables; give one of them") as caught:
        read_questions(tmp_path)
    assert f"{tmp_path}/data/test*.parquet, {tmp_path}/data/train*.parquet" in str(caught.value)
    assert len(list(read_questions(tmp_path / "data" / "test*.parquet"))) == 1


def test_a_table_that_breaks_off_gives_what_stood_before(tmp_path: Path) -> None:
    rows = [ROW | {"problem": f"{n}?", "process": "x" * 300 + str(n)} for n in range(4000)]
    path = tmp_path / "q.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=500, compression="none")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = b"\xff" * 4000
    path.write_bytes(content)
    found = list(read_questions(path))
    bad = [row for row in found if isinstance(row, UnreadableRow)]
    assert len(bad) == 1
    assert bad[0].row == len(found) - 1 >= 500
    assert "cannot be read as Parquet" in bad[0].detail
    assert bad[0].detail.endswith("nothing after this could be read")


def test_a_file_called_csv_is_one_whatever_its_columns_are(tmp_path: Path) -> None:
    path = write(tmp_path, "ask,reply\nWhat?,3\n", "q.csv")
    with pytest.raises(ValueError, match="its first record has the fields ask, reply"):
        read_questions(path)
