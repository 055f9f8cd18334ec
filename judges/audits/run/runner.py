"""`judges.audit run`: open the judges, send each all requests, store the verdicts.

All calls go through the call cache, so the same command again pays only for what is missing;
verdicts are read again from the stored replies and replace those of earlier runs.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from cli.config import EXIT_OK, EXIT_ROWS_FAILED, EXIT_STOPPED, UsageError, print_config
from cli.console import output_console
from judges.audits.audit_kinds import THINK_ANSWER, AuditKind
from judges.audits.run.leak_probes import probe_names, probes_id
from judges.audits.run.options import RunConfig
from judges.audits.run.plan import JudgeRequest, Plan, judge_requests, verdict_on
from judges.audits.run.progress import RunProgress, summary_tables
from judges.audits.run.prompt_variants import RequestSettings
from judges.audits.sample.population import RULE_JUDGE, rule_verdict
from judges.audits.store import AuditStore, AuditVerdict
from judges.backends.base import Backend, BackendUnavailableError
from judges.backends.calls import Calls, StopRequested
from judges.backends.registry import refuse_unusable
from judges.backends.session import CallSession, opened_backend, require_price, unknown_prices
from judges.consistency import RULES_ID
from schemas.runs import start_run
from schemas.samples import Reason, UnscoredReason

_WINDOW_PER_CALL = 4  # verdicts under way per call in flight
_FAILED_FOR_GOOD = frozenset({Reason.CALL_FAILED, Reason.BAD_REQUEST})


def run(config: RunConfig) -> int:
    """Ask all judges; exit status 0, 1 (some calls failed for good) or 3 (stopped, resumable)."""
    return asyncio.run(ask_judges(config))


async def ask_judges(config: RunConfig) -> int:
    """Send every judge its requests, and print how often each gave which verdict."""
    _refuse_unusable_judges(config)
    console = output_console(stderr=True)
    async with AsyncExitStack() as closing:
        store = closing.enter_context(
            AuditStore.open(config.audit, start_run("judges.audit run", config))
        )
        config = _of_kind(config, store.kind)
        media_root = config.media_root or store.media_root
        ready = {
            spec: await closing.enter_async_context(_opened(spec, config, media_root))
            for spec in config.judge
            if not spec.startswith("local:")  # one at a time: they need the memory
            and spec != RULE_JUDGE
        }
        job = _Job(store, config, console)
        for backend in ready.values():
            require_price(backend, config)  # before the first call is paid
        await job.check_new_judges(ready.values())
        print_config(config)
        if notice := unknown_prices(ready.values(), config):
            console.print(notice, soft_wrap=True)
        if config.retry_failed:
            store.ledger.forget_failures(_FAILED_FOR_GOOD)
        for spec in config.judge:
            if spec == RULE_JUDGE:
                job.run_rules()
                continue
            if spec in ready:
                await job.run_judge(spec, ready[spec])
            else:
                async with _opened(spec, config, media_root) as backend:
                    await job.run_judge(spec, backend)
            if job.stop_reason:
                break
        store.ledger.end_run(job.exit_status)
        verdicts = [found for found in store.verdicts() if found.judge in config.judge]
        output_console().print(*summary_tables(verdicts), sep="\n")
    job.print_notes()
    return job.exit_status


def _refuse_unusable_judges(config: RunConfig) -> None:
    """Raise UsageError for a judge that nothing can come of, before the audit is opened."""
    try:
        for spec in config.judge:
            if spec != RULE_JUDGE:
                refuse_unusable(spec)
    except BackendUnavailableError as error:
        raise UsageError(f"--judge: {error}") from None


def _opened(
    spec: str, config: RunConfig, media_root: Path | None
) -> AbstractAsyncContextManager[Backend]:
    return opened_backend(
        spec,
        config,
        media_root=media_root,
        temperature=config.judge_temperature,
        temperature_option="--judge-temperature",
    )


def _of_kind(config: RunConfig, kind: AuditKind) -> RunConfig:
    """The options, with the defaults of this kind of audit. Raises UsageError."""
    unknown = [name for name in config.variants if name not in kind.variants]
    if unknown:
        raise UsageError(
            f"--variants {unknown[0]} is no prompt of audits of the kind {kind.name}; expected "
            f"some of {', '.join(kind.variants)}"
        )
    if RULE_JUDGE in config.judge and kind is not THINK_ANSWER:
        raise UsageError(
            f"--judge {RULE_JUDGE} reads conclusions of reasonings; an audit of {kind.rows} takes "
            "claude:, openai:, local: or oracle: judges"
        )
    if (config.permutations or config.probes) and not kind.has_permutations:
        raise UsageError(
            f"--permutations and --probes do not exist for audits of the kind {kind.name}; leave "
            "them out"
        )
    return config.model_copy(update={"variants": config.variants or kind.variants[:1]})


class _Job:
    """One run: its requests, its budget, and how far it got."""

    def __init__(self, store: AuditStore, config: RunConfig, console: Console) -> None:
        self._store = store
        self._config = config
        self._console = console
        plan = Plan(
            variants=config.variants,
            repeats=config.repeats,
            num_permutations=config.permutations,
            probes=probe_names() if config.probes else (),
            seed=config.seed,
        )
        items = store.items()
        self._left_out: Counter[str] = Counter()
        self._requests = list(judge_requests(items[: config.limit], items, plan, self._left_out))
        temperature = config.judge_temperature
        self._settings = RequestSettings(
            max_tokens=config.judge_max_tokens,
            retries=config.retries,
            sampling=() if temperature is None else (("temperature", temperature),),
            samples=config.blind_samples,
            margin=config.sufficiency_margin,
        )
        self._session = CallSession(config, store.ledger)
        self._num_failed = 0
        self.stop_reason = ""

    @property
    def exit_status(self) -> int:
        """The command's exit status so far."""
        if self.stop_reason:
            return EXIT_STOPPED
        return EXIT_ROWS_FAILED if self._num_failed else EXIT_OK

    async def check_new_judges(self, backends: Iterable[Backend]) -> None:
        """Raise UsageError where a judge without any verdict here does not answer."""
        known = {verdict.judge for verdict in self._store.verdicts()}
        for backend in backends:
            if backend.info.spec not in known:
                await self._session.check_reachable(backend)

    async def run_judge(self, spec: str, backend: Backend) -> None:
        """Send one judge all requests. A stop leaves the rest to the next run."""
        calls = self._session.checked_calls(backend)
        sends_seed = bool(self._config.judge_temperature) and "seed" in backend.info.takes_sampling
        window = asyncio.Semaphore(_WINDOW_PER_CALL * self._config.concurrency)
        with RunProgress(self._console, spec, len(self._requests), calls.stats) as progress:

            async def judge_one(request: JudgeRequest) -> None:
                try:
                    verdict = await verdict_on(
                        request, spec, calls, self._settings, sends_seed=sends_seed
                    )
                    self._store.add_verdict(verdict)
                    self._num_failed += verdict.unscored_reason == UnscoredReason.NO_REPLY
                    progress.count(is_unscored=verdict.verdict == "unscored")
                except StopRequested as stop:
                    self._stop(calls, str(stop))
                finally:
                    window.release()

            with _stopping_on_signals(lambda: self._stop(calls, "stopped by Ctrl-C")):
                async with asyncio.TaskGroup() as tasks:
                    for request in self._requests:
                        await window.acquire()
                        if self.stop_reason:
                            break
                        tasks.create_task(judge_one(request))

    def run_rules(self) -> None:
        """The verdicts of the extractor that needs no model."""
        for request in self._requests:
            started = time.perf_counter()
            verdict, reply = rule_verdict(request.question, request.observation)
            reason = verdict.unscored_reason
            self._store.add_verdict(
                AuditVerdict(
                    item_id=request.item.item_id,
                    judge=RULE_JUDGE,
                    variant=request.variant,
                    permutation=request.permutation,
                    probe=request.probe,
                    repeat=request.repeat,
                    verdict=verdict.verdict,
                    unscored_reason=reason.value if reason else "",
                    prompt_id=RULES_ID,
                    call_key="",
                    seconds=time.perf_counter() - started,
                    cost_usd=0.0,
                    reply=reply,
                )
            )

    def print_notes(self) -> None:
        """What was left out, and what to do next."""
        lines = [f"{count} not asked, {why}" for why, count in sorted(self._left_out.items())]
        if self._config.probes:
            lines.append(f"probe texts {probes_id()}")
        if self.stop_reason:
            lines.append(f"{self.stop_reason}; the same command again resumes")
        elif self._num_failed:
            lines.append(
                f"{self._num_failed} verdicts are unscored because calls failed for good; "
                "--retry-failed asks them again"
            )
        if lines:
            self._console.print("\n".join(lines), soft_wrap=True)

    def _stop(self, calls: Calls, reason: str) -> None:
        self.stop_reason = self.stop_reason or reason
        calls.stop(reason)


@contextmanager
def _stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM lets calls in flight end, the second stops at once."""
    loop = asyncio.get_running_loop()
    numbers: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)

    def interrupt() -> None:
        stop()
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
