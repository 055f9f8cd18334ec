"""What a report's section is made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells as texts. The first `num_texts` columns are words, the others numbers.

    The screen shows the first `screen_rows` rows, the page all.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_texts: int = 1
    screen_rows: int = 15


@dataclass(frozen=True)
class Section:
    """One subject of the report. `name` finds its pictures."""

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
