"""A run goes on from a checkpoint only where every file that it needs is there and reads."""

import json
import math
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.config import UsageError
from train.trainers.checkpoint_files import (
    checkpoint_to_resume,
    damage_of,
    is_whole,
    last_whole_checkpoint,
    only_run_in,
    processes_of,
    state_of,
)

RAN: list[str] = []


class Poison:
    """Runs something where it is unpickled."""

    def __reduce__(self) -> Any:
        return RAN.append, ("ran",)


def checkpoint(folder: Path, step: int, *, processes: int = 1) -> Path:
    """The files that transformers' trainer writes at a step."""
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    save_file({"a": torch.ones(300), "b": torch.zeros(2, 2)}, made / "model.safetensors")
    weight = torch.nn.Parameter(torch.ones(300))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), made / "optimizer.pt")
    torch.save(torch.optim.lr_scheduler.LinearLR(optimizer).state_dict(), made / "scheduler.pt")
    states = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    names = [f"rng_state_{rank}.pth" for rank in range(processes)]
    for name in ["rng_state.pth"] if processes == 1 else names:
        torch.save(states, made / name)
    state = {"global_step": step, "max_steps": 6, "log_history": []}
    (made / "trainer_state.json").write_text(json.dumps(state))
    return made


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def poisoned(path: Path) -> None:
    torch.save({"state": Poison(), "param_groups": []}, path)


def plainly_poisoned(path: Path) -> None:
    path.write_bytes(pickle.dumps(Poison()))


def of_something_else(path: Path) -> None:
    torch.save({"other": 1}, path)


PICKLES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
DAMAGES: list[tuple[str, Callable[[Path], None]]] = [
    *((name, Path.unlink) for name in (*PICKLES, "model.safetensors", "trainer_state.json")),
    *((name, cut) for name in (*PICKLES, "model.safetensors", "trainer_state.json")),
    *((name, emptied) for name in (*PICKLES, "model.safetensors", "trainer_state.json")),
    *((name, poisoned) for name in PICKLES),
    *((name, plainly_poisoned) for name in PICKLES),
    *((name, of_something_else) for name in PICKLES),
]


@pytest.mark.parametrize(
    ("name", "damage"), DAMAGES, ids=[f"{name}-{how.__name__}" for name, how in DAMAGES]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], None]
) -> None:
    older, newest = checkpoint(tmp_path, 2), checkpoint(tmp_path, 4)
    assert damage_of(newest) == ""
    assert checkpoint_to_resume(tmp_path) == newest
    damage(newest / name)
    RAN.clear()
    assert checkpoint_to_resume(tmp_path) == older
    assert not RAN, "what a file wants to run is not run"
    said = capsys.readouterr().err
    assert f"{newest} is not gone on from: " in said
    assert name in said or "its weights are missing" in said
    # transformers keeps the newest `checkpoint-N` and would delete the good one for it
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-2",
        "damaged-checkpoint-4",
    ]


def test_weights_with_nan_are_damage_and_two_damaged_ones_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [checkpoint(tmp_path, step) for step in (2, 4, 6, 10)]
    for path, value in ((made[1], math.nan), (made[3], -math.inf)):
        tensors = load_file(path / "model.safetensors")
        tensors["b"][1, 1] = value
        save_file(tensors, path / "model.safetensors")
    cut(made[2] / "rng_state.pth")
    assert checkpoint_to_resume(tmp_path) == made[0]
    said = capsys.readouterr().err
    assert said.count("holds numbers that are not finite, such as in b") == 2
    assert "rng_state.pth cannot be read" in said
    checkpoint(tmp_path, 4)
    emptied(tmp_path / "checkpoint-4" / "model.safetensors")
    assert checkpoint_to_resume(tmp_path) == made[0]
    assert (tmp_path / "damaged-checkpoint-4-2").is_dir(), "none is overwritten"


def test_a_run_never_begins_anew_where_one_has_been(tmp_path: Path) -> None:
    assert checkpoint_to_resume(tmp_path) is None
    made = checkpoint(tmp_path, 2)
    (made / "scheduler.pt").unlink()
    with pytest.raises(UsageError, match=r"checkpoint-2: scheduler\.pt is missing.* another"):
        checkpoint_to_resume(tmp_path)
    assert made.is_dir(), "a refusal changes nothing"
    (made / "trainer_state.json").unlink()
    assert checkpoint_to_resume(tmp_path) is None, "a kill cut the first one off"


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ({}, "cannot be read"),
        ([], "cannot be read"),
        ({"global_step": "2", "max_steps": 6}, "does not say at which step"),
        ({"global_step": 4, "max_steps": 6}, "is of step 4"),
    ],
)
def test_a_state_says_which_step_it_is_of(tmp_path: Path, state: Any, fault: str) -> None:
    made = checkpoint(tmp_path, 2)
    assert state_of(made)["global_step"] == 2
    (made / "trainer_state.json").write_text(json.dumps(state))
    assert fault in damage_of(made)


def test_checkpoints_of_another_number_of_processes_are_refused(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 2, processes=3)
    assert processes_of(made) == 3
    assert is_whole(made, 3)
    assert not is_whole(made, 1)
    assert checkpoint_to_resume(tmp_path, num_processes=3) == made
    assert last_whole_checkpoint(tmp_path, num_processes=1) is None
    with pytest.raises(UsageError, match="not written by 1 processes, but by 3; resume with"):
        checkpoint_to_resume(tmp_path)
    (made / "rng_state_1.pth").unlink()
    assert "rng_state.pth (or one for each process) is missing" in damage_of(made)


class Foreign:
    """A class that a pickle can name."""


def test_what_is_sharded_over_processes_is_there_or_not(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 2)
    for name in ("optimizer.pt", "scheduler.pt"):
        (made / name).unlink()
    (made / "latest").write_text("global_step2")
    assert "global_step2 is missing or empty" in damage_of(made)
    parts = made / "global_step2"
    parts.mkdir()
    one, other = (parts / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1))
    torch.save({"step": torch.ones(2)}, one)
    assert damage_of(made) == ""
    (made / "rng_state.pth").rename(made / "rng_state_0.pth")
    (made / "rng_state_1.pth").write_bytes((made / "rng_state_0.pth").read_bytes())
    assert "the part of process 1 is" in damage_of(made)
    other.write_bytes(b"cut")
    assert f"{other.name} cannot be read" in damage_of(made)
    torch.save({"scaler": Foreign()}, other)
    assert "Foreign, which DeepSpeed would run" in damage_of(made)
    torch.save({"step": torch.ones(2)}, other)
    assert damage_of(made) == ""


def test_parts_that_fsdp_wrote_are_there_or_not(tmp_path: Path) -> None:
    """One file with all weights, or a folder with one of each process."""
    made = checkpoint(tmp_path, 2)
    (made / "optimizer.pt").rename(made / "optimizer.bin")
    torch.save({"a": torch.tensor([1.0, math.nan])}, made / "pytorch_model_fsdp.bin")
    assert "pytorch_model_fsdp.bin holds numbers that are not finite" in damage_of(made)
    torch.save({"a": torch.ones(2)}, made / "pytorch_model_fsdp.bin")
    assert damage_of(made) == ""
    (made / "optimizer.bin").write_bytes(b"cut")
    assert "optimizer.bin cannot be read" in damage_of(made)
    for path in (made / "optimizer.bin", *made.glob("*model*")):
        path.unlink()
    for name in ("optimizer_0", "pytorch_model_fsdp_0"):
        folder = made / name
        folder.mkdir()
        assert f"{name}/.metadata is missing or empty" in damage_of(made)
        (folder / ".metadata").write_bytes(b"x")
        assert f"{name}/*.distcp is missing or empty" in damage_of(made)
        for rank in (0, 1):
            (folder / f"__{rank}_0.distcp").write_bytes(b"x" * rank)
        assert f"{name}/__0_0.distcp is missing or empty" in damage_of(made)
        (folder / "__0_0.distcp").write_bytes(b"x")
    assert damage_of(made) == ""


def test_two_runs_do_not_write_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    with only_run_in(folder):
        with pytest.raises(UsageError, match="being written by another run"), only_run_in(folder):
            pytest.fail("two runs")
        monkeypatch.setitem(os.environ, "RANK", "1")
        with only_run_in(folder):
            pass  # a process of the same run
        monkeypatch.delitem(os.environ, "RANK")
    with only_run_in(folder):
        pass
