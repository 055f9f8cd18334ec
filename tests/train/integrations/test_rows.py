"""Rows for other trainers: their keys, the prompt of `train.rl`, the question beside it."""

from pathlib import Path

import pytest
from helpers.judged_groups import QUESTION

from cli.config import UsageError
from schemas.prompting import task_prompt
from schemas.questions import MediaRef
from train.integrations.completion_rewards import question_of
from train.integrations.rows import swift_row, trl_row, verl_row

TEXT = task_prompt(QUESTION, "p2r").text
MIXED = QUESTION.model_copy(
    update={
        "media": (
            MediaRef(kind="image", path="b/one.png"),
            MediaRef(kind="video", path="a.mp4"),
            MediaRef(kind="image", path="two.png"),
        )
    }
)


def test_a_row_of_verl(tmp_path: Path) -> None:
    row = verl_row(QUESTION, "p2r", tmp_path)
    assert row["prompt"] == [{"role": "user", "content": "<video>" + TEXT}]
    assert row["videos"] == [str(tmp_path / "a.mp4")]
    assert "images" not in row
    assert row["reward_model"] == {"style": "rule", "ground_truth": "B"}
    assert row["agent_name"] == "p2r_segments"
    assert row["data_source"] == "p2r"
    assert question_of(row["extra_info"]["question"]) == QUESTION
    assert "agent_name" not in verl_row(QUESTION, "p2r", tmp_path, agent=None)


def test_a_row_of_ms_swift_has_its_media_in_their_order(tmp_path: Path) -> None:
    row = swift_row(MIXED, "p2r", tmp_path)
    content = row["messages"][0]["content"]
    assert content.startswith("<image><video><image>" + task_prompt(MIXED, "p2r").text[:20])
    assert row["images"] == [str(tmp_path / "b/one.png"), str(tmp_path / "two.png")]
    assert row["videos"] == [str(tmp_path / "a.mp4")]
    assert question_of(row["question"]) == MIXED
    assert row["solution"] == "B"


def test_a_row_of_trl_has_images_as_they_are_given() -> None:
    assert "images" not in trl_row(QUESTION, "p2r")
    row = trl_row(QUESTION, "p2r", ["one", "two"])
    assert row["images"] == ["one", "two"]
    assert row["prompt"] == [{"role": "user", "content": TEXT}]
    assert question_of(row["question"]) == QUESTION


def test_a_text_with_a_placeholder_is_refused(tmp_path: Path) -> None:
    odd = QUESTION.model_copy(update={"problem": "What does <video> mean?"})
    for row in (verl_row, swift_row):
        with pytest.raises(UsageError, match="contains '<video>'"):
            row(odd, "p2r", tmp_path)


def test_a_clip_is_not_given_as_its_whole_file(tmp_path: Path) -> None:
    clip = MediaRef(kind="video", path="a.mp4", start=1, end=2)
    part = QUESTION.model_copy(update={"media": (clip,)})
    for row in (verl_row, swift_row):
        with pytest.raises(UsageError, match="is about a part of a file"):
            row(part, "p2r", tmp_path)
