"""Runs that `accelerate launch` starts in several processes: to the end, or killed on the way."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from helpers.sharded import free_port
from safetensors.torch import load_file


def accelerate(*launch: str) -> list[str]:
    """`accelerate launch` with a port of its own."""
    command = Path(sys.executable).parent / "accelerate"
    return [str(command), "launch", *launch, "--main_process_port", str(free_port())]


def launched(command: str, *launch: str) -> list[str]:
    """`train.sft` or `train.rl` (`sft`, `rl`) as `accelerate launch` spreads it on CPUs."""
    program = Path(__file__).with_name("sharded_command.py")
    return [*accelerate(*launch), str(program), command]


def start(
    words: list[str], repository: Path, log: Path, *, on_cpu: bool = True
) -> "subprocess.Popen[bytes]":
    """A launched run, one thread in each process; what it prints goes into `log`. `on_cpu` is what
    accelerate is told: it takes DeepSpeed for something of GPUs, and finds CPUs by itself."""
    paths = f"{repository}{os.pathsep}{repository / 'tests'}"
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    environment |= {"ACCELERATE_USE_CPU": "true"} if on_cpu else {}
    with log.open("wb") as file:
        return subprocess.Popen(
            words,
            env={**os.environ, **environment},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def finish(words: list[str], repository: Path, log: Path, *, on_cpu: bool = True) -> str:
    """Run to the end, which must be a good one; what was printed."""
    process = start(words, repository, log, on_cpu=on_cpu)
    assert process.wait(timeout=400) == 0, log.read_text("utf-8")[-4000:]
    return log.read_text("utf-8")


def kill_after(checkpoint: Path, words: list[str], repository: Path, log: Path) -> None:
    """SIGKILL to the launcher and its processes once a checkpoint is whole.

    The launcher gives each process a group of its own: they are found as its descendants.
    """
    process = start(words, repository, log)
    deadline = time.monotonic() + 400
    while not (checkpoint / "trainer_state.json").is_file():
        assert process.poll() is None, log.read_text("utf-8")[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive


def same_weights(one: Path, other: Path) -> bool:
    """Whether two files hold the same tensors, to the bit."""
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )
