"""One run of a build: plan, run the steps, export. The ledger makes it resumable at any moment."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from media.store import FrameStore
from pipeline.card import write_card
from pipeline.executor import Build, Stop, run_questions
from pipeline.export import export_dataset, export_further
from pipeline.options import MAY_CHANGE_ON_RESUME, BuildConfig
from pipeline.parts import (
    CallLayers,
    call_layers,
    frame_store,
    open_backends,
    question_source,
    refuse_unpayable,
    step_settings,
    usage_errors,
)
from pipeline.planning import QuestionSource, plan
from pipeline.progress import FunnelKey, Progress, output_console
from schemas.config import (
    EXIT_OK,
    EXIT_ROWS_FAILED,
    EXIT_STOPPED,
    EXIT_USAGE,
    UsageError,
    print_config,
    refuse_changed_options,
    save_config,
)
from schemas.ledger import Ledger
from schemas.questions import VideoQuestion
from schemas.runs import start_run
from schemas.samples import CALL_ERRORS, MEDIA_ERRORS, Reason

_REFRESH_SECONDS = 1.0
_WINDOW_PER_CALL = 4  # questions under way per call in flight: enough to decode and judge ahead
_WINDOW_IN_BATCH_MODE = 1000  # about half a gigabyte of frames
_LOST_ROWS = """
SELECT step, reason, count(*), min("row"), arg_min(detail, "row")
FROM rejections JOIN questions USING (question_id)
WHERE reason IN (SELECT unnest(?)) GROUP BY step, reason ORDER BY count(*) DESC, step, reason
"""


@dataclass(frozen=True)
class Paths:
    """What lies in an output folder."""

    out: Path

    @property
    def ledger(self) -> Path:
        """The DuckDB file."""
        return self.out / "cot.duckdb"

    @property
    def config(self) -> Path:
        """The resolved options."""
        return self.out / "config.json"


async def build(config: BuildConfig, command: list[str]) -> int:
    """Run or resume the build and return its exit status."""
    assert config.output_dir is not None
    paths = Paths(config.output_dir)
    source = question_source(config)
    console = output_console(stderr=True)
    async with AsyncExitStack() as closing:
        with usage_errors():
            digest = source.digest()
            source.refuse_without_questions()
            frames = frame_store(config)
            closing.callback(frames.close)
            backends = await open_backends(config, closing)
            refuse_unpayable(config, backends)
            _claim_folder(config, paths)
            run = start_run(command, {**config.as_json(), "questions_digest": digest})
            ledger = closing.enter_context(Ledger.open(paths.ledger, run))
            _refuse_changed_questions(ledger, digest, config)
            layers = call_layers(config, backends, ledger, run.run_id)
            closing.push_async_callback(layers.aclose)
            print_config(config)
            save_config(config, paths.config)
            _plan(source, frames, ledger, console, retry_failed=config.retry_failed)
        if config.limit is not None and ledger.num_questions() > config.limit:
            console.print(
                f"an earlier run took {ledger.num_questions()} questions; a lower --limit "
                f"({config.limit}) leaves none of them out",
                highlight=False,
            )
        settled = ledger.settled_question_ids()
        funnel = _funnel(ledger)
        progress = Progress(
            paths.out,
            total=ledger.num_questions(),
            funnel=funnel,
            stats=layers.stats(),
            run_id=run.run_id,
        )
        job = Build(
            ledger=ledger,
            frames=frames,
            generator=layers.generator,
            judge=layers.judge,
            settings=step_settings(config, backends),
            attempts=config.attempts,
        )
        with progress:
            stop = await _run(config, job, layers, progress, source, settled)
            ledger.flush()
            progress.state = "stopped" if stop else "finished"
            progress.note = stop.reason
            if left := layers.num_left_at_server:
                progress.note += f"; {left} requests go on at the server, the next run takes them"
        lost = _lost_rows(ledger)
        status = EXIT_STOPPED if stop else EXIT_ROWS_FAILED if lost else EXIT_OK
        ledger.end_run(status)
        _export(config, paths, ledger, console)
    _say_goodbye(console, paths, progress.note, lost)
    return status


def _plan(
    source: QuestionSource,
    frames: FrameStore,
    ledger: Ledger,
    console: Console,
    *,
    retry_failed: bool,
) -> None:
    """Put every row of the file into the ledger, those that are out already with their
    rejection.
    """
    if retry_failed:
        ledger.forget_failures(MEDIA_ERRORS | CALL_ERRORS)
    ledger.discard_unsettled()
    console.print("reading the question file and looking at every path ...")
    for planned in plan(source, frames):
        ledger.add_question(planned.row)
        if planned.rejection is not None:
            ledger.add_rejection(planned.row.question_id, planned.rejection)
    ledger.flush()


async def _run(
    config: BuildConfig,
    job: Build,
    layers: CallLayers,
    progress: Progress,
    source: QuestionSource,
    settled: set[str],
) -> Stop:
    """Run what is open, until all is settled or somebody says stop."""
    stop = Stop()
    loop = asyncio.get_running_loop()

    def interrupt(by: str) -> None:
        stop.request(f"stopped by {by}: calls in flight were finished")
        layers.stop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)  # a second Ctrl-C stops at once

    loop.add_signal_handler(signal.SIGINT, interrupt, "Ctrl-C")
    loop.add_signal_handler(signal.SIGTERM, interrupt, "SIGTERM")
    refresher = asyncio.create_task(_keep_fresh(progress))
    try:
        await run_questions(
            _open_questions(source, settled, progress),
            job,
            window=_WINDOW_IN_BATCH_MODE if config.batch else _WINDOW_PER_CALL * config.concurrency,
            stop=stop,
            on_stop=layers.stop,
            on_outcome=progress.outcome,
        )
    finally:
        refresher.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return stop


def _open_questions(
    source: QuestionSource, settled: set[str], progress: Progress
) -> Iterator[VideoQuestion]:
    """Questions without an outcome, in file order; the file is not read again where all have
    one.
    """
    if progress.is_complete:
        return
    for row in source.read():
        if isinstance(row, VideoQuestion) and row.question_id not in settled:
            yield row


async def _keep_fresh(progress: Progress) -> None:
    while True:
        await asyncio.sleep(_REFRESH_SECONDS)
        progress.refresh()


def _claim_folder(config: BuildConfig, paths: Paths) -> None:
    """Make the output folder, or see that it belongs to a build with the same options.

    The options of a resumed run are saved later, by whoever holds the ledger.
    """
    if paths.out.exists() and not paths.out.is_dir():
        raise UsageError(f"--output-dir {paths.out} is a file; give a folder")
    if paths.config.exists():
        refuse_changed_options(config, paths.config, MAY_CHANGE_ON_RESUME)
    elif paths.ledger.exists():
        raise UsageError(
            f"{paths.out} holds a ledger but no config.json, so nobody can say which options made "
            "it; use another --output-dir"
        )
    else:
        try:
            save_config(config, paths.config)
        except OSError as error:
            raise UsageError(
                f"--output-dir {paths.out} cannot be written ({error.strerror}); "
                "give a folder that can"
            ) from None


def _refuse_changed_questions(ledger: Ledger, digest: str, config: BuildConfig) -> None:
    """A resumed build reads the same file: rows that moved or changed would be mixed up
    silently.
    """
    digests = [run["questions_digest"] for run in ledger.run_configs() if "questions_digest" in run]
    # The first run's: a later one may itself have been refused here.
    if digests and digests[0] != digest:
        ledger.end_run(EXIT_USAGE)
        raise UsageError(
            f"{config.questions} has changed since the build in {config.output_dir} began; "
            "give the old file to resume, or another --output-dir to begin anew"
        )


def _funnel(ledger: Ledger) -> Counter[FunnelKey]:
    return Counter(
        {
            (row.step, row.reason, row.data_source, row.problem_type): row.count
            for row in ledger.funnel()
        }
    )


def _lost_rows(ledger: Ledger) -> list[str]:
    """A line per reason for which rows could not be read, or ended in media or call errors."""
    reasons = MEDIA_ERRORS | CALL_ERRORS | {Reason.UNREADABLE_ROW}
    lost = ledger.query(_LOST_ROWS, [sorted(reason.value for reason in reasons)])
    return [
        f"  {count:>7}  {step}: {reason}   (first: row {row}: {detail})"
        for step, reason, count, row, detail in lost
    ]


def _export(config: BuildConfig, paths: Paths, ledger: Ledger, console: Console) -> None:
    """Dataset, further formats, card. A stopped build exports what it has; the card says so."""
    console.print("writing dataset and card ...")
    export_dataset(ledger, paths.out)
    for sentence in export_further(ledger, paths.out, config.export):
        console.print(sentence, highlight=False, soft_wrap=True)
    write_card(ledger, paths.out, copy_to=Path("data_cards") if config.card_copy else None)


def _say_goodbye(console: Console, paths: Paths, stopped: str, lost: list[str]) -> None:
    """Where things are, and what to do next."""
    lines = []
    if stopped:
        lines.append(f"{stopped}; the same command again resumes")
    if lost:
        lines.append(
            "rows that could not be read, or ended in media or call errors (the card lists"
        )
        lines.append("them, and --retry-failed gives those with errors another chance):")
        lines += lost
    lines.append(f"dataset  {paths.out / 'dataset'}")
    lines.append(f"card     {paths.out / 'README.md'}")
    lines.append(f"ledger   {paths.ledger}")
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
