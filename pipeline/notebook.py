"""Build and judge from Python: what the commands do, as functions for notebooks and scripts.

    status = await build_dataset(
        questions="q.json",
        media_root="clips",
        generator="claude:claude-sonnet-5-5",
        judge="claude:claude-haiku-5-5",
        output_dir="out/cot",
    )
    outcome = await judge_observation(
        question, "A red ball rolls by.", judge="claude:claude-haiku-5-5", ledger="judge.duckdb"
    )

Both are coroutines: a notebook awaits them as they stand, a script writes `asyncio.run(...)`.
"""

from pathlib import Path
from typing import Any

from cli.config import UsageError, read_config
from cli.config_file import written_options
from cli.option_groups import BackendOptions
from judges.backends.session import open_calls
from judges.sufficiency import SufficiencyOutcome, judge_sufficiency
from pipeline.options import BuildConfig
from schemas.questions import VideoQuestion
from schemas.runs import start_run

PROG = "pipeline.notebook"


async def build_dataset(**options: Any) -> int:
    """Run or resume a build; the exit status of `python -m pipeline.build_cot`.

    `options` are those of the command, with underscores for dashes. Raises UsageError for options
    that the command would refuse. 0: every question has its outcome; 1: some rows ended in media or
    call errors; 3: stopped early, resumable.
    """
    from pipeline.build import build

    with written_options(options) as file:
        config = read_config(
            BuildConfig, ["--config", str(file)], prog=PROG, description="Build a dataset."
        )
    if config.check or config.dry_run:
        raise UsageError(
            "check and dry_run only print something; give them to python -m pipeline.build_cot"
        )
    return await build(config, [PROG])


async def judge_observation(
    question: VideoQuestion,
    observation: str,
    *,
    judge: str,
    ledger: Path | str,
    media_root: Path | str | None = None,
    prompt: str = "sufficiency",
    retries: int = 2,
    max_tokens: int = 512,
    calls: BackendOptions | None = None,
) -> SufficiencyOutcome:
    """Ask a judge whether the correct answer can be deduced from the observation alone.

    `judge` is written as in the commands; `ledger` is a DuckDB file, made if it is not there, that
    remembers the reply: the same question is never paid twice. `media_root` is needed by `oracle:`
    alone. `calls` holds limits, budget and keys. A reply without a verdict is asked again up to
    `retries` times, then the verdict is unscored. Raises UsageError for a judge that cannot be
    opened, LedgerError for a file that is no ledger.
    """
    from schemas.ledger.ledger import Ledger

    root = None if media_root is None else Path(media_root)
    options = calls or BackendOptions()
    run = start_run([PROG], {"judge": judge, "prompt": prompt})
    with Ledger.open(Path(ledger), run) as opened:
        async with open_calls(judge, options, opened, media_root=root) as layer:
            return await judge_sufficiency(
                layer,
                question,
                observation,
                retries=retries,
                max_tokens=max_tokens,
                variant=prompt,
            )
