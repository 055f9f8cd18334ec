"""What a section of the report is made of: tables of texts, and numbers written as texts.

The same on screen, on the page and in pictures.
"""

import math
from dataclasses import dataclass

from judges.statistics.cluster_bootstrap import Estimate

# Below these an interval by video is too wide, and rests on too little, to conclude anything.
MIN_ROWS = 20
MIN_VIDEOS = 10
TOO_FEW = "too few labels to say"
UNKNOWN = "–"


@dataclass(frozen=True)
class Table:
    """Cells as texts. The first `num_texts` columns are words, the others numbers.

    The screen shows the first `screen_rows` rows, the page all; with none, it counts `what`.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_texts: int = 1
    screen_rows: int = 15
    what: str = "rows"


@dataclass(frozen=True)
class Section:
    """One subject of the report. `name` finds its pictures."""

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


def is_too_few(num_rows: int, num_videos: int) -> bool:
    """Whether a statistic rests on too few rows to be read at all."""
    return num_rows < MIN_ROWS or num_videos < MIN_VIDEOS


def percent(estimate: Estimate) -> str:
    """`91.2 % (86.0–95.1)`; a dash where it is not defined."""
    if math.isnan(estimate.value):
        return UNKNOWN
    low, high = 100 * estimate.low, 100 * estimate.high
    interval = "no interval" if math.isnan(low) else f"{low:.1f}–{high:.1f}"
    return f"{100 * estimate.value:.1f} % ({interval})"


def coefficient(estimate: Estimate) -> str:
    """`0.82 (0.71 to 0.90)`; a dash where it is not defined."""
    if math.isnan(estimate.value):
        return UNKNOWN
    low, high = estimate.low, estimate.high
    interval = "no interval" if math.isnan(low) else f"{low:.2f} to {high:.2f}"
    return f"{estimate.value:.2f} ({interval})"


def points(estimate: Estimate) -> str:
    """A difference of shares: `+3.1 points (-0.4 to +6.8)`."""
    if math.isnan(estimate.value):
        return UNKNOWN
    if math.isnan(estimate.low):
        return f"{100 * estimate.value:+.1f} points (no interval)"
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{100 * estimate.value:+.1f} points ({low:+.1f} to {high:+.1f})"


def dollars(value: float | None) -> str:
    """`$1.23`; a dash where the price is not known."""
    return UNKNOWN if value is None else f"${value:,.2f}"


def seconds(value: float | None) -> str:
    """`840 s`."""
    return UNKNOWN if value is None else f"{value:,.1f} s" if value < 10 else f"{value:,.0f} s"


def count(number: int, what: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def p_value(value: float) -> str:
    """Two digits that mean something, and no zero."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def visible(text: str) -> str:
    """Names come from data sets: nothing in them may steer a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)
