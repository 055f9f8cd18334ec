"""`python -m pipeline.build_cot`: verified and judged chain-of-thought data from video questions.

    python -m pipeline.build_cot --questions q.json --media-root clips --check
    python -m pipeline.build_cot --questions q.json --media-root clips \\
        --generator claude:claude-sonnet-5-5 --judge claude:claude-haiku-5-5 --dry-run
    python -m pipeline.build_cot ... --out out/build        # the same command again resumes

Each question goes through three steps (VideoP2R, arXiv 2511.11113, section 3.1.1): a teacher sees
the frames and writes `<observation> <think> <answer>`; a rule checks format and answer; a judge
that sees only text decides whether the observation alone supports the answer. `OUT` then holds the
ledger `cot.duckdb`, the dataset (Parquet), and its data card.
"""

import asyncio
import json
import sys
from collections.abc import Sequence

from cli.config import (
    EXIT_OK,
    EXIT_ROWS_FAILED,
    nothing_to_resume,
    parse_command,
    run_command,
    say,
)
from pipeline.options import BuildConfig

PROG = "pipeline.build_cot"
DESCRIPTION = "Video questions in, verified and judged chain-of-thought data out."


def main(argv: Sequence[str] | None = None) -> int:
    """Check, estimate or build, depending on the options."""
    config = parse_command(BuildConfig, argv, prog=PROG, description=DESCRIPTION)
    command = [PROG, *(sys.argv[1:] if argv is None else argv)]
    # Imported late: decoders, DuckDB and SDKs would slow down `--help`.
    if config.check:
        from pipeline.preview import check_questions

        with nothing_to_resume("nothing was begun"):
            report = asyncio.run(check_questions(config))
        said = json.dumps(report.as_json()) if config.json else report.text()
        say(said, sys.stdout)
        return EXIT_ROWS_FAILED if report.unusable else EXIT_OK
    if config.dry_run:
        from pipeline.preview import print_estimate

        with nothing_to_resume("nothing was begun: an estimate starts anew each time"):
            return asyncio.run(print_estimate(config))
    from pipeline.build import build

    return asyncio.run(build(config, command))


if __name__ == "__main__":
    run_command(PROG, main)
