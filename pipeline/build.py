"""One run of a build: plan, run the steps, export. The ledger makes it resumable at any time."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cli.config import (
    EXIT_OK,
    EXIT_ROWS_FAILED,
    EXIT_STOPPED,
    EXIT_USAGE,
    UsageError,
    print_config,
    refuse_changed_options,
    save_config,
)
from cli.console import output_console
from cli.index_page import INDEX, write_index_page
from cli.output_folder import cannot_be_written, check_folder, claim_folder, has_begun
from judges.backends.preflight import HeldCalls
from judges.backends.session import unknown_prices
from media.store import FrameStore
from pipeline.card import write_card
from pipeline.card_examples import card_examples
from pipeline.exports.dataset import export_dataset
from pipeline.exports.formats import export_further, refuse_unwritable_outputs
from pipeline.options import MAY_CHANGE_ON_RESUME, BuildConfig
from pipeline.planning import QuestionSource, plan
from pipeline.progress import FunnelKey, Progress
from pipeline.run_questions import MARK_NAMES, Build, Stop, run_questions
from pipeline.setup import (
    CallLayers,
    call_layers,
    check_backends,
    frame_store,
    open_backends,
    question_source,
    refuse_unpayable,
    step_settings,
    usage_errors,
)
from schemas.ledger.ledger import Ledger
from schemas.questions import VideoQuestion
from schemas.runs import start_run
from schemas.samples import CALL_ERRORS, MEDIA_ERRORS, Reason

COMMAND = "pipeline.build_cot"
_REFRESH_SECONDS = 1.0
_WINDOW_PER_CALL = 4  # concurrent questions per call in flight: enough to decode and judge ahead
_WINDOW_IN_BATCH_MODE = 1000  # about 0.5 GB of frames
_FAILED_ROWS = """
SELECT step, reason, count(*), min("row"), arg_min(detail, "row")
FROM rejections JOIN questions USING (question_id)
WHERE reason IN (SELECT unnest(?)) GROUP BY step, reason ORDER BY count(*) DESC, step, reason
"""


@dataclass(frozen=True)
class Paths:
    """The files of an output folder."""

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
            _check_folder(config, paths)
            refuse_unwritable_outputs(paths.out)
            digest = source.digest()
            source.refuse_without_questions()
            frames = frame_store(config)
            closing.callback(frames.close)
            backends = await open_backends(config, closing)
            refuse_unpayable(config, backends)
            checks = HeldCalls()
            if not has_begun(paths.out, COMMAND) and _asks_anything(source, frames):
                checks = await check_backends(config, backends)
            _claim_folder(config, paths)
            run = start_run(command, {**config.as_json(), "questions_digest": digest})
            ledger = closing.enter_context(Ledger.open(paths.ledger, run))
            _refuse_changed_questions(ledger, digest, config)
            layers = call_layers(config, backends, ledger, checks)
            closing.push_async_callback(layers.aclose)
            print_config(config)
            save_config(config, paths.config)
            if notice := unknown_prices(backends.by_option().values(), config):
                console.print(notice, soft_wrap=True)
            _plan(source, frames, ledger, console, retry_failed=config.retry_failed)
        if config.limit is not None and ledger.num_questions() > config.limit:
            console.print(
                f"an earlier run planned {ledger.num_questions()} questions; a lower --limit "
                f"({config.limit}) does not remove any of them"
            )
        finished = ledger.finished_question_ids()
        funnel, marks = _funnel(ledger), _blind_marks(ledger)
        progress = Progress(
            paths.out,
            total=ledger.num_questions(),
            funnel=funnel,
            stats=layers.stats(),
            run_id=run.run_id,
            blind_marks=marks if config.blind_filter else None,
        )
        job = Build(
            ledger=ledger,
            frames=frames,
            generator=layers.generator,
            judge=layers.judge,
            settings=step_settings(config, backends),
            attempts=config.attempts,
            reader=layers.reader,
            blind_marks=marks,
        )
        with progress:
            stop = await _run(config, job, layers, progress, source, finished)
            ledger.flush()
            progress.state = "stopped" if stop else "finished"
            progress.note = stop.reason
            if left := layers.num_left_at_server:
                progress.note += f"; {left} requests go on at the server, the next run takes them"
        failed = _failed_rows(ledger)
        status = EXIT_STOPPED if stop else EXIT_ROWS_FAILED if failed else EXIT_OK
        ledger.end_run(status)
        await _export(config, paths, ledger, frames, console)
    _print_summary(console, paths, progress.note, failed)
    return status


def _asks_anything(source: QuestionSource, frames: FrameStore) -> bool:
    """Whether any row can become a question with media that can be read."""
    return any(planned.rejection is None for planned in plan(source, frames))


def _plan(
    source: QuestionSource,
    frames: FrameStore,
    ledger: Ledger,
    console: Console,
    *,
    retry_failed: bool,
) -> None:
    """Record every row of the file in the ledger, unusable ones with their rejection."""
    if retry_failed:
        ledger.forget_failures(MEDIA_ERRORS | CALL_ERRORS)
    ledger.discard_unfinished()
    console.print("reading the question file and checking every path ...")
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
    finished: set[str],
) -> Stop:
    """Run the open questions until all are finished or a stop is requested."""
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
            _open_questions(source, finished, progress),
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
    source: QuestionSource, finished: set[str], progress: Progress
) -> Iterator[VideoQuestion]:
    """Questions without an outcome, in file order; none if the build is complete."""
    if progress.is_complete:
        return
    for row in source.read():
        if isinstance(row, VideoQuestion) and row.question_id not in finished:
            yield row


async def _keep_fresh(progress: Progress) -> None:
    while True:
        await asyncio.sleep(_REFRESH_SECONDS)
        progress.refresh()


def _check_folder(config: BuildConfig, paths: Paths) -> None:
    """Raise UsageError where the folder is not this build's, before anything is asked or paid."""
    if check_folder(paths.out, COMMAND) and has_begun(paths.out, COMMAND):
        refuse_changed_options(config, paths.config, MAY_CHANGE_ON_RESUME)
        if not paths.ledger.exists() and _has_asked(paths.out):
            raise UsageError(
                f"--output-dir {paths.out} holds what a build made, and its ledger "
                f"({paths.ledger.name}) is gone: all would be asked and paid again; put it back, or"
                " give a new folder"
            )


def _has_asked(out: Path) -> bool:
    """Whether a run got as far as to write a dataset, or to tell its progress."""
    progress = out / "progress.json"
    return (out / "dataset").exists() or (
        progress.is_file() and progress.stat().st_size > len("{}")
    )


def _claim_folder(config: BuildConfig, paths: Paths) -> None:
    """Create the output folder, or check that it belongs to a build with the same options.

    A resumed run saves its options later, once it holds the ledger.
    """
    if claim_folder(paths.out, COMMAND) and has_begun(paths.out, COMMAND):
        return
    try:
        save_config(config, paths.config)
    except OSError as error:
        raise UsageError(cannot_be_written(paths.out, error)) from None


def _refuse_changed_questions(ledger: Ledger, digest: str, config: BuildConfig) -> None:
    """Raise UsageError if a resumed build reads another question file than its first run."""
    digests = [run["questions_digest"] for run in ledger.run_configs() if "questions_digest" in run]
    # Compare with the first run: a later one may itself have been refused here.
    if digests and digests[0] != digest:
        ledger.end_run(EXIT_USAGE)
        raise UsageError(
            f"{config.questions} has changed since the build in {config.output_dir} began; "
            "give the old file to resume, or another --output-dir to start over"
        )


def _funnel(ledger: Ledger) -> Counter[FunnelKey]:
    return Counter(
        {
            (row.step, row.reason, row.data_source, row.problem_type): row.count
            for row in ledger.funnel()
        }
    )


def _blind_marks(ledger: Ledger) -> Counter[str]:
    """What the text reader found so far, as `Build.blind_marks` counts it."""
    found = ledger.query("SELECT answerable_blind, count(*) FROM blind_marks GROUP BY ALL")
    return Counter({MARK_NAMES[mark]: count for mark, count in found})


def _failed_rows(ledger: Ledger) -> list[str]:
    """One line per reason: rows that could not be read, or ended in media or call errors."""
    reasons = MEDIA_ERRORS | CALL_ERRORS | {Reason.UNREADABLE_ROW}
    failed = ledger.query(_FAILED_ROWS, [sorted(reason.value for reason in reasons)])
    return [
        f"  {count:>7}  {step}: {reason}   (first: row {row}: {detail})"
        for step, reason, count, row, detail in failed
    ]


async def _export(
    config: BuildConfig, paths: Paths, ledger: Ledger, frames: FrameStore, console: Console
) -> None:
    """Write dataset, further formats and card. The card marks a stopped build as unfinished."""
    console.print("writing dataset and card ...")
    export_dataset(ledger, paths.out)
    for sentence in export_further(ledger, paths.out, config.export, config.export_media_root):
        console.print(sentence, soft_wrap=True)
    write_card(
        ledger,
        paths.out,
        examples=await card_examples(paths.out / "dataset", frames),
        copy_to=Path("data_cards") if config.card_copy else None,
    )
    write_index_page(paths.out)


def _print_summary(console: Console, paths: Paths, stopped: str, failed: list[str]) -> None:
    """Print where the outputs are, and what to do next."""
    lines = []
    if stopped:
        lines.append(f"{stopped}; the same command again resumes")
    if failed:
        lines.append(
            "rows that could not be read, or ended in media or call errors (the card lists"
        )
        lines.append("them; --retry-failed runs those with errors again):")
        lines += failed
    lines.append(f"dataset  {paths.out / 'dataset'}")
    lines.append(f"card     {paths.out / 'README.md'}")
    lines.append(f"ledger   {paths.ledger}")
    lines.append(f"index    {paths.out / INDEX}")
    lines.append(f"to look at its rows: python -m pipeline.browse {paths.out}")
    console.print("\n".join(lines), soft_wrap=True)
