"""What a user got wrong ends every command at the door: one sentence and status 2, before torch or
transformers are loaded, before a folder is claimed or anything is written.

That they are not loaded is what makes it fast; a clock on a busy machine would say nothing.
"""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.doors import Doors, opened_doors
from helpers.hard_places import (
    COMMANDS,
    FOLDER_WRITERS,
    TRACEBACK,
    module_of,
    prog_of,
    snapshot,
    words_of,
)

pytestmark = pytest.mark.heavy

HEAVY = ("torch", "transformers", "trl", "accelerate")
_QUESTION = {
    "problem": "What is it?",
    "options": ["A. red", "B. blue"],
    "solution": "<answer>A</answer>",
    "problem_type": "multiple choice",
    "data_type": "video",
    "path": "./clip.mp4",
}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """What looks like the inputs of all commands to those who only look whether they are there."""
    folder = tmp_path / "inputs"
    for name in ("world", "build/dataset", "audit", "tiny", "learner", "cache"):
        (folder / name).mkdir(parents=True)
    rows = [{**_QUESTION, "problem_id": number} for number in range(4)]
    (folder / "world/questions.json").write_text(json.dumps(rows), "utf-8")
    (folder / "world/clip.mp4").touch()
    table = pa.table({"question_id": ["a"], "output": ["b"]})
    pq.write_table(table, folder / "build/dataset/train-00000-of-00001.parquet")
    (folder / "predictions.jsonl").write_text("{}\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def doors(repository: Path) -> Iterator[Doors]:
    with opened_doors(repository) as opened:
        yield opened


Refused = Callable[..., str]


@pytest.fixture
def refused(doors: Doors, tmp_path: Path) -> Refused:
    """The one sentence of a command that ends at the door and leaves its folder as it was."""

    def run(words: list[str], missing: str = "") -> str:
        before = snapshot(tmp_path)
        done = doors.run(words, tmp_path, missing=missing)
        said = done.out + done.err
        assert (done.status, TRACEBACK in said) == (2, False), said
        assert not done.modules & {*HEAVY}, f"{done.modules & {*HEAVY}} for: {said}"
        assert snapshot(tmp_path) == before
        lines = done.err.splitlines()
        assert len(lines) == 1, said
        assert lines[0].startswith(prog_of(words[0])), said
        return lines[0]

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_option(command: str, tmp_path: Path, inputs: Path, refused: Refused) -> None:
    words = [*words_of(command, tmp_path / "out", inputs), "--sede", "3"]
    assert "unknown option --sede; did you mean --" in refused(words)


_MARKS = {
    "world/questions.json": "{world}/questions.json",
    "world": "--media-root {world}",
    **{name: f"{{{name}}}" for name in ("build", "tiny", "learner", "audit")},
    "predictions.jsonl": "{predictions}",
}


_READERS = ("judges.", "pipeline.browse", "sandbox.truth", "train.plan")
MISSING = [
    (command, name)
    for command in COMMANDS
    for name, mark in _MARKS.items()
    if mark in COMMANDS[command]
    # Where a build or an audit is read, the media are asked for once it is known what they show.
    if not (command.startswith(_READERS) and name == "world")
]


@pytest.mark.parametrize(("command", "name"), MISSING)
def test_a_missing_input(
    command: str, name: str, tmp_path: Path, inputs: Path, refused: Refused
) -> None:
    whole = words_of(command, tmp_path / "out", inputs)
    words = [f"{word}-nowhere" if word == str(inputs / name) else word for word in whole]
    assert words != whole
    assert f"{name}-nowhere" in refused(words)


@pytest.mark.parametrize("command", FOLDER_WRITERS)
def test_the_folder_of_another_command(
    command: str, tmp_path: Path, inputs: Path, refused: Refused
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    is_build = command == "pipeline.build_cot"
    mark, begun = ("max_per_video", "audit.duckdb") if is_build else ("attempts", "cot.duckdb")
    (out / "config.json").write_text(json.dumps({mark: 1}), "utf-8")
    (out / begun).write_text("rows", "utf-8")
    said = refused(words_of(command, out, inputs))
    assert f"{out}" in said


WRONG = {
    "algorithm": ("train.rl", "--algo appo", "unknown algorithm 'appo'"),
    "frames": ("train.rl", "--frames all", "--frames all"),
    "tracker of rl": ("train.rl", "--report-to wandb", "pip install wandb"),
    "tracker of rl and others": ("train.rl", "--report_to=none mlflow", "pip install mlflow"),
    "tracker of sft": ("train.sft", "--report-to wandb", "pip install wandb"),
    "tracker by file": ("train.sft", "--config {file}", "pip install clearml"),
    "key of a file": ("train.rl", "--config {keys}", "unknown key 'learning_rat'"),
    "judge in no folder": ("train.rl", "--judge local:{inputs}/none", "there is no such folder"),
    "judge of nobody": ("judges.audit run", "--judge gtp:4", "names no backend"),
    "judge that is nowhere": ("judges.audit run", "--judge local:./none", "no such folder"),
    "teacher that is nowhere": ("pipeline.build_cot", "--generator local:/none", "no such folder"),
    "reader that is nowhere": ("train.evaluate", "--blind local:/none", "no such folder"),
    "other answers": ("train.evaluate", "--compare none.jsonl", "none.jsonl"),
    "a name like a path": ("train.sft", "--model inputs/tinny", "did you mean inputs/tiny?"),
    "a path": ("train.plan", "--model ./none", "there is no such folder"),
    "a deep path": ("train.evaluate model", "--model out/sft/model", "there is no such folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value(case: str, tmp_path: Path, inputs: Path, refused: Refused) -> None:
    command, given, told = WRONG[case]
    (inputs / "tracker.yaml").write_text("report-to: clearml\n", "utf-8")
    (inputs / "keys.yaml").write_text("learning_rat: 1\n", "utf-8")
    places = {"file": inputs / "tracker.yaml", "keys": inputs / "keys.yaml", "inputs": inputs}
    words = words_of(command, tmp_path / "out", inputs) + shlex.split(given.format(**places))
    assert told in refused(words)


EXTRAS = {
    "train.sft": ("trl", "train"),
    "train.rl": ("peft", "train"),
    "train.plan": ("transformers", "train"),
    "train.evaluate model": ("transformers", "train"),
    "sandbox.tiny_model": ("transformers", "local"),
    "sandbox.warm_up": ("transformers", "train"),
    "sandbox.crucial_frames": ("accelerate", "train"),
    "sandbox.llama_judge": ("transformers", "local"),
    "sandbox.learning": ("trl", "train"),
}


@pytest.mark.parametrize("command", EXTRAS)
def test_a_missing_extra(command: str, tmp_path: Path, inputs: Path, refused: Refused) -> None:
    package, extra = EXTRAS[command]
    (inputs / "world/world.json").write_text("{}", "utf-8")
    said = refused(words_of(command, tmp_path / "out", inputs), package)
    assert f"[{extra}]" in said
    assert package in said


def test_every_command_stands_in_the_table() -> None:
    assert {module_of(command)[0] for command in COMMANDS} >= {"pipeline.build_cot", "train.rl"}
