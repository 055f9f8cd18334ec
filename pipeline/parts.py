"""What a configuration stands for: the frame store, the backends, their call layers."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeGuard

from judges.backends.base import Backend, BackendUnavailableError, BatchBackend
from judges.backends.batching import BatchedCalls
from judges.backends.budget import Budget
from judges.backends.call_records import known_price
from judges.backends.calls import CallLimits, Calls, CallStats
from judges.backends.prices import Prices
from judges.backends.registry import BackendOptions, open_backend
from media.cache import default_cache_dir
from media.sampling import FrameSpec
from media.store import FrameStore
from pipeline.options import BuildConfig
from pipeline.planning import QuestionSource
from pipeline.steps import StepSettings
from schemas.config import UsageError
from schemas.ledger import Ledger, LedgerError


@contextmanager
def usage_errors() -> Iterator[None]:
    """What goes wrong while a command sets up is for the user to mend: one sentence, status 2."""
    try:
        yield
    except (ValueError, BackendUnavailableError, LedgerError) as error:
        raise UsageError(str(error)) from error


def question_source(config: BuildConfig) -> QuestionSource:
    """The question file and how to read it."""
    return QuestionSource(config.questions, config.format, config.strip_prefix, config.limit)


def frame_store(config: BuildConfig) -> FrameStore:
    """Frames of the media under the configured root."""
    if not config.media_root.is_dir():
        raise UsageError(
            f"--media-root {config.media_root} is not a folder; give the folder under which the "
            "question file's paths lie"
        )
    cache = config.frame_cache or default_cache_dir()
    try:
        return FrameStore(
            config.media_root,
            spec=FrameSpec.parse(config.frames, config.max_pixels),
            cache_dir=cache,
            reader=config.reader,
            timeout_seconds=config.decode_timeout_seconds,
            workers=config.decode_workers,
            follow_symlinks=config.follow_symlinks,
            cache_max_bytes=int(config.frame_cache_gb * 1e9),
        )
    except OSError as error:
        raise UsageError(
            f"decoded frames cannot be kept in {cache} ({error.strerror}); give --frame-cache a "
            "folder that can be written"
        ) from None


@dataclass(frozen=True)
class Backends:
    """Teacher and judge; one object where both are spelled alike."""

    generator: Backend
    judge: Backend


async def open_backends(config: BuildConfig, closing: AsyncExitStack) -> Backends:
    """Open both backends; `closing` closes them. What cannot be opened or used is a usage error."""
    assert config.generator is not None
    assert config.judge is not None
    generator = await open_one(config.generator, config, closing)
    judge = (
        generator
        if config.judge == config.generator
        else await open_one(config.judge, config, closing)
    )
    if not generator.info.takes_images:
        raise UsageError(
            f"--generator {config.generator} takes no images, but a teacher must see the frames; "
            "give a vision model"
        )
    _refuse_temperature("--temperature", config.temperature, generator)
    _refuse_temperature("--judge-temperature", config.judge_temperature, judge)
    return Backends(generator, judge)


async def open_one(spec: str, config: BuildConfig, closing: AsyncExitStack) -> Backend:
    """Open the backend that `spec` names, with what the options say about backends."""
    options = BackendOptions(
        api_key_env=config.api_key_env,
        timeout_seconds=config.call_timeout_seconds,
        local_batch_size=config.local_batch_size,
        media_root=config.media_root,
        device=config.device,
    )
    backend = await open_backend(spec, options)
    closing.push_async_callback(backend.aclose)
    return backend


def _refuse_temperature(option: str, temperature: float | None, backend: Backend) -> None:
    if temperature is not None and "temperature" not in backend.info.takes_sampling:
        raise UsageError(
            f"{option} {temperature:g} was given, but {backend.info.spec} takes no temperature; "
            "leave the option out (repeats come from the call cache, not from temperature 0)"
        )


def step_settings(config: BuildConfig, backends: Backends | None) -> StepSettings:
    """What the steps are told."""
    seeds = backends is not None and "seed" in backends.generator.info.takes_sampling
    return StepSettings(
        generator=config.generator or "",
        judge=config.judge or "",
        max_new_tokens=config.max_new_tokens,
        threshold=config.threshold,
        judge_max_tokens=config.judge_max_tokens,
        judge_retries=config.judge_retries,
        allow_leaks=config.allow_leaks,
        generator_sampling=_sampling(config.temperature),
        judge_sampling=_sampling(config.judge_temperature),
        seed_draws=seeds and bool(config.temperature),
    )


def _sampling(temperature: float | None) -> tuple[tuple[str, float], ...]:
    return () if temperature is None else (("temperature", temperature),)


AnyCalls = Calls | BatchedCalls


@dataclass(frozen=True)
class CallLayers:
    """The call layer of each step; one where teacher and judge are one backend."""

    generator: AnyCalls
    judge: AnyCalls

    def stop(self) -> None:
        """Start nothing new in either."""
        self.generator.stop()
        self.judge.stop()

    async def aclose(self) -> None:
        """End all waiting, before the ledger is closed."""
        for calls in (self.generator, self.judge):
            if isinstance(calls, BatchedCalls):
                await calls.aclose()

    @property
    def num_left_at_server(self) -> int:
        """Requests in batches that go on at the server after a stop."""
        return sum(
            calls.num_left_at_server
            for calls in {id(calls): calls for calls in (self.generator, self.judge)}.values()
            if isinstance(calls, BatchedCalls)
        )

    def stats(self) -> dict[str, CallStats]:
        """Counters by what is called."""
        if self.generator is self.judge:
            return {"generator and judge": self.generator.stats}
        return {"generator": self.generator.stats, "judge": self.judge.stats}


def refuse_unpayable(config: BuildConfig, backends: Backends) -> None:
    """Refuse --batch where nobody takes batches, and a budget over an unknown price, before
    anything is written.
    """
    if config.batch and not any(map(_takes_batches, (backends.generator, backends.judge))):
        raise UsageError(
            f"--batch was given, but neither {config.generator} nor {config.judge} takes batches "
            "(claude: backends do); leave it out"
        )
    prices, budget = Prices.load(config.prices), Budget(config.max_cost_usd)
    for backend in (backends.generator, backends.judge):
        known_price(backend.info, prices, budget)


def call_layers(config: BuildConfig, backends: Backends, ledger: Ledger, run_id: str) -> CallLayers:
    """Call layers over one shared budget, which counts what earlier runs of this build spent."""
    prices = Prices.load(config.prices)
    budget = Budget(config.max_cost_usd, already_spent_usd=ledger.spent_usd())
    limits = CallLimits(
        max_concurrency=config.concurrency,
        retry_base_seconds=config.retry_base_seconds,
        retry_cap_seconds=config.retry_cap_seconds,
        requests_per_minute=config.requests_per_minute,
        tokens_per_minute=config.tokens_per_minute,
    )

    def layer(backend: Backend) -> AnyCalls:
        if config.batch and _takes_batches(backend):
            return BatchedCalls(
                backend,
                ledger,
                limits=limits,
                prices=prices,
                budget=budget,
                run_id=run_id,
                linger_seconds=config.batch_linger_seconds,
                poll_seconds=config.batch_poll_seconds,
            )
        return Calls(backend, ledger, limits=limits, prices=prices, budget=budget, run_id=run_id)

    generator = layer(backends.generator)
    judge = generator if backends.judge is backends.generator else layer(backends.judge)
    return CallLayers(generator, judge)


def _takes_batches(backend: Backend) -> TypeGuard[BatchBackend]:
    return hasattr(backend, "submit")
