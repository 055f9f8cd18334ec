"""`--dry-run`: print what a build will cost. Only free token counts are asked of a server."""

import json
from contextlib import AsyncExitStack
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from judges.backends.base import Backend, BackendUnavailableError
from judges.backends.prices import ModelPrice, Prices
from judges.backends.registry import UnknownBackendError
from pipeline.estimate import Assumptions, Estimate, SpreadSample, estimate, observed
from pipeline.options import BuildConfig
from pipeline.parts import frame_store, open_one, question_source, step_settings, usage_errors
from pipeline.planning import plan
from pipeline.progress import output_console, write_atomically
from schemas.config import EXIT_OK, UsageError
from schemas.ledger import Ledger
from schemas.questions import VideoQuestion
from schemas.runs import start_run


async def quote(config: BuildConfig) -> int:
    """Print the estimate, and write it to `OUT/estimate.json` where an output folder is given."""
    console = output_console()
    async with AsyncExitStack() as closing:
        with usage_errors():
            prices = Prices.load(config.prices)
            question_source(config).refuse_without_questions()
            frames = frame_store(config)
            closing.callback(frames.close)
            settled, assumptions = _what_is_known(config)
            sample = SpreadSample()
            for planned in plan(question_source(config), frames):
                if (
                    planned.rejection is None
                    and isinstance(planned.row, VideoQuestion)
                    and planned.row.question_id not in settled
                ):
                    sample.add(planned.row)
        generator, generator_note = await _open_if_possible(config.generator, config, closing)
        judge, judge_note = await _open_if_possible(config.judge, config, closing)
        result = await estimate(
            sample,
            frames=frames,
            settings=step_settings(config, None),
            generator=generator,
            judge=judge,
            prices=(_price(prices, config.generator), _price(prices, config.judge)),
            assumptions=assumptions,
        )
    for note in sorted({generator_note, judge_note} - {""}):
        result = replace(result, counted_by=f"{result.counted_by} ({note})")
    _print(console, result, prices)
    if config.output_dir is not None:
        path = config.output_dir / "estimate.json"
        try:
            config.output_dir.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(result.as_json(), indent=1) + "\n")
        except OSError as error:
            raise UsageError(
                f"the quote cannot be written to {path} ({error.strerror}); give --output-dir a "
                "folder that can, or leave it out"
            ) from None
        console.print(f"written to {path}", highlight=False, soft_wrap=True)
    return EXIT_OK


def _what_is_known(config: BuildConfig) -> tuple[set[str], Assumptions]:
    """Questions that an earlier run of this build has settled, and what its replies were like."""
    ledger_path = None if config.output_dir is None else config.output_dir / "cot.duckdb"
    if ledger_path is None or not ledger_path.exists():
        return set(), Assumptions()
    with Ledger.open(ledger_path, start_run("pipeline.build_cot --dry-run", config)) as ledger:
        known = ledger.settled_question_ids(), observed(Assumptions(), ledger.averages())
        ledger.end_run(EXIT_OK)
        return known


async def _open_if_possible(
    spec: str | None, config: BuildConfig, closing: AsyncExitStack
) -> tuple[Backend | None, str]:
    """The backend for its free token count, or why the arithmetic has to do: a quote needs no
    key.
    """
    assert spec is not None
    try:
        return await open_one(spec, config, closing), ""
    except UnknownBackendError as error:
        raise UsageError(str(error)) from None
    except BackendUnavailableError as error:
        return None, str(error)


def _price(prices: Prices, spec: str | None) -> ModelPrice | None:
    provider, _, rest = (spec or "").partition(":")
    return prices.price(provider, rest.partition("@")[0])


def _print(console: Console, result: Estimate, prices: Prices) -> None:
    table = Table(title=f"{result.questions:,} questions still open", title_justify="left")
    for column in ("step", "backend"):
        table.add_column(column)
    for column in ("calls", "input tokens", "output tokens", "live", "with --batch"):
        table.add_column(column, justify="right")
    for step in result.steps:
        table.add_row(
            step.step,
            step.backend,
            f"{step.calls:,}",
            f"{step.input_tokens:,}",
            f"{step.output_tokens:,}",
            _dollars(step.usd),
            _dollars(step.usd_batch),
        )
    table.add_section()
    table.add_row(
        "all",
        "",
        f"{sum(step.calls for step in result.steps):,}",
        f"{sum(step.input_tokens for step in result.steps):,}",
        f"{sum(step.output_tokens for step in result.steps):,}",
        _dollars(_sum([step.usd for step in result.steps])),
        _dollars(_sum([step.usd_batch for step in result.steps])),
        style="bold",
    )
    console.print(table)
    seen = result.assumptions
    lines = [
        f"input tokens: counted by {result.counted_by}, on {result.sampled} questions with their "
        f"real frames; {result.unreadable_in_sample} of these could not be decoded",
        f"replies ({seen.source}): {seen.trace_tokens:.0f} tokens a trace, "
        f"{seen.judge_reply_tokens:.0f} a verdict, {seen.share_verified:.0%} of traces are judged",
        "a pilot (--limit 50) puts what these models really write in place of assumptions",
        f"prices: {prices.source}, {prices.dated}; local and oracle backends cost nothing; "
        "unknown prices are given with --prices",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _sum(dollars: list[float | None]) -> float | None:
    known = [value for value in dollars if value is not None]
    return sum(known) if len(known) == len(dollars) else None


def _dollars(value: float | None) -> str:
    if value is None:
        return "price not known"
    return f"${value:,.2f}" if value >= 10 else f"${value:.4f}"
