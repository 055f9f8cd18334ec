"""`python -m pipeline.status OUT [--json | --watch]`: the funnel of a build, running or not."""

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cli.config import EXIT_OK, UsageError, nothing_to_resume, parse_command, run_command, say
from pipeline.options import BuildFolderOptions
from schemas.serialization import visible

PROG = "pipeline.status"
_WATCH_SECONDS = 1.0
DESCRIPTION = "The funnel of a running, stopped or finished build, without touching its ledger."


class StatusConfig(BuildFolderOptions, group="output", example="out/build"):
    """Options of `python -m pipeline.status`."""

    print_json: bool = False
    """Print the whole progress.json instead of a table."""
    watch: bool = False
    """Go on until the build ends: on a terminal the table and the rows that were finished last, in
    a file or a pipe a line for each of these."""


def read_status(out: Path) -> dict[str, Any]:
    """`OUT/progress.json`; the state is `interrupted` if its process died without writing one."""
    from pipeline.progress import PROGRESS_FILE

    path = out / PROGRESS_FILE
    if not path.is_file():
        raise UsageError(
            f"{out} holds no {PROGRESS_FILE}: expected the output folder of pipeline.build_cot "
            "(its --output-dir)"
        )
    try:
        snapshot: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        state = snapshot["state"]
    except (OSError, ValueError, TypeError, KeyError):
        raise UsageError(
            f"{path} cannot be read as the progress of a build; the next run of the same "
            "pipeline.build_cot command writes it anew"
        ) from None
    if state == "running" and not _is_alive(snapshot["pid"]):
        snapshot["state"] = "interrupted"
        snapshot["note"] = "its process is gone; the same command resumes it"
    return snapshot


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _watch(out: Path) -> int:
    """Show the build until it is no longer running."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from cli.console import output_console
    from pipeline.progress import funnel_table, headline, row_line

    console = output_console()
    shown: list[str] = []
    with ExitStack() as closing:
        live = None
        if console.is_terminal:
            live = closing.enter_context(Live(console=console, refresh_per_second=4))
        while True:
            snapshot = read_status(out)
            rows = [row_line(row) for row in snapshot.get("newest", ())]
            if live is not None:
                live.update(Group(funnel_table(snapshot), *(Text(visible(row)) for row in rows)))
            else:
                for row in rows:
                    if row not in shown:
                        say(row, sys.stdout)
            shown = rows
            if snapshot["state"] != "running":
                break
            time.sleep(_WATCH_SECONDS)
    if live is None:
        say(headline(snapshot), sys.stdout)
    return EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Print the funnel."""
    config = parse_command(
        StatusConfig,
        argv,
        prog=PROG,
        description=DESCRIPTION,
        positional=("out",),
        aliases={"print_json": ("--json",)},
    )
    snapshot = read_status(config.out)
    if config.print_json:
        print(json.dumps(snapshot, indent=1))
        return EXIT_OK
    if config.watch:
        with nothing_to_resume("the build goes on"):
            return _watch(config.out)
    from cli.console import output_console
    from pipeline.progress import funnel_table

    output_console().print(funnel_table(snapshot))
    return EXIT_OK


if __name__ == "__main__":
    run_command(PROG, main)
