"""`metrics.jsonl`: one JSON object per step, in order, whatever happened to the run in between."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path


class MetricsFile:
    """The file of one run, for the one process that writes it.

    A run that goes on from a checkpoint repeats the steps after it: they are cut off here, and so
    is a line that a kill left unfinished. `last_step` is the checkpoint's step, 0 for a new run.
    """

    def __init__(self, path: Path, *, last_step: int = 0) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if _step_of(line) <= last_step]
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._last_step = last_step

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the line of a step; numbers that are not finite are null. Raises ValueError for a
        step that has its line.
        """
        if step <= self._last_step:
            raise ValueError(f"{self.path} has the line of step {self._last_step}, got step {step}")
        values = {
            name: value if math.isfinite(value) else None for name, value in sorted(metrics.items())
        }
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
        self._last_step = step


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """The steps of a file, in order; an unfinished last line is left out."""
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    """Whole lines: the last one counts only with its line feed."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _step_of(line: str) -> int:
    step = json.loads(line)["step"]
    assert isinstance(step, int)
    return step
