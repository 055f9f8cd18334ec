"""The data card's pictures, drawn without a display and without global state."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_KEPT, _LOST, _INK = "#2a6f97", "#d9dee3", "#22303c"
_NUM_BINS = 40


def draw_funnel(stages: Sequence[tuple[str, int]], path: Path) -> None:
    """Bars of the questions left after each stage; the pale part of a bar is what it took."""
    figure = Figure(figsize=(8, 0.55 * len(stages) + 0.6), layout="constrained")
    axes = figure.add_subplot()
    whole = max(stages[0][1], 1)
    before = stages[0][1]
    for place, (_, count) in enumerate(stages):
        axes.barh(place, before, color=_LOST, height=0.72)
        axes.barh(place, count, color=_KEPT, height=0.72)
        lost = f"  (−{before - count:,})" if before > count else ""
        axes.text(
            before + whole * 0.012,
            place,
            f"{count:,}{lost}",
            va="center",
            color=_INK,
            fontsize=10,
        )
        before = count
    axes.set_yticks(range(len(stages)), [name for name, _ in stages], color=_INK)
    axes.invert_yaxis()
    axes.set_xlim(0, whole * 1.22)
    axes.xaxis.set_visible(False)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    _save(figure, path)


def draw_lengths(words: Mapping[str, Sequence[int]], path: Path) -> None:
    """A histogram of the words in each segment."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    panels = figure.subplots(1, len(words), squeeze=False)[0]
    for axes, (name, counts) in zip(panels, words.items(), strict=True):
        if counts:
            low, high = min(counts), max(counts)
            width = ceil((high - low + 1) / _NUM_BINS)
            # Edges halfway between whole numbers: every bar covers the same number of them.
            edges = [edge - 0.5 for edge in range(low, high + width + 1, width)]
            axes.hist(counts, bins=edges, color=_KEPT)
        axes.set_title(name, color=_INK, fontsize=11)
        axes.set_xlabel("words", color=_INK)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_ylabel("rows", color=_INK)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """PNG without the software's version, so that equal pictures are equal bytes."""
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
