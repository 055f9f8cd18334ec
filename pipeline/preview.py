"""What a build would do, before anything is paid.

`--check` lists the rows of a question file that cannot be used, and why; `--dry-run` prints what
the build will cost. Only free token counts are requested from a server.
"""

import json
from contextlib import AsyncExitStack, closing
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from cli.config import EXIT_OK, UsageError
from cli.console import output_console
from judges.backends.base import Backend, BackendUnavailableError
from judges.backends.prices import Prices
from judges.backends.registry import UnknownBackendError
from judges.quotes import dollars, price_of
from media.frames import MediaError
from media.store import FrameStore
from pipeline.estimate import Assumptions, Estimate, Role, SpreadSample, estimate, observed
from pipeline.options import BuildConfig
from pipeline.planning import CheckReport, PlannedRow, plan
from pipeline.reader_steps import CALLS_STEP
from pipeline.setup import frame_store, open_one, question_source, step_settings, usage_errors
from schemas.ledger.ledger import Ledger
from schemas.questions import VideoQuestion
from schemas.runs import start_run
from schemas.samples import Rejection, Step
from schemas.serialization import write_text


async def check_questions(config: BuildConfig) -> CheckReport:
    """Read every row and check every path; with `--check-decode`, decode every file too."""
    report = CheckReport()
    with usage_errors(), closing(frame_store(config)) as frames:
        source = question_source(config)
        report.format = source.format_found()
        for planned in plan(source, frames):
            if config.check_decode and planned.rejection is None:
                planned = await _decoded(planned, frames)
            report.add(planned)
    return report


async def _decoded(planned: PlannedRow, frames: FrameStore) -> PlannedRow:
    assert isinstance(planned.row, VideoQuestion)
    for ref in planned.row.media:
        try:
            await frames.load(ref)
        except MediaError as error:
            return PlannedRow(planned.row, Rejection(Step.MEDIA, error.reason, error.detail))
    return planned


async def print_estimate(config: BuildConfig) -> int:
    """Print the estimate; with an output folder, also write it to `OUT/estimate.json`."""
    console = output_console()
    async with AsyncExitStack() as resources:
        with usage_errors():
            prices = Prices.load(config.prices)
            question_source(config).refuse_without_questions()
            frames = frame_store(config)
            resources.callback(frames.close)
            finished, assumptions = _earlier_runs(config)
            sample = SpreadSample()
            for planned in plan(question_source(config), frames):
                if planned.rejection is not None or not isinstance(planned.row, VideoQuestion):
                    continue
                if planned.row.question_id in finished:
                    sample.leave_out(planned.row)
                else:
                    sample.add(planned.row)
        specs: dict[Role, str | None] = {
            "generator": config.generator,
            "judge": config.judge,
            "reader": config.blind_filter,
        }
        asked = {role: spec for role, spec in specs.items() if spec is not None}
        opened = {
            role: await _open_if_possible(spec, config, resources) for role, spec in asked.items()
        }
        result = await estimate(
            sample,
            frames=frames,
            settings=step_settings(config, None),
            backends={role: backend for role, (backend, _) in opened.items()},
            prices={role: price_of(prices, spec) for role, spec in asked.items()},
            assumptions=assumptions,
        )
    for note in sorted({note for _, note in opened.values()} - {""}):
        result = replace(result, counted_by=f"{result.counted_by} ({note})")
    _print_table(console, result, prices)
    if config.output_dir is not None:
        path = config.output_dir / "estimate.json"
        try:
            config.output_dir.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(result.as_json(), indent=1) + "\n")
        except OSError as error:
            raise UsageError(
                f"the estimate cannot be written to {path} ({error.strerror}); give --output-dir a "
                "folder that can, or leave it out"
            ) from None
        console.print(f"written to {path}", soft_wrap=True)
    return EXIT_OK


def _earlier_runs(config: BuildConfig) -> tuple[set[str], Assumptions]:
    """Questions that earlier runs of this build finished, and the averages of their replies."""
    ledger_path = None if config.output_dir is None else config.output_dir / "cot.duckdb"
    if ledger_path is None or not ledger_path.exists():
        return set(), Assumptions()
    with Ledger.open(ledger_path, start_run("pipeline.build_cot --dry-run", config)) as ledger:
        finished = ledger.finished_question_ids()
        assumptions = observed(Assumptions(), ledger.averages())
        ledger.end_run(EXIT_OK)
    return finished, assumptions


async def _open_if_possible(
    spec: str, config: BuildConfig, resources: AsyncExitStack
) -> tuple[Backend | None, str]:
    """The backend for its free token count, or None and the reason: an estimate needs no key."""
    try:
        return await open_one(spec, config, resources), ""
    except UnknownBackendError as error:
        raise UsageError(str(error)) from None
    except BackendUnavailableError as error:
        return None, str(error)


def _print_table(console: Console, result: Estimate, prices: Prices) -> None:
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
            dollars(step.usd),
            dollars(step.usd_batch),
        )
    table.add_section()
    table.add_row(
        "all",
        "",
        f"{sum(step.calls for step in result.steps):,}",
        f"{sum(step.input_tokens for step in result.steps):,}",
        f"{sum(step.output_tokens for step in result.steps):,}",
        dollars(_sum([step.usd for step in result.steps])),
        dollars(_sum([step.usd_batch for step in result.steps])),
        style="bold",
    )
    console.print(table)
    seen = result.assumptions
    lines = [
        f"input tokens: counted by {result.counted_by}, on {result.sampled} questions with their "
        f"real frames; {result.unreadable_in_sample} of these could not be decoded",
        f"replies ({seen.source}): {seen.trace_tokens:.0f} tokens a trace, "
        f"{seen.judge_reply_tokens:.0f} a verdict, {seen.share_verified:.0%} of traces are judged",
        *_about_reader(result),
        "a pilot run (--limit 50) replaces the assumptions by measured values",
        f"prices: {prices.source}, {prices.dated}; local and oracle backends cost nothing; "
        "give unknown prices with --prices",
    ]
    console.print("\n".join(lines), soft_wrap=True)


def _about_reader(result: Estimate) -> list[str]:
    """What is assumed of a text reader, where one is asked."""
    seen, names = result.assumptions, {step.step for step in result.steps}
    if "blind" not in names:
        return []
    line = (
        f"text reader: {seen.blind_reply_tokens:.0f} tokens an answer without the video, "
        f"{seen.share_rejected_blind:.0%} of questions rejected by it"
    )
    if CALLS_STEP in names:
        line += f", {seen.read_reply_tokens:.0f} an answer from an observation"
    return [line]


def _sum(dollars: list[float | None]) -> float | None:
    known = [value for value in dollars if value is not None]
    return sum(known) if len(known) == len(dollars) else None
