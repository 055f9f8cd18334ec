"""`python -m pipeline.status OUT [--json]`: the funnel of a running, stopped or finished build."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.config import EXIT_OK, UsageError, parse_command, run_command
from pipeline.options import BuildFolderOptions

PROG = "pipeline.status"
DESCRIPTION = "The funnel of a running, stopped or finished build, without touching its ledger."


class StatusConfig(BuildFolderOptions, group="output", example="out/build"):
    """Options of `python -m pipeline.status`."""

    print_json: bool = False
    """Print the whole progress.json instead of a table."""


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
    from cli.console import output_console
    from pipeline.progress import funnel_table

    output_console().print(funnel_table(snapshot))
    return EXIT_OK


if __name__ == "__main__":
    run_command(PROG, main)
