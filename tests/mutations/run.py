"""Break the product on purpose: each patch here must make the test that it names fail.

    python tests/mutations/run.py [--jobs N] [NAME ...]

A patch is a unified diff against product code; its first line is `# fails: tests/...::test_name`.
It is applied to a copy of the tracked tree, and only the named test runs there, on the copied code.
A test that passes, is skipped, errs outside its body or cannot be collected has no teeth: the
mutation survived, exit 1. All named tests must pass on an unchanged copy first.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from shutil import copy2
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
PATCHES = Path(__file__).resolve().parent
ROOMS = ("schemas", "media", "judges", "pipeline", "train", "sandbox")
TIMEOUT_SECONDS = 600  # of one test
TIMEOUT_SECONDS_OF_ALL = 1800  # of all named tests, on unchanged code

_FIRST_LINE = re.compile(r"# fails: (tests/[\w/.-]+\.py::[^\n]+)\n")
_TARGET = re.compile(r"^(?:---|\+\+\+) (?:[ab]/)?(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Mutation:
    """One patch: its name, the test that must fail, the files it changes."""

    name: str
    path: Path
    test: str
    targets: tuple[str, ...]


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


class BadPatchError(Exception):
    """A patch file that cannot be used. One sentence."""


def read_mutation(path: Path) -> Mutation:
    """The patch with the test that its first line names."""
    text = path.read_text("utf-8")
    first = _FIRST_LINE.match(text)
    if first is None:
        raise BadPatchError(f"{path.name}: the first line must be '# fails: tests/FILE.py::TEST'")
    targets = tuple(sorted({name for name in _TARGET.findall(text) if name != "/dev/null"}))
    foreign = [name for name in targets if name.split("/")[0] not in ROOMS]
    if foreign or not targets:
        raise BadPatchError(f"{path.name}: a mutation changes product code only, not {foreign}")
    return Mutation(path.stem, path, first.group(1).strip(), targets)


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


def imported_from_elsewhere(folder: Path, targets: Sequence[str]) -> list[str]:
    """Packages of `targets` that the copy's interpreter would not take from the copy."""
    packages = sorted({target.split("/")[0] for target in targets})
    program = (
        "import importlib.util, sys\n"
        "for name in sys.argv[1:]: print(importlib.util.find_spec(name).origin)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, *packages],
        cwd=folder.parent,  # not the copy: the working directory must not be what decides
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    origins = [Path(line).resolve() for line in found.stdout.splitlines()]
    return [str(origin) for origin in origins if not origin.is_relative_to(folder.resolve())]


def run_tests(folder: Path, tests: Sequence[str], *, jobs: int = 1) -> PytestRun:
    """pytest on `tests` in the copy; the counts come from its own report."""
    report = folder.parent / "report.xml"
    workers = ["--numprocesses", str(jobs), "--dist", "worksteal"] if jobs > 1 else []
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
         *workers, *tests],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS if len(tests) == 1 else TIMEOUT_SECONDS_OF_ALL,
        check=False,
    )  # fmt: skip
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    if report.is_file():
        for suite in ElementTree.parse(report).iter("testsuite"):
            for name in counts:
                counts[name] += int(suite.get(name, "0"))
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    return PytestRun(
        finished.returncode,
        passed,
        counts["failures"],
        counts["errors"],
        counts["skipped"],
        finished.stdout,
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
    applied = subprocess.run(
        ["git", "apply", "-p1", str(mutation.path)],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    if applied.returncode != 0:
        return f"does not apply: {applied.stderr.strip().splitlines()[0]}"
    if elsewhere := imported_from_elsewhere(folder, mutation.targets):
        return f"the test would import {elsewhere}, not the copy"
    try:
        run = run_tests(folder, [mutation.test])
    except subprocess.TimeoutExpired:
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


def main(argv: Sequence[str] | None = None, patches: Path = PATCHES) -> int:
    """Runs the mutations and prints a table; 0 when every one was caught."""
    parser = argparse.ArgumentParser(prog="run.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="patches to run, without .patch")
    cores = os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=cores, help="at a time (default: one per core)")
    options = parser.parse_args(argv)
    paths = sorted(patches.glob("*.patch"))
    known = {path.stem for path in paths}
    if unknown := sorted(set(options.names) - known):
        print(f"no such mutation: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        return 1
    chosen = [path for path in paths if not options.names or path.stem in options.names]
    try:
        mutations = [read_mutation(path) for path in chosen]
    except BadPatchError as error:
        print(error)
        return 1
    if not mutations:
        print(f"no mutations in {patches}")
        return 1
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
    survived = sum(bool(result.survived_because) for result in results)
    print(f"{len(results) - survived} of {len(results)} mutations caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
