"""The data card: what a dataset holds, how it was made, what was left out and why, what it cost.

Everything on it is read from the ledger and the dataset; the same ledger gives the same card.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cli.markdown_page import front_matter, render_markdown
from pipeline.card_examples import CardExample, pictures_of
from pipeline.card_statistics import CardStatistics, RunRow, collect_statistics
from pipeline.exports.formats import formats_in
from pipeline.exports.hf_video import EMBEDDED
from pipeline.exports.parquet_files import replaced_folder
from schemas.dataset_rows import COLUMNS
from schemas.ledger.ledger import Ledger, SpendRow
from schemas.serialization import write_text

_TEMPLATE = "card.md.jinja"
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_SIZE_NAMES = ("1K", "10K", "100K", "1M", "10M")
_KEPT, _LOST, _INK = "#2a6f97", "#d9dee3", "#22303c"
_NUM_BINS = 40


def write_card(
    ledger: Ledger,
    out: Path,
    *,
    examples: Sequence[CardExample] = (),
    copy_to: Path | None = None,
) -> Path:
    """Write `OUT/README.md` and its pictures for `OUT/dataset`; returns the card's path.

    `examples` are the rows that it shows.
    With `copy_to`, the card is also written there under the dataset's id, its pictures beside it.
    """
    stats = collect_statistics(ledger, out / "dataset")
    pictures = out / "pictures"
    with replaced_folder(pictures, "*.png") as fresh:
        plot_funnel(stats.stages, fresh / "funnel.png")
        plot_lengths({length.name: length.words for length in stats.lengths}, fresh / "lengths.png")
        for name, png in pictures_of(examples).items():
            (fresh / name).write_bytes(png)
    card = out / "README.md"
    text = render_card(stats, examples, formats_in(out))
    write_text(card, text)
    if copy_to is not None:
        copy_to.mkdir(parents=True, exist_ok=True)
        with replaced_folder(copy_to / stats.dataset_id, "*.png") as fresh:
            shutil.copytree(pictures, fresh, dirs_exist_ok=True)
        in_copy = text.replace("](pictures/", f"]({stats.dataset_id}/")
        write_text(copy_to / f"{stats.dataset_id}.md", in_copy)
    return card


def render_card(
    stats: CardStatistics, examples: Sequence[CardExample], formats: Mapping[str, str]
) -> str:
    """The card's text; `formats` are further ones by folder, with their readers. Names, ids and
    details from outside are escaped.
    """
    filters: dict[str, Callable[..., object]] = {
        "number": lambda count: f"{count:,}",
        "seconds": lambda value: "–" if value is None else f"{value:.1f}",
        "time": _time,
        "commit": _commit,
        "dollars": _dollars,
        "total_dollars": _total_dollars,
    }
    input_tokens = sum(
        row.input_tokens + row.cache_read_tokens + row.cache_write_tokens for row in stats.spend
    )
    values = {
        "stats": stats,
        "title": _title(stats),
        "front_matter": front_matter(_front_matter_fields(stats, formats)),
        "share": lambda part, whole: f"{part / whole:.1%}" if whole else "–",
        "input_tokens": input_tokens,
        "columns": COLUMNS,
        "examples": examples,
        "formats": formats,
    }
    return render_markdown(Path(__file__).parent / _TEMPLATE, values, filters)


def _front_matter_fields(stats: CardStatistics, formats: Mapping[str, str]) -> dict[str, Any]:
    """What the Hub and `datasets` read: with embedded videos, a second configuration that plays.
    The publisher fills in the licence.
    """
    tasks = {"video": "video-text-to-text", "image": "image-text-to-text"}
    return {
        "pretty_name": _title(stats),
        "license": "other",
        "license_name": "to-fill-in",
        "license_link": "to-fill-in",
        "task_categories": [tasks[kind] for kind in tasks if kind in stats.media_kinds]
        or ["video-text-to-text"],
        "size_categories": [size_category(stats.num_kept)],
        "tags": [
            "chain-of-thought",
            "video-question-answering",
            "synthetic",
            *(["sandbox"] if stats.is_scripted else []),
        ],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": "train", "path": f"{folder}/*.parquet"}],
            }
            for name, folder in (("default", "dataset"), ("video", EMBEDDED))
            if name == "default" or folder in formats
        ],
    }


def size_category(num_rows: int) -> str:
    """The Hub's name for a size: `n<1K`, `1K<n<10K`, ..."""
    for place, limit in enumerate(_SIZES):
        if num_rows < limit:
            return f"{_SIZE_NAMES[place - 1]}<n<{_SIZE_NAMES[place]}" if place else "n<1K"
    return "n>10M"


def _title(stats: CardStatistics) -> str:
    kind = "sandbox chain-of-thought dataset" if stats.is_scripted else "chain-of-thought dataset"
    return f"Process-aware {kind} {stats.dataset_id.removeprefix('dataset-')[:8]}"


def _time(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _commit(run: RunRow) -> str:
    if run.commit is None:
        return ""
    return run.commit[:12] + (" with local changes" if run.dirty else "")


def _dollars(row: SpendRow) -> str:
    return _amount(row.cost_usd, row.unpriced_calls, row.calls)


def _total_dollars(stats: CardStatistics) -> str:
    known = [row.cost_usd for row in stats.spend if row.cost_usd is not None]
    unpriced = sum(row.unpriced_calls for row in stats.spend)
    return _amount(
        math.fsum(known) if known else None, unpriced, sum(row.calls for row in stats.spend)
    )


def _amount(dollars: float | None, unpriced: int, calls: int) -> str:
    """Dollars, and how many calls they do not include."""
    if dollars is None or unpriced == calls:
        return "price unknown"
    return f"{dollars:,.4f}" + (f" and {unpriced:,} calls of unknown price" if unpriced else "")


def plot_funnel(stages: Sequence[tuple[str, int]], path: Path) -> None:
    """Bars of the questions left after each stage; the pale part was lost in that stage."""
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


def plot_lengths(words: Mapping[str, Sequence[int]], path: Path) -> None:
    """Histograms of the words in each segment."""
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
    """PNG without the software version, so that equal plots are equal bytes."""
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
