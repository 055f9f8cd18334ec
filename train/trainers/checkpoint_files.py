"""Which checkpoint a run goes on from: the newest whose every file is there and can be read.

A damaged checkpoint is named and the one before it taken. It is set aside under another name:
transformers keeps the newest few `checkpoint-N` and would delete good ones in favour of it.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch.serialization import get_unsafe_globals_in_checkpoint

from cli.config import UsageError
from cli.output_folder import make_folder
from judges.backends.model_folders import (
    LOADING_ERRORS,
    broken_file,
    loading_errors,
    not_finite,
    weight_files,
)
from train.trainers.distributed import num_processes as launched_processes
from train.trainers.distributed import process_number

STATE_FILE = "trainer_state.json"
_PREFIX = "checkpoint-"
_WRITTEN_BY_DEEPSPEED = {
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
}


def checkpoint_to_resume(folder: Path, *, num_processes: int | None = None) -> Path | None:
    """The checkpoint that a run in `folder` goes on from; None where it begins.

    Damaged ones are named on stderr and set aside, once an older one is there to go on from. Raises
    UsageError where there are checkpoints, but none of them can be used: a run never begins anew
    where one has been.
    """
    processes = launched_processes() if num_processes is None else num_processes
    others, damaged = list[Path](), dict[Path, str]()
    for path in checkpoints(folder):
        fault = damage_of(path)
        if not fault and processes_of(path) == processes:
            _set_aside(damaged)
            return path
        if fault:
            damaged[path] = fault
        else:
            others.append(path)
    if others:
        raise UsageError(
            f"the checkpoints in {folder} were not written by {processes} processes, but by"
            f" {processes_of(others[0])}; resume with as many as before, or begin anew in another"
            " --output-dir"
        )
    ended = {path: why for path, why in damaged.items() if (path / STATE_FILE).is_file()}
    if ended:
        faults = "; ".join(f"{path.name}: {why}" for path, why in ended.items())
        raise UsageError(
            f"no checkpoint in {folder} can be gone on from ({faults}); put whole copies there, or"
            " begin anew in another --output-dir"
        )
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The folders `checkpoint-N` under `folder`, newest first."""
    numbers = {
        path: int(path.name.removeprefix(_PREFIX))
        for path in folder.glob(f"{_PREFIX}*")
        if path.is_dir() and path.name.removeprefix(_PREFIX).isdecimal()
    }
    return sorted(numbers, key=numbers.__getitem__, reverse=True)


def last_whole_checkpoint(folder: Path, *, num_processes: int = 1) -> Path | None:
    """The newest checkpoint that `num_processes` processes wrote to its end; None without one."""
    whole = (path for path in checkpoints(folder) if is_whole(path, num_processes))
    return next(whole, None)


def is_whole(checkpoint: Path, num_processes: int) -> bool:
    """Whether `num_processes` processes have written a checkpoint, and it can be read."""
    return not damage_of(checkpoint) and processes_of(checkpoint) == num_processes


def processes_of(checkpoint: Path) -> int:
    """How many processes wrote a checkpoint, by its states of random numbers."""
    return 1 if (checkpoint / "rng_state.pth").is_file() else len(_ranks(checkpoint))


def damage_of(checkpoint: Path) -> str:
    """Why a run cannot go on from a checkpoint, in words; empty where it is whole.

    Weights are read and must be finite. Of the optimizer's state the structure is read; what
    processes wrote in parts (DeepSpeed, FSDP) is there, and DeepSpeed's names nothing foreign.
    """
    checks: tuple[Callable[[Path], str], ...] = (
        _state_damage,
        _random_damage,
        _optimizer_damage,
        _weight_damage,
    )
    try:
        return next(filter(None, (check(checkpoint) for check in checks)), "")
    except OSError as error:
        return f"{error.filename or 'a file'} cannot be read ({error.strerror})"


def state_of(checkpoint: Path) -> Mapping[str, Any]:
    """The trainer's state in a checkpoint that is whole."""
    state: Mapping[str, Any] = json.loads((checkpoint / STATE_FILE).read_text("utf-8"))
    return state


def _state_damage(checkpoint: Path) -> str:
    if not (checkpoint / STATE_FILE).is_file():
        return f"it was cut off while it was written: it has no {STATE_FILE}"
    try:
        state = state_of(checkpoint)
        steps = [state[name] for name in ("global_step", "max_steps")]
    except (ValueError, LookupError, TypeError):
        return f"{STATE_FILE} cannot be read"
    if not all(type(number) is int for number in steps):
        return f"{STATE_FILE} does not say at which step it was written"
    if f"{_PREFIX}{steps[0]}" != checkpoint.name:
        return f"{STATE_FILE} is of step {steps[0]}"
    return ""


def _random_damage(checkpoint: Path) -> str:
    ranks = _ranks(checkpoint)
    names = [f"rng_state_{rank}.pth" for rank in range(len(ranks))]
    if (checkpoint / "rng_state.pth").is_file():
        names = ["rng_state.pth"]
    elif sorted(ranks) != list(range(len(ranks))) or not ranks:
        return "rng_state.pth (or one for each process) is missing"
    faults = (_pickle_damage(checkpoint / name, ("python", "numpy", "cpu")) for name in names)
    return next(filter(None, faults), "")


def _ranks(checkpoint: Path) -> list[int]:
    numbers = [path.stem.removeprefix("rng_state_") for path in checkpoint.glob("rng_state_*.pth")]
    return [int(number) for number in numbers if number.isdecimal()]


def _optimizer_damage(checkpoint: Path) -> str:
    if (deepspeed := checkpoint / "latest").is_file():
        return _deepspeed_damage(checkpoint, checkpoint / deepspeed.read_text("utf-8").strip())
    if parts := next(checkpoint.glob("optimizer_*/"), None):
        fault = _parts_damage(parts)
    else:
        whole = "optimizer.bin" if (checkpoint / "optimizer.bin").is_file() else "optimizer.pt"
        fault = _pickle_damage(checkpoint / whole, ("state", "param_groups"))
    return fault or _pickle_damage(checkpoint / "scheduler.pt", ("last_epoch",))


def _deepspeed_damage(checkpoint: Path, parts: Path) -> str:
    """Of the folder into which each process wrote its part. DeepSpeed runs what its files name:
    they may name no more than what it writes itself."""
    for rank in _ranks(checkpoint) or [0]:
        if not any(map(_has_bytes, parts.glob(f"*_pp_rank_{rank}_mp_rank_00_optim_states.pt"))):
            return f"{parts.name} is missing or empty, or the part of process {rank} is"
    for path in sorted(parts.glob("*.pt")):
        try:
            foreign = {*get_unsafe_globals_in_checkpoint(path)} - _WRITTEN_BY_DEEPSPEED
        except LOADING_ERRORS as error:
            return f"{path.name} cannot be read ({_words(error)})"
        if foreign:
            return f"{path.name} names {min(foreign)}, which DeepSpeed would run"
    return ""


def _parts_damage(folder: Path) -> str:
    """Of a folder into which each process wrote its part (FSDP's SHARDED_STATE_DICT)."""
    parts = sorted(folder.glob("*.distcp"))
    empty = [path for path in (folder / ".metadata", *parts) if not _has_bytes(path)]
    if empty or not parts:
        return f"{folder.name}/{empty[0].name if empty else '*.distcp'} is missing or empty"
    return ""


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _weight_damage(checkpoint: Path) -> str:
    fault = broken_file(checkpoint)
    if fault:
        return fault
    if parts := next(checkpoint.glob("pytorch_model_fsdp_*/"), None):
        return _parts_damage(parts)
    files = [*weight_files(checkpoint), *checkpoint.glob("pytorch_model_fsdp.bin")]
    if not files:
        return "its weights are missing"
    for path in files:
        try:
            bad = not_finite(_tensors(path))
        except loading_errors() as error:
            return f"{path.name} cannot be read ({_words(error)})"
        if bad:
            return f"{path.name} holds numbers that are not finite, such as in {bad[0]}"
    return ""


def _tensors(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # it is no mapping
                yield name, file.get_tensor(name)
    else:
        yield from torch.load(path, map_location="cpu", weights_only=True, mmap=True).items()


def _pickle_damage(path: Path, names: tuple[str, ...]) -> str:
    """What is wrong with a file of torch's that must hold a mapping with these names.

    Nothing that it might want to run is run.
    """
    if not path.is_file():
        return f"{path.name} is missing"
    core: Any = np._core  # type: ignore[attr-defined]  # where transformers finds it, too
    allowed = [core.multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype(np.uint32))]
    try:
        with torch.serialization.safe_globals(allowed):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except LOADING_ERRORS as error:
        return f"{path.name} cannot be read ({_words(error)})"
    if not isinstance(found, Mapping) or not all(name in found for name in names):
        return f"{path.name} does not hold what it should"
    return ""


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def _set_aside(damaged: Mapping[Path, str]) -> None:
    """Name damaged checkpoints, and rename them, in the first process."""
    if process_number():
        return
    for path, why in damaged.items():
        aside = path.with_name(f"damaged-{path.name}")
        number = 1
        while aside.exists():
            number += 1
            aside = path.with_name(f"damaged-{path.name}-{number}")
        path.rename(aside)
        print(f"{path} is not gone on from: {why}; it is now {aside.name}", file=sys.stderr)


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold a run's folder in this block. Raises UsageError where another run writes into it.

    Of processes that train together the first one holds it for all.
    """
    if process_number():
        yield
        return
    make_folder(folder)
    lock = FileLock(folder / ".run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"{folder} is being written by another run; wait for its end or give another"
            " --output-dir"
        ) from None
    try:
        yield
    finally:
        lock.release()
