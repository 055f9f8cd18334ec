"""Curves of a training run. The one file of this room that draws."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_LINE, _INK = "#2a6f97", "#22303c"

Points = Sequence[tuple[int, float]]


def draw_curves(curves: Mapping[str, Points], path: Path) -> None:
    """One panel per curve, (step, value) each, without a display and without global state."""
    figure = Figure(figsize=(4.2 * len(curves), 2.8), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (name, points) in zip(panels, curves.items(), strict=True):
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=_LINE, marker="." if len(points) < 30 else None)
        axes.set_title(name, color=_INK, fontsize=11)
        axes.set_xlabel("step", color=_INK)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
