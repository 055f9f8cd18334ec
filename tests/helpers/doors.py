"""Runs commands that end at the door, many in a row: a process that has imported what is light is
forked for each, and says which modules the command has loaded besides.

As a program it reads one line of JSON for each command: words, folder, packages that are missing.
"""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from helpers.hard_places import environment

_LIGHT = ("judges.audit", "pipeline.options", "sandbox.demo", "train.plan", "train.sft")


@dataclass(frozen=True)
class Refusal:
    """How a command ended, and what it had loaded then."""

    status: int
    out: str
    err: str
    modules: frozenset[str]


@dataclass(frozen=True)
class Doors:
    """The process that is forked."""

    process: subprocess.Popen[str]

    def run(self, words: list[str], folder: Path, *, missing: str = "") -> Refusal:
        """Run `python -m WORDS` in `folder`, as if packages were not installed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([words, str(folder), missing.split()]) + "\n")
        self.process.stdin.flush()
        said = json.loads(self.process.stdout.readline())
        return Refusal(said["status"], said["out"], said["err"], frozenset(said["modules"]))


@contextmanager
def opened_doors(repository: Path) -> Iterator[Doors]:
    """The process, ended at the end."""
    paths = os.pathsep.join([str(repository), str(repository / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.doors"],
        env=environment(PYTHONPATH=paths),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Doors(process)
    finally:
        process.communicate()


class _Blocker:
    def __init__(self, missing: list[str]) -> None:
        self._missing = missing

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in self._missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _ended(words: list[str], folder: str, missing: list[str]) -> dict[str, Any]:
    """Run one command in a fork of this process."""
    files: list[IO[str]] = [
        open(os.memfd_create(name), "w+", encoding="utf-8")  # noqa: SIM115
        for name in ("out", "err", "modules")
    ]
    child = os.fork()
    if not child:
        for number, file in enumerate(files[:2], 1):
            os.dup2(file.fileno(), number)
        os.chdir(folder)
        sys.meta_path.insert(0, _Blocker(missing))  # type: ignore[arg-type]
        sys.argv = ["", *words[1:]]
        sys.modules.pop(words[0], None)  # it runs as the main module
        status = 1
        try:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            files[2].write("\n".join(sys.modules))
            files[2].flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = []
    for file in files:
        file.seek(0)
        texts.append(file.read())
        file.close()
    out, err, modules = texts
    return {"status": status, "out": out, "err": err, "modules": modules.split()}


def _serve() -> None:
    for name in _LIGHT:
        __import__(name)
    for line in sys.stdin:
        print(json.dumps(_ended(*json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve()
