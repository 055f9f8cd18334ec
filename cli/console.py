"""Consoles and tables of commands, which show text of others as it is.

Names, paths and replies come from files and servers. Square brackets in them are no markup,
`:word:` is no picture, and control characters are shown as escapes instead of reaching the
terminal. Every console is made here; plain lines go through `cli.config.say`.

    console = output_console(stderr=True)
    console.print(plain_table(("source", "rows"), [(name, "12")], num_texts=1))
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import IO, Any

from rich.box import HEAVY_HEAD, Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.serialization import visible

_FILE_WIDTH = 120


class PlainConsole(Console):
    """A console for which every string is plain text: in cells, titles and columns as well."""

    def render_str(
        self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any
    ) -> Text:
        """`text` as it is, with escapes for what acts on a terminal."""
        return Text(visible(text), style=style, justify=justify, overflow=overflow)


def output_console(
    *, stderr: bool = False, file: IO[str] | None = None, file_width: int = _FILE_WIDTH
) -> PlainConsole:
    """A console as wide as the terminal; `file_width` columns for a file or a pipe.

    It writes to stdout, with `stderr` to stderr, or to `file`.
    """
    stream = file or (sys.stderr if stderr else sys.stdout)
    width = None if stream.isatty() else file_width
    return PlainConsole(file=stream, width=width, highlight=False)


def plain_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    num_texts: int,
    title: str | None = None,
    box: Box = HEAVY_HEAD,
) -> Table:
    """A table whose first `num_texts` columns are texts, the others numbers, set to the right.

    Texts are folded, not cut, where a line is too short. Print it with a console of this module.
    """
    table = Table(title=title, title_justify="left", title_style="", box=box)
    table.pad_edge = box is HEAVY_HEAD
    for place, name in enumerate(columns):
        justify = "left" if place < num_texts else "right"
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    return table


def duration(seconds: float) -> str:
    """Such as `3 min 05 s`; `2 h 10 min` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def quieten_libraries(log_level: str = "passive") -> None:
    """Keep what transformers and torch say about themselves off the screen; errors stay.

    For commands that load models. `TRANSFORMERS_VERBOSITY` and `--log-level` bring it back.
    """
    from transformers.utils import logging as of_transformers

    if "TRANSFORMERS_VERBOSITY" in os.environ or log_level != "passive":
        return
    of_transformers.set_verbosity_error()
    of_transformers.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    # torch: there is no GPU to pin memory for, or a scheduler's first step
    warnings.filterwarnings("ignore", message=".*pin_memory.*", category=UserWarning)
