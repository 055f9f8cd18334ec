"""Every command in hard places: a full disk, folders that cannot be written or belong to others,
Ctrl-C at any moment. Never a traceback, always one sentence and the status that the pages promise.

The tests may run as root, whom rights do not stop: a file in place of a folder and `/proc` stand in
for read-only places, the limit on the size of a file for a full disk.
"""

from pathlib import Path
from shutil import copytree

import pytest
from helpers.hard_places import (
    COMMANDS,
    FOLDER_WRITERS,
    WRITERS,
    cells,
    environment,
    own_inputs,
    prepared,
    run,
    snapshot,
    words_of,
)

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(600)]

FIRST_WRITE, LATER_WRITE = 100, 30_000  # bytes that a file may have
INTERRUPTED_AFTER = (0.3, 1.0, 3.0, 8.0)  # seconds
LONG_ENOUGH = 60.0  # seconds after which a command has begun to write


@pytest.mark.parametrize(("command", "limit"), cells(WRITERS, [FIRST_WRITE, LATER_WRITE]))
def test_a_full_disk_is_one_sentence(command: str, limit: int, tmp_path: Path) -> None:
    words = words_of(command, tmp_path / "out", own_inputs(tmp_path))
    done = run(words, tmp_path, max_file_bytes=limit)
    # what is smaller than the limit is written
    done.check(*((2, 3) if limit == FIRST_WRITE else (0, 1, 2, 3)))


@pytest.mark.parametrize(
    ("command", "place"),
    cells(
        [name for name in WRITERS if "{out}" in COMMANDS[name]],
        ["file.txt/out", "/proc/out", "file.txt"],
    ),
)
def test_a_place_that_cannot_be_written_is_one_sentence(
    command: str, place: str, tmp_path: Path
) -> None:
    (tmp_path / "file.txt").write_text("mine", "utf-8")
    words = words_of(command, tmp_path / place, own_inputs(tmp_path))
    done = run(words, tmp_path)
    is_beside = place == "file.txt" and command not in FOLDER_WRITERS  # `file.txt.json`
    done.check(*((0,) if is_beside else (2, 3)))
    assert (tmp_path / "file.txt").read_text("utf-8") == "mine"


@pytest.mark.parametrize("command", FOLDER_WRITERS)
def test_the_folder_of_another_command_is_refused(command: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    name = "build" if command != "pipeline.build_cot" else "audit"
    copytree(prepared() / name, out)
    before = snapshot(out)
    done = run(words_of(command, out, own_inputs(tmp_path)), tmp_path)
    done.check(2)
    assert snapshot(out) == before


@pytest.mark.parametrize("command", FOLDER_WRITERS)
def test_files_of_others_are_left_alone(command: str, tmp_path: Path) -> None:
    """Refused, or written beside; never replaced."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("thesis.txt", "README.md", "config.json", "report.json", "index.html"):
        (out / name).write_text("mine", "utf-8")
    before = snapshot(out)
    words = words_of(command, out, own_inputs(tmp_path))
    done = run(words, tmp_path, interrupt_after=LONG_ENOUGH)
    done.check(0, 2, 3)
    assert snapshot(out).items() >= before.items()


@pytest.mark.parametrize(
    "command", ["pipeline.build_cot", "train.sft", "train.rl", "train.evaluate model"]
)
def test_a_home_that_cannot_be_written_is_one_sentence(command: str, tmp_path: Path) -> None:
    """Where frames are kept when no `--frame-cache` is given."""
    words = words_of(command, tmp_path / "out", own_inputs(tmp_path))
    place = words.index("--frame-cache")
    del words[place : place + 2]
    nowhere = environment(HOME="/proc/nobody", XDG_CACHE_HOME="/proc/nobody/cache")
    run(words, tmp_path, env=nowhere).check(2)


@pytest.mark.parametrize(("command", "seconds"), cells([*COMMANDS], INTERRUPTED_AFTER))
def test_ctrl_c_at_any_moment_stops_without_a_traceback(
    command: str, seconds: float, tmp_path: Path
) -> None:
    words = words_of(command, tmp_path / "out", own_inputs(tmp_path))
    done = run(words, tmp_path, interrupt_after=seconds)
    # -2: the interpreter had not begun with the command; 0: the command was done
    done.check(0, 3, -2)
