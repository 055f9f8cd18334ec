"""`python -m sandbox.demo` (`make demo`): from clips to a dataset and an audit of its judge.

Renders a small scripted world, builds a chain-of-thought dataset from it with the oracle as teacher
and judge (no network, no key, no model), shows the funnel, loads the dataset, and audits the judge
against the sandbox's truth. Teacher and judge err on purpose, so that every step of the funnel has
something to reject and the audit something to find. Run again, it resumes.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from sandbox.world import NOTICE
from schemas.config import EXIT_OK, Config, parse_command, run_command

PROG = "sandbox.demo"
_SHOWN_ROWS = 2
_STAGES = 5


class DemoConfig(Config):
    """Options of `sandbox.demo`."""

    output_dir: Path = Path("out/demo")
    """Folder to write: the world under `world/`, the build under `cot/`, the audit of its judge
    under `audit/`."""
    clips: int = Field(60, ge=1)
    """Video clips to render."""
    stills: int = Field(20, ge=0)
    """Still images to render."""
    questions: int = Field(300, ge=1)
    """Questions to ask."""
    seed: int = 0
    """Seed of the world."""
    generator: str = "oracle:7,wrong=0.15,insufficient=0.1,malformed=0.05,leak=0.05"
    """Teacher, as for pipeline.build_cot; its faults are planted."""
    judge: str = "oracle:7,false_yes=0.2,false_no=0.05"
    """Judge, as for pipeline.build_cot; its errors are planted, the audit has to find them."""
    audit_size: int = Field(150, ge=1)
    """Verdicts of the judge to audit."""


class _StageFailedError(Exception):
    """A command of the demo ended with another status than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def main(argv: Sequence[str] | None = None) -> int:
    """Render, build, show the funnel, load the dataset."""
    config = parse_command(
        DemoConfig, argv, prog=PROG, description="Clips to dataset on a laptop, in a minute."
    )
    started = time.monotonic()
    world, build = config.output_dir / "world", config.output_dir / "cot"
    audit = config.output_dir / "audit"
    print(f"Demo ({NOTICE}; teacher and judge are scripted)")
    try:
        with _stage(1, f"render {config.clips} clips, {config.stills} stills, their questions"):
            _run("sandbox.clips", "--out", world, *_sizes(config))
        with _stage(2, "generate, verify and judge; export the dataset"):
            _run("pipeline.build_cot", *_build_options(config, world, build))
        with _stage(3, "the funnel: what became of each question"):
            _run("pipeline.status", build)
    except _StageFailedError as error:
        return error.status
    with _stage(4, "load the dataset with `datasets`"):
        _show_dataset(build / "dataset", config.output_dir / "datasets_cache")
    try:
        with _stage(5, "audit the judge: rows drawn blind, labels from the truth, leak probes"):
            print(f"the judge is {config.judge}: its error rates are planted, find them below")
            _audit(config, world, build, audit)
    except _StageFailedError as error:
        return error.status
    print(f"\nDone in {time.monotonic() - started:.0f} s")
    print(f"  dataset  {build / 'dataset'}")
    print(f"  card     {build / 'README.md'}")
    print(f"  ledger   {build / 'cot.duckdb'}")
    print(f"  audit    {audit / 'report.html'}")
    print(f"  clips    {world / 'videos'}")
    return EXIT_OK


def _sizes(config: DemoConfig) -> list[str]:
    return [
        *("--clips", str(config.clips), "--stills", str(config.stills)),
        *("--questions", str(config.questions), "--seed", str(config.seed)),
    ]


def _build_options(config: DemoConfig, world: Path, build: Path) -> list[str]:
    return [
        *("--questions", str(world / "questions.json"), "--media-root", str(world)),
        *("--generator", config.generator, "--judge", config.judge),
        *("--frame-cache", str(config.output_dir / "frames"), "--out", str(build)),
    ]


def _audit(config: DemoConfig, world: Path, build: Path, audit: Path) -> None:
    """Draw, label from the sandbox's truth, ask the judge again, report."""
    labels = config.output_dir / "truth_labels.jsonl"
    size = ("--size", str(config.audit_size), "--max-per-video", "20")
    _run("judges.audit", "sample", audit, "--build", build, *size)
    _run("sandbox.truth_labels", audit, "--media-root", world, "--out", labels)
    _run("judges.audit", "label", audit, "--import", labels)
    _run("judges.audit", "run", audit, "--judge", config.judge, "--probes", "--media-root", world)
    _run("judges.audit", "report", audit)


@contextmanager
def _stage(number: int, title: str) -> Iterator[None]:
    """Announce a stage, and say how long it took."""
    print(f"\n[{number}/{_STAGES}] {title}", flush=True)
    started = time.monotonic()
    yield
    print(f"[{number}/{_STAGES}] done in {time.monotonic() - started:.1f} s", flush=True)


def _run(module: str, *options: str | Path) -> None:
    """Run a command as a user would, and print it."""
    command = ["python", "-m", module, *map(str, options)]
    print(f"$ {shlex.join(command)}", flush=True)
    with subprocess.Popen([sys.executable, *command[1:]]) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # the command has been interrupted too, and is storing what it has
            raise
    if status != EXIT_OK:
        print(f"{module} ended with status {status}", file=sys.stderr)
        raise _StageFailedError(status)


def _show_dataset(folder: Path, cache: Path) -> None:
    """Load the Parquet files as a user of `datasets` would, and print some rows."""
    from datasets import load_dataset

    files = sorted(str(path) for path in folder.glob("*.parquet"))
    print(f'>>> load_dataset("parquet", data_files="{folder}/*.parquet", split="train")')
    dataset = load_dataset("parquet", data_files=files, split="train", cache_dir=str(cache))
    print(dataset)
    for row in dataset.select(range(min(_SHOWN_ROWS, len(dataset)))):
        print()
        for name in ("problem", "solution", "path", "output", "reward", "judge_reply"):
            print(f"  {name}: {row[name]}")


if __name__ == "__main__":
    run_command(PROG, main)
