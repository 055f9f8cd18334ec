"""The dataset of a real ledger, read back with pyarrow and `datasets`."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.built_ledger import add_attempt, built_ledger, empty_ledger, fill, question
from helpers.exports import ACCEPTED, bytes_of, load, rich_questions, rows_of

from pipeline.export import export_dataset, export_trl, export_videop2r
from pipeline.exports.parquet_files import DATASET_SCHEMA, count_words, write_parquet
from schemas.dataset_rows import question_of_row
from schemas.traces import TraceError

pytestmark = pytest.mark.heavy


def test_rows_stand_in_the_order_of_the_question_file_not_of_arrival(tmp_path: Path) -> None:
    with built_ledger(tmp_path) as ledger:  # settled from the last row to the first
        exported = export_dataset(ledger, tmp_path)
    rows = rows_of(tmp_path / "dataset")
    assert [int(row["problem_id"]) for row in rows] == ACCEPTED
    assert exported.num_rows == len(ACCEPTED) == 24


def test_a_row_holds_the_question_and_its_accepted_draw(tmp_path: Path) -> None:
    with built_ledger(tmp_path) as ledger:
        export_dataset(ledger, tmp_path)
    row = next(row for row in rows_of(tmp_path / "dataset") if row["problem_id"] == "17")
    assert row == {
        "problem_id": "17",
        "problem": "What happens in clip 17?",
        "options": [],
        "solution": "<answer>thing 17 “happens”</answer>",
        "path": "clips/017.mp4",
        "data_type": "video",
        "problem_type": "free-form",
        "data_source": "street/train",
        "question_id": question(17).question_id,
        "observation": " ".join(["seen"] * 18),
        "think": "thought 17 1",  # the first draw failed
        "answer": "thing 17 “happens”",
        "output": (
            f"<observation>{' '.join(['seen'] * 18)}</observation> <think>thought 17 1</think>"
            "<answer>thing 17 “happens”</answer>"
        ),
        "reward": 0.8,
        "judge": "claude:judge",
        "judge_reply": "<judgement>yes</judgement>",
        "generator": "claude:teacher",
        "prompt_id": "prompt-teacher",
        "frame_spec": "frames-1",
        "frame_indices": [0, 5, 10],
        "frame_times": [0.0, 0.5, 1.0],
        "paths": ["clips/017.mp4"],
        "kinds": ["video"],
        "spans": None,
        "answerable_blind": None,
        "blind_rate": None,
        "level": "",
        "time_clues": [],
    }


def test_columns_and_types_are_these_with_and_without_rows(tmp_path: Path) -> None:
    text, texts = pa.string(), pa.list_(pa.string())
    expected = {
        **dict.fromkeys(["problem_id", "problem", "solution", "path", "data_type"], text),
        **dict.fromkeys(["problem_type", "data_source", "question_id", "observation"], text),
        **dict.fromkeys(["think", "answer", "output", "judge", "judge_reply", "generator"], text),
        **dict.fromkeys(["prompt_id", "frame_spec", "level"], text),
        **dict.fromkeys(["options", "paths", "kinds"], texts),
        "reward": pa.float64(),
        "frame_indices": pa.list_(pa.int64()),
        "frame_times": pa.list_(pa.float64()),
        **dict.fromkeys(["time_clues", "spans"], pa.list_(pa.list_(pa.float64()))),
        "answerable_blind": pa.bool_(),
        "blind_rate": pa.float64(),
    }
    (tmp_path / "a").mkdir()
    with empty_ledger(tmp_path / "a") as ledger:
        assert export_dataset(ledger, tmp_path / "a").num_rows == 0
    with built_ledger(tmp_path) as ledger:
        export_dataset(ledger, tmp_path)
    for out in (tmp_path, tmp_path / "a"):
        (file,) = (out / "dataset").iterdir()
        schema = pq.read_schema(file)
        assert {field.name: field.type for field in schema} == expected


def test_datasets_loads_what_pyarrow_reads(tmp_path: Path) -> None:
    with built_ledger(tmp_path) as ledger:
        export_dataset(ledger, tmp_path)
    loaded = load(tmp_path / "dataset", tmp_path / "cache")
    assert loaded.to_list() == rows_of(tmp_path / "dataset")
    assert loaded.num_rows == 24


def test_datasets_streams_an_empty_dataset(tmp_path: Path) -> None:
    """Without streaming, `datasets` refuses any split that has no rows."""
    with empty_ledger(tmp_path) as ledger:
        export_dataset(ledger, tmp_path)
    empty = datasets.load_dataset(
        "parquet", data_files=f"{tmp_path}/dataset/*.parquet", split="train", streaming=True
    )
    assert list(empty) == []
    assert empty.column_names == DATASET_SCHEMA.names


def test_equal_content_gives_equal_bytes_whatever_the_run_and_the_order(tmp_path: Path) -> None:
    for name, number in (("a", 1), ("b", 2)):
        out = tmp_path / name
        out.mkdir()
        with empty_ledger(out, number) as ledger:
            fill(ledger, order=range(30) if number == 1 else [*range(15, 30), *range(15)])
            for export in (export_dataset, export_videop2r, export_trl):
                export(ledger, out)
    for folder in ("dataset", "videop2r", "trl"):
        assert bytes_of(tmp_path / "a" / folder)
        assert bytes_of(tmp_path / "a" / folder) == bytes_of(tmp_path / "b" / folder)
    (part,) = (tmp_path / "a" / "videop2r").iterdir()
    assert part.read_bytes()[3:8] == bytes(5)  # gzip: no flags (no file name), no time


@pytest.mark.parametrize(
    ("rows_per_file", "sizes"), [(10, [10, 10, 4]), (8, [8, 8, 8]), (24, [24])]
)
def test_files_are_cut_at_the_limit_and_none_is_empty(
    tmp_path: Path, rows_per_file: int, sizes: list[int]
) -> None:
    with built_ledger(tmp_path) as ledger:
        export_dataset(ledger, tmp_path, rows_per_file=rows_per_file)
        export_videop2r(ledger, tmp_path, rows_per_part=rows_per_file)
    files = sorted((tmp_path / "dataset").iterdir())
    count = len(sizes)
    assert [file.name for file in files] == [
        f"train-{index:05d}-of-{count:05d}.parquet" for index in range(count)
    ]
    assert [pq.read_metadata(file).num_rows for file in files] == sizes
    assert [int(row["problem_id"]) for row in rows_of(tmp_path / "dataset")] == ACCEPTED
    parts = [tmp_path / "videop2r" / f"sft.part{n}of{count}.json.gz" for n in range(1, count + 1)]
    assert sorted((tmp_path / "videop2r").iterdir()) == parts
    assert [len(json.loads(gzip.decompress(part.read_bytes()))) for part in parts] == sizes


def test_rows_are_written_a_row_group_at_a_time(tmp_path: Path) -> None:
    """While row 8 is asked for, the first group of 7 is on disk already."""
    with built_ledger(tmp_path) as ledger:
        export_dataset(ledger, tmp_path)
    (tmp_path / "small").mkdir()
    sizes = []

    def source() -> Iterator[dict[str, Any]]:
        for row in rows_of(tmp_path / "dataset"):
            sizes.append(sum(path.stat().st_size for path in (tmp_path / "small").iterdir()))
            yield row

    assert write_parquet(source(), tmp_path / "small", DATASET_SCHEMA, rows_per_group=7) == 24
    assert sizes[0] == sizes[6] < sizes[7] == sizes[13] < sizes[14]
    metadata = pq.read_metadata(next((tmp_path / "small").iterdir()))
    groups = [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)]
    assert groups == [7, 7, 7, 3]


def test_an_export_of_unchanged_rows_leaves_the_files_alone(tmp_path: Path) -> None:
    def written() -> list[tuple[str, int]]:
        files = sorted((tmp_path / "dataset").iterdir())
        return [(file.name, file.stat().st_mtime_ns) for file in files]

    with built_ledger(tmp_path) as ledger:
        assert export_dataset(ledger, tmp_path, rows_per_file=10).num_rows == 24
        first = written()
        assert export_dataset(ledger, tmp_path, rows_per_file=10).num_rows == 24
        assert written() == first
        asked = question(40)
        ledger.add_question(asked)
        add_attempt(ledger, asked)
        assert export_dataset(ledger, tmp_path, rows_per_file=10).num_rows == 25
    assert written() != first
    assert rows_of(tmp_path / "dataset")[-1]["problem_id"] == "40"


@pytest.mark.parametrize(
    "change",
    [
        {"output": "<observation>o</observation><think>t</think><answer>A</answer>"},
        {"frame_times": [0.0, 0.5, 1.5]},
        {"prompt_id": "prompt-other"},
    ],
)
def test_a_changed_trace_is_exported_although_the_number_of_rows_is_the_same(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    with built_ledger(tmp_path) as ledger:
        export_dataset(ledger, tmp_path)
        add_attempt(ledger, question(4), **change)
        export_dataset(ledger, tmp_path)
    row = next(row for row in rows_of(tmp_path / "dataset") if row["problem_id"] == "4")
    assert {name: row[name] for name in change} == change


@pytest.mark.parametrize("damage", ["removed", "emptied", "added"])
def test_a_damaged_dataset_is_written_anew(tmp_path: Path, damage: str) -> None:
    with built_ledger(tmp_path) as ledger:
        export_dataset(ledger, tmp_path, rows_per_file=10)
        before = bytes_of(tmp_path / "dataset")
        file = tmp_path / "dataset" / "train-00001-of-00003.parquet"
        if damage == "removed":
            file.unlink()
        elif damage == "emptied":
            file.write_bytes(b"")
        else:
            (tmp_path / "dataset" / "train-00003-of-00004.parquet").write_bytes(file.read_bytes())
        export_dataset(ledger, tmp_path, rows_per_file=10)
    assert bytes_of(tmp_path / "dataset") == before


def test_words_are_what_white_space_parts(tmp_path: Path) -> None:
    texts = ["one", "", "  two\n words ", "drei  Wörter—hier", "\t"]
    rows = [{"observation": text} for text in texts]
    write_parquet(rows, tmp_path, pa.schema([("observation", pa.string())]))
    assert count_words(tmp_path, "observation") == [len(text.split()) for text in texts]


def test_a_second_export_replaces_the_first_as_a_whole(tmp_path: Path) -> None:
    with built_ledger(tmp_path) as ledger:
        export_dataset(ledger, tmp_path, rows_per_file=5)
        (tmp_path / ".dataset.new").mkdir()  # what a kill in an earlier export leaves
        (tmp_path / ".dataset.new" / "part-00000").write_text("half a file")
        export_dataset(ledger, tmp_path)
    assert [path.name for path in (tmp_path / "dataset").iterdir()] == [
        "train-00000-of-00001.parquet"
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cot.duckdb", "dataset"]


def test_an_export_that_fails_leaves_the_former_one(tmp_path: Path) -> None:
    with built_ledger(tmp_path) as ledger:
        export_trl(ledger, tmp_path)
        before = bytes_of(tmp_path / "trl")
        asked = question(40)
        ledger.add_question(asked)
        add_attempt(ledger, asked, output="no trace at all")
        with pytest.raises(TraceError):
            export_trl(ledger, tmp_path)
    assert bytes_of(tmp_path / "trl") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cot.duckdb", "trl"]


def test_the_question_comes_back_out_of_its_row(tmp_path: Path) -> None:
    with empty_ledger(tmp_path) as ledger:
        ledger.add_questions(rich_questions())
        for asked in rich_questions():
            add_attempt(ledger, asked)
        export_dataset(ledger, tmp_path)
    rows = rows_of(tmp_path / "dataset")
    read_back = [question_of_row(row) for row in rows]
    expected = [asked.model_copy(update={"row": 0}) for asked in rich_questions()]
    assert read_back == expected
    assert [row["question_id"] for row in rows] == [asked.question_id for asked in read_back]
    assert [row["path"] for row in rows] == [
        "clips/000.mp4",
        "clips/001.mp4",
        "stills/a b.png",
        "clips/past.mp4",  # the first video, although an image comes first
    ]
    assert rows[3]["data_type"] == "video+image"
