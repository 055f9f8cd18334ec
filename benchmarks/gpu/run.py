"""Measure on one GPU what the pages call not yet measured; a dry run does the same on the CPU.

    bash benchmarks/gpu/run.sh [--dry] [--minutes 20] [--output-dir out/gpu]

Each part of `benchmarks/gpu/parts.py` is a command of its own. One that fails or runs out of time
is reported as that, and the others go on. `gpu.json` (versions, hardware, commit, every part with
its command and result) is written after every part, `gpu.md` at the end. Status 1: not every part
was measured. `python benchmarks/gpu/page.py out/gpu/gpu.json` publishes; a dry run cannot be.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.gpu.page import page_of
from benchmarks.gpu.parts import Part, parts_of

ROOT = Path(__file__).resolve().parent.parent.parent
NEEDED = (
    *("torch", "transformers", "accelerate", "peft", "trl", "datasets", "pydantic", "pebble"),
    "tenacity",
)
_VERSIONS = ("torch", "transformers", "accelerate", "peft", "trl", "numpy")
_LAST_LINES = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts; the status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dry", action="store_true", help="tiny shapes on the CPU, to try it out")
    parser.add_argument("--minutes", type=float, default=20, help="for all parts together")
    parser.add_argument("--output-dir", type=Path, default=Path("out/gpu"))
    parser.add_argument("--parts", nargs="+", metavar="PART", help="only these; all of them")
    options = parser.parse_args(arguments)
    if problem := _problem(options):
        print(f"error: {problem}", file=sys.stderr)
        return 2
    chosen = [p for p in parts_of(dry=options.dry) if p.name in (options.parts or [p.name])]
    folder: Path = options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * options.minutes
    report = heading(dry=options.dry, minutes=options.minutes)
    for part in chosen:
        print(f"{part.name} ...", file=sys.stderr, flush=True)
        report["parts"].append(measured(part, folder, ends - time.monotonic(), dry=options.dry))
        (folder / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
        print(f"{part.name}: {report['parts'][-1]['status']}", file=sys.stderr, flush=True)
    (folder / "gpu.md").write_text(page_of(report))
    return int(any(part["status"] != "measured" for part in report["parts"]))


def _problem(options: argparse.Namespace) -> str:
    """Why nothing can be measured, in one sentence; empty where it can."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"this Python lacks {', '.join(missing)}: install them, or carry the wheels that"
            " `python benchmarks/gpu/wheels.py` collects"
        )
    names = [part.name for part in parts_of(dry=options.dry)]
    if unknown := [name for name in options.parts or () if name not in names]:
        return f"there is no part {unknown[0]}: --parts takes {', '.join(names)}"
    import torch

    if not options.dry and not torch.cuda.is_available():
        return "torch sees no CUDA GPU: start it where there is one, or try it out with --dry"
    return ""


def heading(*, dry: bool, minutes: float) -> dict[str, Any]:
    """What the figures were measured with, and no parts yet."""
    import torch

    hardware: dict[str, Any] = {"machine": platform.machine(), "processors": os.cpu_count()}
    if not dry:
        gpu = torch.cuda.get_device_properties(0)
        hardware |= {"gpu": gpu.name, "gpu GB": round(gpu.total_memory / 1e9, 1)}
    return {
        "is_dry": dry,
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "minutes": minutes,
        "commit": _commit(),
        "hardware": hardware,
        "versions": {
            "python": platform.python_version(),
            "cuda": torch.version.cuda,
            **{name: importlib.metadata.version(name) for name in _VERSIONS},
        },
        "parts": [],
    }


def _commit() -> str:
    """The commit, with a mark where files differ from it; unknown outside of a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    with contextlib.suppress(FileNotFoundError):
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if said.returncode == 0:
            return said.stdout.strip()
    return "unknown"


def measured(part: Part, folder: Path, seconds_left: float, *, dry: bool) -> dict[str, Any]:
    """Run a part: its command, status, seconds, and its result or what went wrong."""
    outcome: dict[str, Any] = {
        "name": part.name,
        "title": part.title,
        "command": " ".join(["python", *map(_quoted, part.command)]),
    }
    limit = min(60 * part.minutes, seconds_left)
    if limit <= 0:
        return outcome | {"status": "out of time", "detail": "not begun", "seconds": 0.0}
    began = time.monotonic()
    output, errors = folder / f"{part.name}.out", folder / f"{part.name}.err"
    with output.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, *part.command],
            cwd=ROOT,
            stdout=out,
            stderr=err,
            env=_environment(dry=dry),
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end_all(process)
    outcome["seconds"] = round(time.monotonic() - began, 1)
    if status is None:
        return outcome | {"status": "out of time", "detail": f"stopped after {limit:.0f} s"}
    if status:
        lines = errors.read_text(errors="replace").strip().splitlines()
        return outcome | {"status": "failed", "detail": " / ".join(lines[-_LAST_LINES:])}
    return outcome | {"status": "measured", "result": json.loads(output.read_text())}


def _end_all(process: "subprocess.Popen[bytes]") -> None:
    """The part and the workers that it started: they hold the GPU's memory."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment(*, dry: bool) -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    # trainers would spread over all that they see
    gpu = "" if dry else os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    return {**os.environ, **quiet, "CUDA_VISIBLE_DEVICES": gpu}


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


if __name__ == "__main__":
    sys.exit(main())
