"""`python -m pipeline.build_cot`: video questions in, verified and judged chain-of-thought data
out.

    python -m pipeline.build_cot --questions q.json --media-root clips --check
    python -m pipeline.build_cot --questions q.json --media-root clips \\
        --generator claude:claude-sonnet-5-5 --judge claude:claude-haiku-5-5 --dry-run
    python -m pipeline.build_cot ... --out out/build        # the same command again resumes

Three steps for each question (VideoP2R, arXiv 2511.11113, section 3.1.1): a teacher sees the frames
and writes `<observation> <think> <answer>`; a rule checks format and answer; a judge that sees only
text says whether the observation alone supports the answer. `OUT` then holds the ledger
`cot.duckdb`, the dataset (Parquet), and its data card.
"""

import asyncio
import sys
from collections.abc import Sequence

from pipeline.options import BuildConfig
from schemas.config import EXIT_OK, EXIT_ROWS_FAILED, parse_command, run_command

PROG = "pipeline.build_cot"
DESCRIPTION = "Video questions in, verified and judged chain-of-thought data out."


def main(argv: Sequence[str] | None = None) -> int:
    """Check, quote, or build, as the options say."""
    config = parse_command(BuildConfig, argv, prog=PROG, description=DESCRIPTION)
    command = [PROG, *(sys.argv[1:] if argv is None else argv)]
    # The rooms below import decoders, DuckDB and SDKs: `--help` does without them.
    if config.check:
        from pipeline.check import check_questions

        report = asyncio.run(check_questions(config))
        print(report.text())
        return EXIT_ROWS_FAILED if report.unusable else EXIT_OK
    if config.dry_run:
        from pipeline.quote import quote

        return asyncio.run(quote(config))
    from pipeline.build import build

    return asyncio.run(build(config, command))


if __name__ == "__main__":
    run_command(PROG, main)
