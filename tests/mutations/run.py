"""Break the product on purpose: each mutation here must make the test that it names fail.

    python tests/mutations/run.py [--jobs N] [--share 0.5 [--seed S]] [NAME or FILE.toml ...]

A mutation is a row of a TOML file that stands where its package does (`train/rewards.toml` breaks
`train/rewards/`): `name`, the `test` that must fail, the product `file`, and the `old` text, which
occurs there exactly once, with the `new` one; several replacements are `[[mutation.edits]]`.
It is made in a copy of the tracked tree, and only the named test runs there, on the copied code.
A test that passes, is skipped, errs outside its body or cannot be collected has no teeth: the
mutation survived, exit 1. All named tests must pass on an unchanged copy first.

`--share` tries a part of them, drawn anew each day, or as `--seed` says.

Each test runs in a process of its own, forked from one that has imported the heavy libraries (and
nothing of this project), because importing them takes longer than most of the tests.
"""

import argparse
import importlib.util
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.context import ForkServerContext
from pathlib import Path
from shutil import copy2
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = Path(__file__).resolve().parent
ROOMS = ("schemas", "cli", "media", "judges", "pipeline", "train", "sandbox")
PAGES = ("docs", "README.md", "benchmarks")  # what they promise and print is tested, too
TIMEOUT_SECONDS = 600  # of one test
TIMEOUT_SECONDS_OF_ALL = 1800  # of all named tests, on unchanged code

WARM_LIBRARIES = [
    "pytest", "hypothesis", "numpy", "httpx", "pydantic", "rich", "duckdb", "anthropic", "openai",
    "datasets", "torch", "torchvision", "accelerate", "peft", "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.trainer", "trl.trainer.grpo_trainer",
]  # fmt: skip

_TEST = re.compile(r"tests/[\w/.-]+\.py::.+")


@dataclass(frozen=True)
class Edit:
    """One replacement: `old` occurs exactly once in `file`, a path from the repository's root."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """One row: its name, the test that must fail, what it replaces."""

    name: str
    test: str
    edits: tuple[Edit, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        """The files that it changes."""
        return tuple(sorted({edit.file for edit in self.edits}))


@dataclass(frozen=True)
class PytestRun:
    """What pytest said of one or more tests."""

    exit_status: int
    passed: int
    failed: int
    errors: int
    skipped: int
    output: str


@dataclass(frozen=True)
class Result:
    """What became of a mutation: caught, or why it counts as survived."""

    mutation: Mutation
    survived_because: str
    seconds: float


class BadMutationError(Exception):
    """A mutation that cannot be used. One sentence."""


def read_mutations(path: Path) -> list[Mutation]:
    """The rows of one TOML file."""
    try:
        rows = tomllib.loads(path.read_text("utf-8")).get("mutation", [])
    except tomllib.TOMLDecodeError as error:
        raise BadMutationError(f"{path.name} is no TOML: {error}") from error
    return [_read_mutation(path, row) for row in rows]


def _read_mutation(path: Path, row: dict[str, Any]) -> Mutation:
    row = dict(row)
    name, test = str(row.pop("name", "")), str(row.pop("test", ""))
    if not name or not _TEST.fullmatch(test):
        raise BadMutationError(
            f"{path.name}: a mutation has a name and a test 'tests/FILE.py::TEST', not"
            f" {name!r} and {test!r}"
        )
    edits = row.pop("edits", None) or [{key: row.pop(key, None) for key in ("file", "old", "new")}]
    if row or any(sorted(edit) != ["file", "new", "old"] for edit in edits):
        raise BadMutationError(f"{path.name}: {name} needs file, old and new, and nothing else")
    if any(not isinstance(value, str) for edit in edits for value in edit.values()):
        raise BadMutationError(f"{path.name}: {name} needs file, old and new, each a text")
    found = Mutation(name, test, tuple(Edit(**edit) for edit in edits))
    if foreign := [name for name in found.targets if name.split("/")[0] not in (*ROOMS, *PAGES)]:
        raise BadMutationError(
            f"{path.name}: a mutation changes the product and its pages only, not {foreign}"
        )
    return found


def read_all(folder: Path) -> dict[Path, list[Mutation]]:
    """The mutations of every TOML file below `folder`; no name stands twice."""
    found = {path: read_mutations(path) for path in sorted(folder.rglob("*.toml"))}
    counts = Counter(mutation.name for rows in found.values() for mutation in rows)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise BadMutationError(f"these names stand twice: {', '.join(twice)}")
    return found


def apply_mutation(mutation: Mutation, folder: Path) -> str:
    """Make the replacements in the tree at `folder`; a sentence where one cannot be made."""
    for edit in mutation.edits:
        path = folder / edit.file
        text = path.read_text("utf-8") if path.is_file() else ""
        if (count := text.count(edit.old)) != 1 or edit.old == edit.new:
            return f"does not apply: its old text occurs {count} times in {edit.file}"
        path.write_text(text.replace(edit.old, edit.new), "utf-8")
    return ""


def copy_tree(folder: Path) -> None:
    """The tracked files as they stand in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_file():  # a tracked file may be deleted in the working tree
            target.parent.mkdir(parents=True, exist_ok=True)
            copy2(source, target)


def environment(folder: Path) -> dict[str, str]:
    """PYTHONPATH outranks the editable install, for the test and for all that it starts."""
    shared = os.environ.get("P2R_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    return os.environ | {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "P2R_TEST_DATA": shared,
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }


def run_tests(folder: Path, tests: Sequence[str], *, jobs: int = 1) -> PytestRun:
    """pytest on `tests` in the copy, as a command; the counts come from its own report."""
    workers = ["--numprocesses", str(jobs), "--dist", "worksteal"] if jobs > 1 else []
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *_pytest_options(folder), *workers, *tests],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS_OF_ALL,
        check=False,
    )
    return _read_report(folder, finished.returncode, finished.stdout)


def run_test_warm(folder: Path, test: str, packages: Sequence[str]) -> PytestRun:
    """pytest on one test in the copy, in a fork of the process that has the libraries.

    Raises TimeoutError, after killing the test and what it started.
    """
    output = folder.parent / "output.txt"
    process = _forks().Process(target=_pytest_in_copy, args=(folder, test, packages, output))
    process.start()
    process.join(TIMEOUT_SECONDS)
    if process.exitcode is None:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        raise TimeoutError
    said = output.read_text("utf-8", "replace") if output.is_file() else ""
    return _read_report(folder, process.exitcode, said)


def _forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(WARM_LIBRARIES)
    return context


def _pytest_in_copy(folder: Path, test: str, packages: Sequence[str], output: Path) -> None:
    """In the fork: stand in the copy, as a command begun there would."""
    os.setsid()
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment(folder))
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    if elsewhere := imported_from_elsewhere(folder, packages):
        print(f"the test would import {elsewhere}, not the copy", flush=True)
        os._exit(pytest.ExitCode.INTERNAL_ERROR)
    os._exit(pytest.main([*_pytest_options(folder), test]))


def imported_from_elsewhere(folder: Path, packages: Sequence[str]) -> list[str]:
    """Those of `packages` that this interpreter has, or would take, from outside of `folder`."""
    origins = {name: importlib.util.find_spec(name) for name in packages}
    return [
        name
        for name, spec in origins.items()
        if name in sys.modules
        or spec is None
        or not Path(spec.origin or "").resolve().is_relative_to(folder.resolve())
    ]


def _pytest_options(folder: Path) -> list[str]:
    return ["-q", "-p", "no:cacheprovider", f"--junitxml={folder.parent / 'report.xml'}"]


def _read_report(folder: Path, exit_status: int, output: str) -> PytestRun:
    report = folder.parent / "report.xml"
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    if report.is_file():
        for suite in ElementTree.parse(report).iter("testsuite"):
            for name in counts:
                counts[name] += int(suite.get(name, "0"))
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    return PytestRun(
        exit_status, passed, counts["failures"], counts["errors"], counts["skipped"], output
    )


def try_mutation(mutation: Mutation) -> Result:
    """Apply it to a fresh copy and run its test there."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutation-") as scratch:
        why = _why_it_survived(mutation, Path(scratch) / "tree")
    return Result(mutation, why, time.monotonic() - started)


def _why_it_survived(mutation: Mutation, folder: Path) -> str:
    folder.mkdir()
    copy_tree(folder)
    if complaint := apply_mutation(mutation, folder):
        return complaint
    packages = sorted({target.split("/")[0] for target in mutation.targets} & {*ROOMS})
    try:
        run = run_test_warm(folder, mutation.test, packages)
    except TimeoutError:
        return f"its test took longer than {TIMEOUT_SECONDS} s"
    if run.exit_status == 1 and run.failed and not run.errors:
        return ""
    if run.errors or run.exit_status > 1:
        last = run.output.strip().splitlines()[-1:]
        return f"error instead of a failing test (pytest exit {run.exit_status}): {' '.join(last)}"
    return f"its test saw nothing: {run.passed} passed, {run.skipped} skipped"


def unchanged_tests_fail(mutations: Sequence[Mutation], jobs: int) -> str:
    """Empty when every named test passes on an unchanged copy, else pytest's words."""
    tests = sorted({mutation.test for mutation in mutations})
    with tempfile.TemporaryDirectory(prefix="mutation-") as scratch:
        folder = Path(scratch) / "tree"
        folder.mkdir()
        copy_tree(folder)
        run = run_tests(folder, tests, jobs=jobs)
    is_good = run.exit_status == 0 and run.passed and not run.skipped
    return "" if is_good else run.output


def drawn(mutations: Sequence[Mutation], share: float, seed: int) -> list[Mutation]:
    """A share of the mutations, in their order; the same one for one seed."""
    count = max(1, round(share * len(mutations)))
    places = random.Random(seed).sample(range(len(mutations)), min(count, len(mutations)))
    return [mutations[place] for place in sorted(places)]


def main(argv: Sequence[str] | None = None, folder: Path = MUTATIONS) -> int:
    """Runs the mutations and prints a table; 0 when every one was caught."""
    parser = argparse.ArgumentParser(prog="run.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="mutations to run, or TOML files of mutations"
    )
    cores = os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=cores, help="at a time (default: one per core)")
    parser.add_argument("--share", type=float, default=1.0, help="of all rows (default: 1)")
    today = datetime.now(UTC).date().toordinal()
    parser.add_argument("--seed", type=int, default=today, help="of the share (default: the day)")
    options = parser.parse_args(argv)
    try:
        by_file = read_all(folder)
    except BadMutationError as error:
        print(error)
        return 1
    names = set(options.names)
    mutations = [
        mutation
        for path, rows in by_file.items()
        for mutation in rows
        if not names or names & {mutation.name, str(path.relative_to(folder)), str(path)}
    ]
    known = {mutation.name for rows in by_file.values() for mutation in rows}
    files = {str(form) for path in by_file for form in (path, path.relative_to(folder))}
    if unknown := sorted(names - known - files):
        print(f"no such mutation: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        return 1
    if not mutations:
        print(f"no mutations in {folder}")
        return 1
    total, mutations = len(mutations), drawn(mutations, options.share, options.seed)
    print(f"{len(mutations)} of {total} mutations: --share {options.share:g} --seed {options.seed}")
    if complaint := unchanged_tests_fail(mutations, options.jobs):
        print(f"{complaint}\nThe named tests must all pass, unskipped, before the code is broken.")
        return 1
    width = max(len(mutation.name) for mutation in mutations)
    results = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(try_mutation, mutations):
            results.append(result)
            outcome = "SURVIVED" if result.survived_because else "caught"
            said = result.survived_because or result.mutation.test
            print(
                f"{result.mutation.name:{width}}  {outcome:8}  {result.seconds:5.1f} s  {said}",
                flush=True,
            )
    survived = [result for result in results if result.survived_because]
    for result in survived:
        print(f"SURVIVED {result.mutation.name}: {result.survived_because}")
    print(f"{len(results) - len(survived)} of {len(results)} mutations caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
