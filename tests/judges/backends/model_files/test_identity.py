"""A model folder's name follows its content, and unchanged files are read once."""

import os
from pathlib import Path

import pytest

from judges.backends.model_files import identity
from judges.backends.model_files.identity import weights_id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("about")
    return folder


def test_any_file_that_can_change_a_reply_changes_the_name(folder: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    names = [weights_id(folder, memory)]
    for name in ("model.safetensors", "config.json", "chat_template.jinja"):
        (folder / name).write_text("changed " + name)
        names.append(weights_id(folder, memory))
    assert len(set(names)) == 4
    (folder / "README.md").write_text("changed")
    assert weights_id(folder, memory) == names[-1]


def test_a_file_swapped_for_another_of_the_same_size_is_noticed(
    folder: Path, tmp_path: Path
) -> None:
    memory = tmp_path / "memory.json"
    before = weights_id(folder, memory)
    path = folder / "model.safetensors"
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(1, 1))
    assert weights_id(folder, memory) != before


def test_a_copy_of_the_same_size_and_time_is_noticed(folder: Path, tmp_path: Path) -> None:
    """`cp -p`, rsync and tar keep the time of change."""
    memory = tmp_path / "memory.json"
    path = folder / "model.safetensors"
    before, state = weights_id(folder, memory), path.stat()
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_mtime_ns == state.st_mtime_ns
    assert weights_id(folder, memory) != before


def test_an_adapters_name_follows_its_base_model(folder: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{folder}"}}')
    before = weights_id(adapter, memory)
    assert weights_id(adapter, memory) == before
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert weights_id(adapter, memory) != before
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/model"}')
    assert weights_id(adapter, memory).startswith("weights-")
    for other in (adapter, tmp_path / "circle"):
        other.mkdir(exist_ok=True)
        (adapter / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{other}"}}')
        (other / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{adapter}"}}')
        assert weights_id(adapter, memory).startswith("weights-")


def test_unchanged_files_are_not_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "deep" / "memory.json"
    read: list[str] = []
    original = identity._hash
    monkeypatch.setattr(identity, "_hash", lambda path: read.append(path.name) or original(path))
    first = weights_id(folder, memory)
    assert sorted(read) == ["config.json", "model.safetensors"]
    assert weights_id(folder, memory) == first
    assert len(read) == 2


@pytest.mark.parametrize("content", ["not json", "[1]", ""])
def test_a_damaged_memory_is_made_anew(folder: Path, tmp_path: Path, content: str) -> None:
    memory = tmp_path / "memory.json"
    expected = weights_id(folder, memory)
    memory.write_text(content)
    assert weights_id(folder, memory) == expected
    assert memory.read_text().startswith("{")
