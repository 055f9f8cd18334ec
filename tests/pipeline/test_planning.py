"""What a build knows of its rows before anything is decoded or paid."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from media.sampling import FrameSpec
from media.store import FrameStore
from pipeline.planning import CheckReport, PlannedRow, QuestionSource, plan
from schemas.samples import Reason, Rejection, Step

GOOD: dict[str, Any] = {
    "problem": "What falls?",
    "solution": "3",
    "media": [{"kind": "image", "path": "there.png"}],
    "problem_type": "numerical",
}


@pytest.fixture
def frames(tmp_path: Path) -> Iterator[FrameStore]:
    root = tmp_path / "media"
    root.mkdir()
    (root / "there.png").write_text("nothing is decoded here")
    (root / "empty.mp4").touch()
    with FrameStore(root, spec=FrameSpec(), cache_dir=None, workers=1) as store:
        yield store


def source(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> QuestionSource:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return QuestionSource(path, **options)


def media(*paths: str) -> dict[str, Any]:
    return {"media": [{"kind": "image", "path": path} for path in paths]}


@pytest.mark.parametrize(
    ("change", "step", "reason"),
    [
        ({"solution": "many"}, Step.READ, Reason.INVALID_QUESTION),
        (
            {"solution": "3 to 1", "problem_type": "temporal grounding"},
            Step.READ,
            Reason.INVALID_QUESTION,
        ),
        ({"problem": ""}, Step.READ, Reason.INVALID_QUESTION),
        (media("gone.png"), Step.MEDIA, Reason.MISSING_FILE),
        (media("there.png", "gone.png"), Step.MEDIA, Reason.MISSING_FILE),
        (media("empty.mp4"), Step.MEDIA, Reason.EMPTY_FILE),
        (media("../out.png"), Step.MEDIA, Reason.UNSAFE_PATH),
        # the question is looked at before its files
        ({"solution": "many"} | media("gone.png"), Step.READ, Reason.INVALID_QUESTION),
    ],
)
def test_a_row_that_cannot_become_a_sample_is_out_before_anything_is_paid(
    tmp_path: Path, frames: FrameStore, change: dict[str, Any], step: Step, reason: Reason
) -> None:
    bad, good = plan(source(tmp_path, GOOD | change, GOOD), frames)
    assert bad.rejection is not None
    assert (bad.rejection.step, bad.rejection.reason) == (step, reason)
    assert bad.rejection.detail
    assert good.rejection is None
    assert [bad.row.row, good.row.row] == [0, 1]


def test_the_limit_counts_rows_of_the_file(tmp_path: Path, frames: FrameStore) -> None:
    rows = [GOOD | {"problem": f"What falls in {number}?"} for number in range(5)]
    limited = source(tmp_path, GOOD | {"problem": ""}, *rows, limit=3)
    assert [planned.row.row for planned in plan(limited, frames)] == [0, 1, 2]


def test_the_digest_follows_the_content_and_not_the_name_or_the_limit(tmp_path: Path) -> None:
    one = source(tmp_path, GOOD)
    before = one.digest()
    moved = one.path.rename(tmp_path / "moved.jsonl")
    assert QuestionSource(moved, limit=1).digest() == before
    moved.write_text(moved.read_text().replace("falls", "rolls"))
    assert QuestionSource(moved).digest() != before


def test_the_digest_of_parts_tells_their_order_and_their_ends(tmp_path: Path) -> None:
    def digest(*parts: str) -> str:
        for number in range(3):
            (tmp_path / f"part{number}.jsonl").unlink(missing_ok=True)
        for number, text in enumerate(parts):
            (tmp_path / f"part{number}.jsonl").write_text(text)
        return QuestionSource(tmp_path / "part*.jsonl").digest()

    assert len({digest("ab", "c"), digest("c", "ab"), digest("a", "bc"), digest("abc")}) == 4


def test_the_check_counts_each_reason_and_shows_its_first_row(
    tmp_path: Path, frames: FrameStore
) -> None:
    rows = [GOOD | {"problem": f"What falls in {number}?"} for number in range(3)]
    bad = [GOOD | {"problem": f"{number}?"} | media("gone.png") for number in range(2)]
    report = CheckReport()
    for planned in plan(source(tmp_path, *rows, GOOD | {"solution": "many"}, *bad), frames):
        report.add(planned)
    first, most, least = report.text().splitlines()
    assert first == "6 questions read, 3 unusable"
    assert most.startswith("        2  media: missing_file   (first: row 4: ")
    assert least.startswith("        1  read: invalid_question   (first: row 3: ")


def test_a_check_of_good_rows_is_one_line(tmp_path: Path, frames: FrameStore) -> None:
    report = CheckReport()
    for planned in plan(source(tmp_path, GOOD), frames):
        report.add(planned)
        report.add(PlannedRow(planned.row, Rejection(Step.MEDIA, Reason.NO_FRAMES, "none")))
    assert report.text().splitlines()[0] == "2 questions read, 1 unusable"


def test_the_check_shows_the_first_question_as_it_was_read(
    tmp_path: Path, frames: FrameStore
) -> None:
    rows = [
        {"video": "gone.mp4", "question": "Which?", "candidates": ["x", "B"], "answer": "B"},
        {"video": "gone.mp4", "question": "Who?", "candidates": ["x", "y"], "answer": "z"},
    ]
    asked = source(tmp_path, rows[0] | {"start": 1.5, "end": 4}, rows[1])
    report = CheckReport(asked.format_found())
    for planned in plan(asked, frames):
        report.add(planned)
    assert report.text().splitlines()[3:] == [
        "format: mvbench",
        "types: multiple choice 1",
        "first row as read:",
        "  problem: Which?",
        "  options: A. x | B. B",
        "  solution: B",
        "  problem_type: multiple choice",
        "  media: video gone.mp4 from 1.5 to 4 s",
        "  data_source: MVBench",
    ]
    said = report.as_json()
    assert (said["format"], said["questions"], said["unusable"]) == ("mvbench", 2, 2)
    assert (said["first_row"]["options"], said["first_row"]["solution"]) == (["A. x", "B. B"], "B")
    assert said["first_row"]["media"] == [
        {"kind": "video", "path": "gone.mp4", "start": 1.5, "end": 4.0}
    ]
    assert said["types"] == {"multiple choice": 1}
    assert {row["reason"]: row["count"] for row in said["reasons"]} == {
        "missing_file": 1,
        "invalid_question": 1,
    }
