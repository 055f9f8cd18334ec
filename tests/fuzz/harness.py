"""Runs kinds of fuzzing in processes of their own: a crash, a hang or an error costs one case.

A case follows from kind, seed and number alone. What breaks a promise raises `BrokenPromise`; any
other error that comes out of a case is a finding as well, and so is a process that dies or hangs.
"""

import multiprocessing
import os
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any

_PREPARE_SECONDS = 400.0  # to import the libraries and to prepare a kind, on a busy machine
_JOIN_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_LINES_SHOWN = 12
_LONGEST = 4.0  # times its share of the time, for a kind that is behind its number
_MOST_DEATHS = 50  # of one kind, after which it is given up


class BrokenPromise(AssertionError):
    """The product did not keep what README, docs or guides promise. One sentence."""


@dataclass(frozen=True)
class Case:
    """One try. `folder` is empty and its own; `draw` begins anew at each use."""

    kind: str
    seed: int
    number: int
    folder: Path

    @property
    def draw(self) -> random.Random:
        """The case's own random numbers."""
        return random.Random(f"{self.seed}:{self.kind}:{self.number}")


Runner = Callable[[Case], Counter[str]]
"""Tries one case and counts what it tried, by name."""


@dataclass(frozen=True)
class Kind:
    """A kind of fuzzing. `opener` is `module:function`: given a folder, a context that yields a
    `Runner`. `unit` is what counts; `at_least` of it belong to a full run of 20 minutes, which
    `weight` shares out. A case that takes longer than `case_seconds` hangs."""

    name: str
    opener: str
    unit: str
    at_least: int
    weight: float
    case_seconds: float = 120.0


@dataclass(frozen=True)
class Finding:
    """A case that went wrong: what was seen, and a short name under which its like are one."""

    kind: str
    number: int
    signature: str
    words: str


@dataclass
class Tally:
    """What a kind has tried and found."""

    kind: Kind
    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tried(self) -> int:
        """How much of the kind's unit."""
        return self.counts[self.kind.unit]


class Recorded:
    """A context that keeps any error but Ctrl-C instead of passing it on, panics of extension
    modules included: whatever comes out of a case is a finding."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> "Recorded":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        if error is None or isinstance(error, KeyboardInterrupt):
            return False
        self.error = error
        return True


def signature(error: BaseException) -> str:
    """The class of an error and the last place in the product (or the tests) that it came from."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and "/lib/python" not in frame.filename
    ]
    last = frames[-1] if frames else None
    place = f"{Path(last.filename).name}:{last.name}" if last else "?"
    what = str(error).partition(":")[0][:60] if isinstance(error, BrokenPromise) else ""
    return f"{type(error).__name__} {place} {what}".strip()


def words_of(error: BaseException) -> str:
    """What is printed of a finding: a broken promise's sentence, or the end of the traceback."""
    notes = "\n".join(getattr(error, "__notes__", ()))
    if isinstance(error, BrokenPromise):
        return "\n".join(filter(None, (str(error), notes)))
    lines = "".join(traceback.format_exception(error)).strip().splitlines()
    return "\n".join(lines[-_LINES_SHOWN:])


def run_case(kind: Kind, runner: Runner, seed: int, number: int) -> tuple[Counter[str], Any]:
    """One case in a folder of its own: what it counted, and the Finding if there is one."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{kind.name}-") as folder, Recorded() as recorded:
        counted = runner(Case(kind.name, seed, number, Path(folder)))
    if recorded.error is None:
        return counted, None
    found = Finding(kind.name, number, signature(recorded.error), words_of(recorded.error))
    return Counter(getattr(recorded.error, "counted", ())), found


def opened(kind: Kind, folder: Path) -> AbstractContextManager[Runner]:
    """The kind, ready to run."""
    module, _, name = kind.opener.partition(":")
    opener: Callable[[Path], AbstractContextManager[Runner]] = getattr(import_module(module), name)
    return opener(folder)


def work(kind: Kind, seed: int, first: int, step: int, scratch: str, pipe: Connection) -> None:
    """The loop of a worker process: cases `first`, `first + step`, ... until the pipe closes.

    It leads a group of its own, so that what it starts ends with it, and works below `scratch`.
    """
    os.setsid()
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, opened(kind, Path(folder)) as run:
        number = first
        while True:
            pipe.send(("begins", number, None, None))
            pipe.send(("done", number, *run_case(kind, run, seed, number)))
            number += step


@dataclass
class _Worker:
    """A process, its end of the pipe, the case it is at and since when."""

    process: Any
    pipe: Connection
    first: int
    at: int | None = None
    since: float = field(default_factory=time.monotonic)

    def limit(self, kind: Kind) -> float:
        """Until when it has to be heard of."""
        return self.since + (_PREPARE_SECONDS if self.at is None else kind.case_seconds)

    def end(self) -> None:
        """Kill it, and what it has started."""
        with suppress(ProcessLookupError):  # it died before it led a group
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Fuzzing:
    """One kind, tried by `jobs` processes. `say` gets each finding as it comes."""

    def __init__(self, kind: Kind, seed: int, jobs: int, say: Callable[[Finding], None]) -> None:
        self.tally = Tally(kind)
        self._kind, self._seed, self._jobs, self._say = kind, seed, jobs, say
        self._context = multiprocessing.get_context("spawn")
        self._deaths = 0
        self._scratch = ""
        self._started: float | None = None  # of the first case

    def run(self, seconds: float, at_least: int) -> Tally:
        """Try cases for `seconds` from the first one on; longer, within limits, while fewer than
        `at_least` are tried."""
        with (
            tempfile.TemporaryDirectory(prefix="fuzz-") as self._scratch,
            self._workers() as workers,
        ):
            while not self._is_over(seconds, at_least):
                self._look(workers)
        return self.tally

    def _is_over(self, seconds: float, at_least: int) -> bool:
        if self._deaths >= _MOST_DEATHS:
            return True
        if self._started is None:
            return False
        self.tally.seconds = time.monotonic() - self._started
        is_behind = self.tally.tried < at_least
        return self.tally.seconds >= (_LONGEST * seconds if is_behind else seconds)

    @contextmanager
    def _workers(self) -> Iterator[list[_Worker]]:
        workers = [self._start(first) for first in range(self._jobs)]
        try:
            yield workers
        finally:
            for worker in workers:
                worker.end()

    def _start(self, first: int) -> _Worker:
        here, there = self._context.Pipe(duplex=False)
        arguments = (self._kind, self._seed, first, self._jobs, self._scratch, there)
        process = self._context.Process(target=work, args=arguments)  # may start processes itself
        process.start()
        there.close()
        return _Worker(process, here, first)

    def _look(self, workers: list[_Worker]) -> None:
        ready = wait([worker.pipe for worker in workers], _LOOK_SECONDS)
        for place, worker in enumerate(workers):
            if worker.pipe in ready:
                is_alive = self._hear(worker)
            else:
                is_alive = time.monotonic() < worker.limit(self._kind)
                if not is_alive:
                    self._lost(worker, f"did not end within {self._kind.case_seconds:g} s")
            if not is_alive:
                worker.end()
                after = worker.first if worker.at is None else worker.at + self._jobs
                workers[place] = self._start(after)

    def _hear(self, worker: _Worker) -> bool:
        """Take one message; False where the process is gone."""
        try:
            what, number, counted, found = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(_JOIN_SECONDS)
            self._lost(worker, f"ended its process with status {worker.process.exitcode}")
            return False
        worker.since = time.monotonic()
        worker.at = number
        self._started = self._started or worker.since
        if what == "done":
            self.tally.cases += 1
            self.tally.counts.update(counted)
            if found is not None:
                self._found(found)
        return True

    def _lost(self, worker: _Worker, what: str) -> None:
        self._deaths += 1
        number = -1 if worker.at is None else worker.at
        where = "while it was prepared" if worker.at is None else f"case {number}"
        self._found(Finding(self._kind.name, number, what, f"{where} {what}"))

    def _found(self, finding: Finding) -> None:
        self.tally.findings.append(finding)
        self._say(finding)


def limit_memory(gigabytes: float) -> None:
    """This process and its children may not take more address space."""
    import resource

    bytes_ = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (bytes_, bytes_))


@contextmanager
def working_folder(folder: Path) -> Iterator[None]:
    """`folder` as the current one, for commands that write beside it."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
