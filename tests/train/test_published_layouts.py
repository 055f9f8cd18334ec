"""A row of every published layout on its whole way: check, build, SFT, RL and evaluation."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers.builds import build_command, dataset_rows, query, run_build
from helpers.evaluations import arguments, command, environment
from helpers.published_rows import FIRST, PUBLISHED, Published, write_published
from helpers.tiny_rl import rl_command, run_rl
from helpers.training_world import tiny_model_folder
from servers.model_server import RunningServer

from sandbox.clips import main as render
from schemas.annotations.reader import read_questions
from schemas.dataset_rows import question_of_row
from schemas.questions import VideoQuestion

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(600)]


def one_of_each() -> list[Published]:
    """The last row of each format in the table, asked in words of its own."""
    rows = {(row.name, row.span is None): row for row in PUBLISHED}
    return [
        replace(row, record=_asked(row.record, place)) for place, row in enumerate(rows.values())
    ]


def _asked(record: Any, place: int) -> Any:
    text, problem = json.dumps(record), f"Which colour is first in {place}?"
    text = text.replace(FIRST, problem).replace("What happens?", problem)
    return json.loads(text.replace("a door opens.", f"door {place} opens."))


@dataclass(frozen=True)
class World:
    """The files of all layouts, which a pattern names, and clips where their rows look for them."""

    questions: Path
    media: Path
    folder: Path
    read: list[VideoQuestion]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("layouts")
    assert render(["--out", str(folder / "sandbox"), "--clips", "1", "--stills", "0"]) == 0
    (clip,) = (folder / "sandbox").rglob("*.mp4")
    (folder / "files").mkdir()
    read = []
    for place, row in enumerate(one_of_each()):
        path = write_published(folder, row)
        path = path.rename(folder / "files" / f"{place:02d}{path.suffix}")
        (question,) = read_questions(path)
        assert isinstance(question, VideoQuestion), (row.name, question)
        (target := folder / "media" / row.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, target)
        read.append(question)
    return World(folder / "files" / "*", folder / "media", folder, read)


def test_the_files_of_all_layouts_are_checked_at_once(world: World) -> None:
    words = ["--check", "--check-decode", "--json"]
    done = run_build(
        build_command(world.questions, world.folder / "none", *words, media_root=world.media), None
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["questions"], said["unusable"]) == (len(world.read), 0)
    assert set(said["format"].split(", ")) == {row.name for row in PUBLISHED}


def test_a_row_of_each_layout_is_built_and_fine_tuned_on(
    world: World, model_server: RunningServer
) -> None:
    trace = "<observation>The things stand there.</observation> <think>So.</think>"
    rules = [{"contains": "### Observations", "reply": "It is. <judgement>Yes</judgement>"}]
    rules += [
        {"contains": question.problem, "reply": f"{trace}<answer>{question.solution}</answer>"}
        for question in world.read
    ]
    model_server.control(replies=rules)
    out = world.folder / "build"
    command = build_command(
        world.questions, out, "--frames", "uniform:4", "--allow-leaks", media_root=world.media
    )
    done = run_build(command, model_server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dataset_rows(out)
    assert [question_of_row(row).question_id for row in rows] == [
        question.question_id for question in world.read
    ]
    spans = [row["spans"] for row in rows if row["spans"]]
    assert spans == [[[1.5, 4.0]]]
    (cut,) = (row for row in rows if row["spans"])
    assert all(1.5 <= time < 4 for time in cut["frame_times"])
    specs = query(out, "select count(distinct frame_spec_id) from media")
    assert specs == [(2,)]  # of whole files, and of the clip
    words = [
        *(sys.executable, "-m", "train.sft", "--dataset", str(out)),
        *("--model", str(tiny_model_folder("qwen2.5-vl")), "--media-root", str(world.media)),
        *("--out", str(world.folder / "sft"), "--max-steps", "1", "--held-out-rows", "0"),
        *("--batch-size", "4", "--frames", "uniform:4", "--max-pixels", "3136"),
        *("--frame-cache", str(world.folder / "cache")),
    ]
    trained = subprocess.run(
        words, env=environment(), capture_output=True, text=True, check=False, timeout=280
    )
    assert trained.returncode == 0, trained.stderr[-2000:]
    assert (world.folder / "sft" / "model.safetensors").is_file()


def test_a_row_of_each_layout_is_learned_from_by_rl(world: World, repository: Path) -> None:
    out = world.folder / "rl"
    words = rl_command(
        world.media, out, "--max-steps", "1", "--questions", str(world.questions), algo="grpo"
    )
    done = run_rl(words, world.folder, repository)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "cannot be read" not in done.stderr
    assert (out / "model" / "model.safetensors").is_file()


def test_a_row_of_each_layout_is_evaluated(world: World) -> None:
    out = world.folder / "evaluation"
    words = arguments("qwen2.5-vl", world.questions, out, "--media-root", str(world.media))
    done = subprocess.run(
        command(*words), env=environment(), capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    predicted = pq.read_table(out / "predictions.parquet").to_pylist()
    assert len(predicted) == len(world.read)
    assert {row["question_id"] for row in predicted} == {one.question_id for one in world.read}
    assert [row["error"] for row in predicted if row["error"]] == []
