"""A command goes on in its own folder and takes nobody else's."""

import errno
import json
from pathlib import Path

import pytest
import torch
from helpers.config_classes import product_config_classes

from cli.config import UsageError
from cli.output_folder import (
    MADE_BY,
    OWNERS,
    Owner,
    check_folder,
    claim_folder,
    full_disk_is_told,
    has_begun,
    left_as_it_was,
    make_folder,
    make_room_for,
)

COMMANDS = [owner.command for owner in OWNERS]


def filled(folder: Path, owner: Owner, *, begun: bool = True) -> Path:
    """A folder as a command leaves it, by the names in the table."""
    folder.mkdir(parents=True, exist_ok=True)
    is_named = owner.options_file == MADE_BY
    text = owner.command if is_named else json.dumps({owner.mark: 1, "output_dir": "x"})
    (folder / owner.options_file).write_text(text)
    for pattern in owner.begun if begun else ():
        (folder / pattern.replace("*", "7")).write_text("made")
    return folder


def refusal(folder: Path, command: str) -> str:
    with pytest.raises(UsageError) as error:
        check_folder(folder, command)
    return str(error.value)


@pytest.mark.parametrize("owner", OWNERS, ids=COMMANDS)
def test_no_command_takes_a_folder_that_another_one_filled(owner: Owner, tmp_path: Path) -> None:
    folder = filled(tmp_path / "out", owner)
    assert check_folder(folder, owner.command)
    before = sorted(path.name for path in folder.iterdir())
    for command in COMMANDS:
        if command != owner.command:
            words = refusal(folder, command)
            assert f"holds {owner.what} of {owner.command}; give {command} another" in words
            assert len(words) < 300, "the sentence says what the folder holds, not all of it"
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("owner", OWNERS, ids=COMMANDS)
def test_a_run_that_never_began_owns_nothing(owner: Owner, tmp_path: Path) -> None:
    if owner.writes == ("*",):
        return  # its first file is its beginning
    for command in COMMANDS:
        folder = filled(tmp_path / command, owner, begun=False)
        assert check_folder(folder, owner.command)
        assert not has_begun(folder, owner.command)
        if command != owner.command and {"*"} != {*_owner(command).writes}:
            claim_folder(folder, command)
            filled(folder, _owner(command))
            assert check_folder(folder, command)
            assert refusal(folder, owner.command)


@pytest.mark.parametrize("owner", OWNERS, ids=COMMANDS)
def test_files_that_would_be_replaced_are_named(owner: Owner, tmp_path: Path) -> None:
    for number, pattern in enumerate(owner.writes):
        folder = tmp_path / str(number)
        folder.mkdir()
        name = pattern.replace("*", "mine.txt")
        (folder / name).write_text("mine")
        words = refusal(folder, owner.command)
        assert f"holds {name}, but not the {owner.options_file} of a run" in words


def test_logs_and_hidden_files_stand_in_nobodys_way(tmp_path: Path) -> None:
    for name in ("train.log", "slurm-1.out", ".gitignore", "notes.txt"):
        (tmp_path / name).write_text("mine")
    for command in ("pipeline.build_cot", "train.sft", "train.rl", "train.evaluate"):
        assert not check_folder(tmp_path, command)
    assert refusal(tmp_path, "sandbox.clips").startswith(
        f"--output-dir {tmp_path} holds notes.txt, slurm-1.out, train.log, but not"
    )


def test_what_is_no_folder_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for command in COMMANDS:
        assert "is a file; give a folder" in refusal(file, command)
        assert "cannot be written" in refusal(file / "a" / "b", command)
        assert "is a link that leads nowhere" in refusal(link, command)
    for command in ("pipeline.build_cot", "train.rl", "train.evaluate", "judges.audit sample"):
        assert "question mark in its path" in refusal(tmp_path / "a[1]*?x" / "out", command)
    for command in COMMANDS:
        assert "is no text in UTF-8" in refusal(tmp_path / "a\udcff" / "out", command)
        assert "a name of more than 255 bytes" in refusal(tmp_path / ("\u4e16" * 86), command)
    assert not check_folder(tmp_path / ("\u4e16" * 85), "train.sft")
    assert not check_folder(tmp_path / "a[1]*?x", "train.sft")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
    assert not claim_folder(tmp_path / "new" / "out", "train.sft")
    assert (tmp_path / "new" / "out").is_dir()


def test_a_run_that_could_not_begin_leaves_nothing_behind(tmp_path: Path) -> None:
    def run(folder: Path, text: str, error: Exception) -> None:
        with left_as_it_was(folder, "train.evaluate"):
            folder.mkdir(exist_ok=True)
            (folder / ".lock").touch()
            (folder / "config.json").write_text('{"compare": null}')
            (folder / "answers.jsonl").write_text(text)
            raise error

    def end(folder: Path, text: str) -> None:
        for error in (UsageError("the model is broken"), ModuleNotFoundError("no torch")):
            with pytest.raises(type(error)):
                run(folder, text, error)

    end(tmp_path / "new", "")
    assert not (tmp_path / "new").exists()
    end(tmp_path / "begun", "an answer\n")
    assert (tmp_path / "begun" / "answers.jsonl").exists()
    (tmp_path / "mine").mkdir()
    end(tmp_path / "mine", "")
    assert (tmp_path / "mine").exists()


def test_a_mark_is_an_option_of_its_command_alone(repository: Path) -> None:
    """Else a folder would belong to two commands."""
    classes = product_config_classes(repository)
    for owner in OWNERS:
        if owner.mark:
            having = {one.__name__ for one in classes if owner.mark in one.model_fields}
            kinds = {name.removesuffix("Options").removesuffix("Config") for name in having}
            assert len(kinds - {"WorldSize", "Demo", "ClipCount"}) == 1, (owner.command, having)


def _owner(command: str) -> Owner:
    return next(owner for owner in OWNERS if owner.command == command)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc:783] . unexpected pos 64 vs 0"),
        RuntimeError("basic_ios::clear: iostream error"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_error_whoever_writes(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(OSError, match="no space is left") as told, full_disk_is_told(tmp_path):
        raise error
    assert told.value.errno == errno.ENOSPC
    assert told.value.filename == str(tmp_path)
    with pytest.raises(RuntimeError, match="another"), full_disk_is_told(tmp_path):
        raise RuntimeError("another")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("numbers", [1, 1_000_000])
def test_what_torch_makes_of_a_full_disk_is_told(tmp_path: Path, numbers: int) -> None:
    """It raises RuntimeErrors about positions and streams."""
    with pytest.raises(OSError, match="no space is left"), full_disk_is_told(tmp_path):
        torch.save({"a": torch.ones(numbers)}, "/dev/full")


@pytest.mark.parametrize("name", ["file.txt/x.json", "file.txt/a/x.json", "folder", "/proc/x.json"])
def test_an_output_file_that_cannot_be_is_refused_before_the_work(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "file.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"^--output-file .*give a file"):
        make_room_for(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "folder"]


def test_room_for_an_output_file_is_made_and_an_earlier_one_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b" / "x.json"
    make_room_for(place)
    assert place.parent.is_dir()
    assert not place.exists()
    place.write_text("before")
    make_room_for(place)
    assert place.read_text() == "before"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("mine")
    for place in (tmp_path / "file.txt", tmp_path / "file.txt" / "a", Path("/proc/a")):
        with pytest.raises(UsageError, match=rf"^--output-dir {place} cannot be written .*give a"):
            make_folder(place)
