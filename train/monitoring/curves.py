"""Curves of a run as one picture, and what they say in numbers.

    draw_curves({"rewards": {"perception": points, "reasoning": points}}, out / "curves.png")

Panels are drawn without a display and without global state.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_INK = "#22303c"
_LINES = ("#2a6f97", "#c8553d", "#5b8c5a", "#8d6a9f")
_ACROSS = 3  # panels beside each other
_MARKED = 30  # points up to which each is marked
_PARTS = 10  # the first and the last tenth of the steps are compared

Points = Sequence[tuple[int, float]]


def points_of(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) of each row that has a finite value of that name."""
    return [
        (int(row["step"]), float(row[name]))
        for row in rows
        if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]


def draw_curves(panels: Mapping[str, Mapping[str, Points]], path: Path) -> None:
    """Draw one panel for each title, with the curves of their labels over the step.

    A panel of one curve has no legend. Panels stand in rows of three.
    """
    across = min(len(panels), _ACROSS)
    down = -(-len(panels) // across)
    figure = Figure(figsize=(4.2 * across, 2.8 * down), layout="constrained")
    places = figure.subplots(down, across, squeeze=False).ravel()
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, curves) in zip(places, panels.items(), strict=False):
        for (label, points), colour in zip(curves.items(), _LINES, strict=False):
            if points:
                steps, values = zip(*points, strict=True)
                marker = "." if len(points) < _MARKED else None
                axes.plot(steps, values, color=colour, marker=marker, label=label)
        axes.set_title(title, color=_INK, fontsize=11)
        axes.set_xlabel("step", color=_INK)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def what_changed(
    rows: Sequence[Mapping[str, Any]], panels: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """A Markdown section: means over the first and the last tenth of the steps.

    `panels` has the keys of `rows` by title and label. What was 0 throughout is left out; a single
    step has nothing to compare, and no section.
    """
    part = max(len(rows) // _PARTS, 1)
    if len(rows) < 2 * part:
        return []
    span = f"{part} steps" if part > 1 else "step"
    lines = ["## What changed", "", f"| | first {span} | last {span} |", "|---|---:|---:|"]
    for title, names in panels.items():
        for label, name in names.items():
            first, last = (
                [value for _, value in points_of(some, name)]
                for some in (rows[:part], rows[-part:])
            )
            if first and last and any(first + last):
                what = title if len(names) == 1 else f"{title}: {label}"
                means = [f"{statistics.fmean(values):.4g}" for values in (first, last)]
                lines.append(f"| {what} | {means[0]} | {means[1]} |")
    return [*lines, ""]
