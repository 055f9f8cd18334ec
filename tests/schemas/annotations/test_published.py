"""The readers on the real files: exact counts, and rows checked by hand against the source."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from schemas.annotations.reader import UnreadableRow, read_questions
from schemas.answer_options import duplicate_options
from schemas.questions import VideoQuestion

pytestmark = pytest.mark.data


def questions(path: Path, **options: object) -> list[VideoQuestion]:
    rows = list(read_questions(path, **options))  # type: ignore[arg-type]
    assert not [row for row in rows if isinstance(row, UnreadableRow)]
    found = [row for row in rows if isinstance(row, VideoQuestion)]
    assert [question.row for question in found] == list(range(len(rows)))
    return found


def test_the_27_real_questions(shared_data: Path) -> None:
    found = questions(shared_data / "real" / "questions.json")
    assert Counter(question.problem_type.value for question in found) == {
        "multiple choice": 16,
        "OCR": 3,
        "numerical": 3,
        "regression": 2,
        "free-form": 2,
        "temporal grounding": 1,
    }
    assert Counter(question.data_type for question in found) == {"video": 25, "image": 2}
    assert found[0].solution == "C"
    assert found[0].options[2] == "C. She holds her fist up to the camera"
    assert found[2].solution == "4.4 to 5.2"
    assert found[2].time_clues == ((4.4, 5.2),)
    assert found[11].solution == "1.6"
    for question in found:
        assert (shared_data / "real" / question.media[0].path).is_file()


def test_next_gqa_validation_set(shared_data: Path) -> None:
    folder = shared_data / "annotations" / "nextgqa"
    found = questions(folder / "val.csv")
    assert len(found) == 3358
    assert all(question.time_clues for question in found)
    assert sum(len(question.time_clues) for question in found) == sum(
        len(spans)
        for video in json.loads((folder / "gsub_val.json").read_text()).values()
        for spans in video["location"].values()
    )
    first = found[0]
    assert first.problem.startswith("why did the boy pick up one present from the group")
    assert (first.solution, first.options[2]) == ("C", "C. unwrap it")
    assert first.time_clues == ((13.8, 29.8),)
    assert first.media[0].path == "1104/4882821564.mp4"
    # Each gold letter stands before the gold text, read by another reader of the same file.
    with (folder / "val.csv").open(newline="") as file:
        for question, row in zip(found, csv.DictReader(file), strict=True):
            gold = question.options["ABCDE".index(question.solution)]
            assert gold == f"{question.solution}. {row['answer'].strip()}"
    # One question has twice "scarf".
    doubled = [question for question in found if duplicate_options(question.options)]
    assert [(q.problem, duplicate_options(q.options)) for q in doubled] == [
        ("what does the man wear on his head", ("E",))
    ]


def test_appo_next_gqa_sample_agrees_with_the_published_csv(shared_data: Path) -> None:
    annotations = shared_data / "annotations"
    sample = questions(annotations / "nextgqa_val.sample.json")
    assert len(sample) == 43
    published = {q.problem_id: q for q in questions(annotations / "nextgqa" / "val.csv")}
    for question in sample:
        other = published[question.problem_id]
        assert question.options == other.options
        assert question.solution == other.solution
        assert question.time_clues == other.time_clues
        assert question.media[0].path.startswith("/group/40061/")
    prefix = "/group/40061/cserdu/data/Next-QA/videos/NExTVideo"
    stripped = questions(annotations / "nextgqa_val.sample.json", strip_prefix=(prefix,))
    assert stripped[0].media[0].path == "4882821564.mp4"


def test_appo_perception_test_sample(shared_data: Path) -> None:
    path = shared_data / "annotations" / "perception_test.sample.json"
    found = questions(path)
    assert found == questions(path, format="perception-test")
    assert len(found) == 40
    assert (found[0].problem_id, found[0].problem, found[0].solution) == (
        "29",
        "Where is the person?",
        "C",
    )
    assert {len(question.options) for question in found} == {3}


def test_appo_seed_bench_sample(shared_data: Path) -> None:
    path = shared_data / "annotations" / "seed_bench_r1.sample.json"
    found = questions(path)
    assert len(found) == 29
    for question, record in zip(found, json.loads(path.read_text()), strict=True):
        texts = [option[3:] for option in question.options]
        assert texts["ABCD".index(question.solution)] == record["answer"]
        assert len(set(texts)) == 4
        assert set(texts) <= {record["answer"], *record["negative_answers"]}
    # Pinned: a dataset built today and one built on another machine have the same options.
    assert found[0].options == (
        "A. take sponge",
        "B. wash sponge",
        "C. turn tap on",
        "D. clean microwave",
    )
