"""The index of a run's rollout pages: OUT/pages/index.html, one row for each step with a page.

Pages are linked with each other, too: to the index, to the page before, and to the one after it
once that is written.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.html_page import write_page
from cli.index_page import write_index_page
from schemas.serialization import write_text
from train.monitoring.rl_report import read_steps

INDEX = "index.html"
NEXT_PAGE = "<!-- next page -->"
"""Stands in a page where the link to the next one goes; text of others is escaped, and never it."""
_TEMPLATE = Path(__file__).parent / "rollout_index.html.jinja"
_PAGE = re.compile(r"step-(\d+)\.html")
_COLUMNS = (
    ("perception reward", "rewards/perception/total", "{:.3f}"),
    ("reasoning reward", "rewards/reasoning/total", "{:.3f}"),
    ("accuracy", "rewards/reasoning/accuracy", "{:.1%}"),
    ("tokens", "length/completion", "{:.0f}"),
    ("flat groups", "groups/flat_reasoning", "{:.0%}"),
    ("KL", "kl", "{:.4f}"),
)


@dataclass(frozen=True)
class IndexRow:
    """A step on the index; its numbers in words, a dash where it has none."""

    step: int
    page: str
    numbers: tuple[str, ...]


def page_name(step: int) -> str:
    """The file name of a step's page."""
    return f"step-{step:06d}.html"


def page_before(folder: Path, step: int) -> str | None:
    """The name of the last page before that of `step`; None for the first."""
    earlier = [number for number in _steps_with_pages(folder) if number < step]
    return page_name(earlier[-1]) if earlier else None


def write_rollout_index(out: Path) -> None:
    """Write the index of a run's pages, and link the last two of them; then that of the run."""
    folder = out / "pages"
    shown = _steps_with_pages(folder)
    metrics = {int(row["step"]): row for row in read_steps(out)}
    titles = [
        title for title, name, _ in _COLUMNS if any(name in metrics.get(n, {}) for n in shown)
    ]
    rows = [IndexRow(n, page_name(n), _numbers(metrics.get(n, {}), titles)) for n in shown]
    write_page(
        folder / INDEX,
        _TEMPLATE,
        {"titles": titles, "rows": rows, "run": out.resolve().name},
        title="Rollouts by step",
    )
    if len(shown) > 1:
        _link(folder / page_name(shown[-2]), shown[-1])
    write_index_page(out)


def _numbers(metrics: Mapping[str, Any], titles: list[str]) -> tuple[str, ...]:
    return tuple(
        form.format(metrics[name]) if metrics.get(name) is not None else "–"
        for title, name, form in _COLUMNS
        if title in titles
    )


def _link(page: Path, step: int) -> None:
    """Put the link to the next page into `page`, where it has none yet."""
    text = page.read_text("utf-8")
    if NEXT_PAGE in text:
        link = f'<a href="{page_name(step)}">step {step:,} →</a>'
        write_text(page, text.replace(NEXT_PAGE, link, 1))


def _steps_with_pages(folder: Path) -> list[int]:
    found = (_PAGE.fullmatch(path.name) for path in folder.glob("step-*.html"))
    return sorted(int(match[1]) for match in found if match)
