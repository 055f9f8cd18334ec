"""How a run of an audit goes: open the judges, ask them in turn, keep their verdicts.

Everything is asked through the call cache, so the same command again pays only for what is missing;
verdicts are read anew from the stored replies and replace those of earlier runs.
"""

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from judges.audits.answer_population import RULE_JUDGE, rule_verdict
from judges.audits.asking import Ask, Plan, answer, asks
from judges.audits.kinds import THINK_ANSWER, AuditKind
from judges.audits.probes import probe_names, probes_id
from judges.audits.run_options import RunConfig
from judges.audits.run_progress import RunProgress
from judges.audits.run_summary import summary_tables
from judges.audits.sampling import FILE_WIDTH
from judges.audits.store import AuditStore, AuditVerdict
from judges.audits.variants import Asking
from judges.backends.base import Backend
from judges.backends.budget import Budget
from judges.backends.calls import CallLimits, Calls, StopRequested
from judges.backends.prices import Prices
from judges.backends.registry import BackendOptions, open_backend
from judges.think_answer import RULES_ID
from schemas.config import EXIT_OK, EXIT_ROWS_FAILED, EXIT_STOPPED, UsageError, print_config
from schemas.runs import start_run
from schemas.samples import Reason
from schemas.verdicts import UnscoredReason

_WINDOW_PER_CALL = 4  # verdicts under way per call in flight
_FAILED_FOR_GOOD = frozenset({Reason.CALL_FAILED, Reason.BAD_REQUEST})


async def ask_judges(config: RunConfig) -> int:
    """Ask every judge all that the options say, and print what each said how often."""
    console = Console(file=sys.stderr)
    async with AsyncExitStack() as closing:
        store = closing.enter_context(
            AuditStore.open(config.audit, start_run("judges.audit run", config))
        )
        media_root = config.media_root or store.media_root
        ready = {
            spec: await _open(spec, config, media_root, closing)
            for spec in config.judge
            if not spec.startswith("local:")  # one at a time: they need the memory
            and spec != RULE_JUDGE
        }
        config = _of_kind(config, store.kind)
        job = _Job(store, config, console)
        for backend in ready.values():
            job.layer(backend)  # an unknown price or option is found before anything is paid
        print_config(config)
        if config.retry_failed:
            store.ledger.forget_failures(_FAILED_FOR_GOOD)
        for spec in config.judge:
            if spec == RULE_JUDGE:
                job.ask_rules()
                continue
            async with AsyncExitStack() as closing_local:
                backend = ready.get(spec) or await _open(spec, config, media_root, closing_local)
                await job.ask(spec, backend)
            if job.stop_reason:
                break
        store.ledger.end_run(job.exit_status)
        verdicts = [found for found in store.verdicts() if found.judge in config.judge]
        output = Console(file=sys.stdout, width=None if sys.stdout.isatty() else FILE_WIDTH)
        output.print(*summary_tables(verdicts), sep="\n")
    job.say_how_it_ended()
    return job.exit_status


async def _open(
    spec: str, config: RunConfig, media_root: Path | None, closing: AsyncExitStack
) -> Backend:
    options = BackendOptions(
        api_key_env=config.api_key_env,
        timeout_seconds=config.timeout_seconds,
        local_batch_size=config.local_batch_size,
        media_root=media_root,
        device=config.device,
    )
    backend = await open_backend(spec, options)
    closing.push_async_callback(backend.aclose)
    if config.temperature is not None and "temperature" not in backend.info.takes_sampling:
        raise UsageError(
            f"--temperature {config.temperature:g} was given, but {spec} takes no temperature; "
            "leave it out (or run this judge on its own)"
        )
    return backend


def _of_kind(config: RunConfig, kind: AuditKind) -> RunConfig:
    """The options as they hold for an audit of this kind."""
    unknown = [name for name in config.variants if name not in kind.variants]
    if unknown:
        raise UsageError(
            f"--variants {unknown[0]} is no prompt of a {kind.name} audit: expected some of "
            f"{', '.join(kind.variants)}"
        )
    if RULE_JUDGE in config.judge and kind is not THINK_ANSWER:
        raise UsageError(
            f"--judge {RULE_JUDGE} reads conclusions of reasonings; an audit of observations takes "
            "claude:, openai:, local: or oracle: judges"
        )
    if (config.permutations or config.probes) and not kind.asks_in_other_ways:
        raise UsageError(
            f"--permutations and --probes are not made for a {kind.name} audit: leave them out"
        )
    return config.model_copy(update={"variants": config.variants or kind.variants[:1]})


class _Job:
    """One run: what is asked, with which money, and how far it got."""

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
        self._asks = list(asks(items[: config.limit], items, plan, self._left_out))
        self._asking = Asking(
            max_tokens=config.max_tokens,
            retries=config.retries,
            sampling=() if config.temperature is None else (("temperature", config.temperature),),
        )
        self._prices = Prices.load(config.prices)
        self._budget = Budget(config.max_cost_usd, already_spent_usd=store.ledger.spent_usd())
        self._num_failed = 0
        self.stop_reason = ""

    @property
    def exit_status(self) -> int:
        """The command's exit status, as things stand."""
        if self.stop_reason:
            return EXIT_STOPPED
        return EXIT_ROWS_FAILED if self._num_failed else EXIT_OK

    def layer(self, backend: Backend) -> Calls:
        """The call layer of one judge; all of them share the budget."""
        limits = CallLimits(
            max_concurrency=self._config.concurrency,
            requests_per_minute=self._config.requests_per_minute,
            tokens_per_minute=self._config.tokens_per_minute,
        )
        try:
            return Calls(
                backend,
                self._store.ledger,
                limits=limits,
                prices=self._prices,
                budget=self._budget,
                run_id=self._store.ledger.run_id,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error

    async def ask(self, spec: str, backend: Backend) -> None:
        """Ask one judge everything. A stop leaves the rest for the next run."""
        calls = self.layer(backend)
        seeds_draws = bool(self._config.temperature) and "seed" in backend.info.takes_sampling
        window = asyncio.Semaphore(_WINDOW_PER_CALL * self._config.concurrency)
        with RunProgress(self._console, spec, len(self._asks), calls.stats) as progress:

            async def settle(ask: Ask) -> None:
                try:
                    verdict = await answer(ask, spec, calls, self._asking, seeds_draws=seeds_draws)
                    self._store.add_verdict(verdict)
                    self._num_failed += verdict.unscored_reason == UnscoredReason.NO_REPLY
                    progress.settled(is_unscored=verdict.verdict == "unscored")
                except StopRequested as request:
                    self._stop(calls, str(request))
                finally:
                    window.release()

            with _stopping_on_signals(lambda: self._stop(calls, "stopped by Ctrl-C")):
                async with asyncio.TaskGroup() as tasks:
                    for ask in self._asks:
                        await window.acquire()
                        if self.stop_reason:
                            break
                        tasks.create_task(settle(ask))

    def ask_rules(self) -> None:
        """The verdicts of the extractor that needs no model."""
        for ask in self._asks:
            started = time.perf_counter()
            verdict, told = rule_verdict(ask.question, ask.observation)
            reason = verdict.unscored_reason
            self._store.add_verdict(
                AuditVerdict(
                    item_id=ask.item.item_id,
                    judge=RULE_JUDGE,
                    variant=ask.variant,
                    permutation=ask.permutation,
                    probe=ask.probe,
                    repeat=ask.repeat,
                    verdict=verdict.verdict,
                    unscored_reason=reason.value if reason else "",
                    prompt_id=RULES_ID,
                    call_key="",
                    seconds=time.perf_counter() - started,
                    cost_usd=0.0,
                    reply=told,
                )
            )

    def say_how_it_ended(self) -> None:
        """What was not asked, and what to do next."""
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
            self._console.print("\n".join(lines), highlight=False, soft_wrap=True)

    def _stop(self, calls: Calls, reason: str) -> None:
        self.stop_reason = self.stop_reason or reason
        calls.stop(reason)


@contextmanager
def _stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM stops in good order, the second at once."""
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
