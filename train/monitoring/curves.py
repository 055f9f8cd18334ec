"""Curves of a run as one picture: a panel for each subject, drawn without a display.

draw_curves({"rewards": {"perception": points, "reasoning": points}}, out / "curves.png")
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_INK = "#22303c"
_LINES = ("#2a6f97", "#c8553d", "#5b8c5a", "#8d6a9f")
_ACROSS = 3  # panels beside each other
_MARKED = 30  # points up to which each is marked

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
