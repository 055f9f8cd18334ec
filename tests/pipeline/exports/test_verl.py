"""verl's Parquet: fields, frame settings, clips, and which questions are in it.

verl's own dataset class reads it in `test_released_loaders.py`.
"""

from pathlib import Path
from typing import Any

import pytest
from helpers.built_ledger import add_attempt, built_ledger, question
from helpers.exports import WIDE, places_of, rows_of, trainer_ledger, trainer_questions

from pipeline.exports.formats import export_further
from pipeline.exports.verl import export_verl, frame_settings
from schemas.prompting import task_prompt
from schemas.questions import MediaRef
from schemas.samples import Reason, Rejection, Step
from train.integrations.completion_rewards import question_of
from train.integrations.rows import verl_row

ROOT = Path("/data/clips")
FRAMES = {"fps": 2.0, "min_frames": 4, "max_frames": 4}  # of `uniform:4`


def exported(folder: Path, asked: list[Any] | None = None, **config: Any) -> list[dict[str, Any]]:
    with trainer_ledger(folder, asked, **config) as ledger:
        export_verl(ledger, folder, ROOT)
    return rows_of(folder / "verl")


def test_a_row_has_the_fields_of_verls_examples(tmp_path: Path) -> None:
    (row,) = exported(tmp_path, trainer_questions()[:1])
    assert row == {
        "data_source": "kitchen/train",
        "prompt": [
            {"role": "user", "content": "<video>" + task_prompt(trainer_questions()[0]).text}
        ],
        "videos": [{"video": "/data/clips/clips/a.mp4", **FRAMES}],
        "ability": "multiple choice",
        "reward_model": {"style": "rule", "ground_truth": "B"},
        "extra_info": {
            "index": 0,
            "question_id": trainer_questions()[0].question_id,
            "question": row["extra_info"]["question"],
        },
    }
    assert WIDE in row["prompt"][0]["content"]
    assert question_of(row["extra_info"]["question"]) == trainer_questions()[0]


def test_what_our_rewards_read_is_what_the_rows_of_python_hold(tmp_path: Path) -> None:
    rows = exported(tmp_path)
    for row, asked in zip(rows[:4], trainer_questions()[:4], strict=True):  # the fifth is a clip
        other = verl_row(asked, "p2r", ROOT, agent=None)
        same = ("data_source", "prompt", "reward_model")
        assert {name: row[name] for name in same} == {name: other[name] for name in same}
        assert row["extra_info"]["question"] == other["extra_info"]["question"]
        paths = [video["video"] for video in row["videos"] or []]
        assert paths == other.get("videos", [])


def test_there_is_one_place_for_each_medium_and_no_empty_column(tmp_path: Path) -> None:
    rows = exported(tmp_path)
    assert [places_of(row["prompt"][0]["content"]) for row in rows] == [
        ["video"],
        ["video", "video"],
        ["image"],
        ["image", "video", "image"],
        ["video"],
    ]
    for row in rows:
        places = places_of(row["prompt"][0]["content"])
        assert places.count("video") == len(row["videos"] or [])
        assert places.count("image") == len(row["images"] or [])
    assert rows[3]["images"] == [
        {"image": "/data/clips/stills/é.png"},
        {"image": "/data/clips/stills/z.png"},
    ]
    (alone,) = exported(tmp_path / "images", [trainer_questions()[2]])
    assert "videos" not in alone


def test_a_clip_has_its_start_and_end_and_whole_files_beside_it_begin_at_0(tmp_path: Path) -> None:
    rows = exported(tmp_path)
    assert rows[4]["videos"] == [
        {"video": "/data/clips/clips/a.mp4", **FRAMES, "video_start": 1.0, "video_end": 3.0}
    ]
    assert rows[0]["videos"][0]["video_start"] == 0.0
    assert rows[0]["videos"][0]["video_end"] is None


@pytest.mark.parametrize(
    ("policy", "settings"),
    [
        ("uniform:16", {"fps": 2.0, "min_frames": 16, "max_frames": 16}),
        ("uniform:1", {"fps": 2.0, "min_frames": 2, "max_frames": 2}),
        ("fps:0.5,max=64", {"fps": 0.5, "min_frames": 2, "max_frames": 64}),
        ("fps:3,max=1", {"fps": 3.0, "min_frames": 2, "max_frames": 2}),
    ],
)
def test_frames_follow_the_policy_of_the_build(policy: str, settings: dict[str, float]) -> None:
    assert frame_settings(policy) == settings


def test_rl_gets_questions_that_gave_no_trace_but_none_whose_media_cannot_be_read(
    tmp_path: Path,
) -> None:
    """Of the thirty, row 5 has no file; six others were rejected later."""
    with built_ledger(tmp_path) as ledger:
        exported = export_verl(ledger, tmp_path, ROOT)
    rows = rows_of(tmp_path / "verl")
    assert [row["extra_info"]["index"] for row in rows] == [row for row in range(30) if row != 5]
    assert (exported.num_rows, exported.num_left_out) == (29, 1)
    assert exported.why_left_out == "their media could not be read"


def test_texts_with_marks_are_left_out_but_a_trace_with_one_is_not_asked(tmp_path: Path) -> None:
    with trainer_ledger(tmp_path) as ledger:
        asked = question(8, media=(MediaRef(kind="video", path="clips/a.mp4"),))
        ledger.add_question(asked)
        output = "<observation>An <image>.</observation> <think>t</think><answer>B</answer>"
        add_attempt(ledger, asked, output=output)
        exported = export_verl(ledger, tmp_path, ROOT)
    assert (exported.num_rows, exported.num_left_out) == (6, 2)
    assert exported.why_left_out.startswith("their text holds a mark as <video> or <|im_end|>")


def test_an_export_of_an_earlier_run_is_brought_up_to_date(tmp_path: Path) -> None:
    with trainer_ledger(tmp_path, trainer_questions()[:1], media_root="/here") as ledger:
        (first,) = export_further(ledger, tmp_path, ["verl"], Path("/there"))
        ledger.add_question(trainer_questions()[2])
        ledger.add_rejection(
            trainer_questions()[2].question_id, Rejection(Step.VERIFY, Reason.LOW_SCORE, "")
        )
        (later,) = export_further(ledger, tmp_path, [])
    assert first == f"{tmp_path}/verl: rows 1, media below /there"
    assert later == (
        f"{tmp_path}/verl: rows 2, media below /here (an earlier run asked for this format)"
    )
    rows = rows_of(tmp_path / "verl")
    assert rows[0]["videos"][0]["video"] == "/here/clips/a.mp4"
    assert rows[1]["images"] == [{"image": "/here/stills/é.png"}]
