"""A question that cannot be shown costs its row, and the same one stands in for it everywhere."""

from pathlib import Path
from typing import Any

import pytest
from helpers.replays import RlWorld, rl_world

from media.frames import MediaError
from train.data.prompt_dataset import PromptDataset


@pytest.fixture
def world(tmp_path: Path) -> RlWorld:
    made = rl_world(tmp_path, num=4)
    for number in (1, 2):
        (tmp_path / f"{number}.mp4").write_bytes(b"no video")
    return made


def taken(rows: PromptDataset, number: int) -> int:
    question, prompt = rows[number]
    assert prompt["input_ids"].shape[1] > 10
    return question.row


def test_the_next_readable_row_stands_in(world: RlWorld, caplog: Any) -> None:
    rows = PromptDataset(world.questions, world.inputs.prompt)
    assert [taken(rows, number) for number in (0, 1, 2, 3, 1)] == [0, 3, 3, 3, 3]
    assert sorted(rows.lost) == [1, 2]
    assert "1.mp4" in rows.lost[1]
    assert caplog.text.count("is left out") == 2, "each row is told once"
    resumed = PromptDataset(world.questions, world.inputs.prompt)
    assert taken(resumed, 2) == 3
    world.loader.close()


def test_where_nothing_can_be_shown_it_ends(world: RlWorld, tmp_path: Path) -> None:
    rows = PromptDataset(world.questions[1:3], world.inputs.prompt)
    for _ in range(2):
        with pytest.raises(MediaError, match="none of the 2 questions"):
            rows[0]
    world.loader.close()
