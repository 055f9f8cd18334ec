"""Builds what the options configure: question source, frame store, backends, call layers."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace

from cli.config import UsageError
from judges.backends.base import Backend, BackendUnavailableError
from judges.backends.batched_calls import BatchedCalls
from judges.backends.calls import Calls, CallStats
from judges.backends.preflight import HeldCalls
from judges.backends.session import (
    CallSession,
    call_limits,
    check_before,
    opened_backend,
    require_price,
    takes_batches,
)
from media.cache import default_cache_dir
from media.sampling import FrameSpec
from media.store import FrameStore
from pipeline.options import BuildConfig
from pipeline.planning import QuestionSource
from pipeline.steps import StepSettings
from schemas.ledger.ledger import Ledger, LedgerError

AnyCalls = Calls | BatchedCalls


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn the errors of setting up into UsageError: one sentence on stderr, status 2."""
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
            reader=config.video_decoder,
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


def step_settings(config: BuildConfig, backends: "Backends | None") -> StepSettings:
    """The settings of the three steps; without `backends`, attempts get no seeds."""
    seeds = backends is not None and "seed" in backends.generator.info.takes_sampling
    return StepSettings(
        generator=config.generator or "",
        judge=config.judge or "",
        max_new_tokens=config.max_new_tokens,
        threshold=config.threshold,
        judge_max_tokens=config.judge_max_tokens,
        judge_retries=config.retries,
        allow_leaks=config.allow_leaks,
        generator_sampling=_sampling_params(config.temperature),
        judge_sampling=_sampling_params(config.judge_temperature),
        seed_attempts=seeds and bool(config.temperature),
    )


def _sampling_params(temperature: float | None) -> tuple[tuple[str, float], ...]:
    return () if temperature is None else (("temperature", temperature),)


@dataclass(frozen=True)
class Backends:
    """Teacher and judge; the same object if both have the same spec."""

    generator: Backend
    judge: Backend


async def open_backends(config: BuildConfig, closing: AsyncExitStack) -> Backends:
    """Open both backends; `closing` closes them.

    Raises UsageError or BackendUnavailableError for a backend that cannot be used.
    """
    assert config.generator is not None
    assert config.judge is not None
    is_shared = config.judge == config.generator
    is_for_judge = is_shared and config.temperature is None
    generator = await open_one(
        config.generator,
        config,
        closing,
        temperature=config.judge_temperature if is_for_judge else config.temperature,
        temperature_option="--judge-temperature" if is_for_judge else "--temperature",
    )
    if not generator.info.takes_images:
        raise UsageError(
            f"--generator {config.generator} takes no images, but a teacher must see the frames; "
            "give a vision model"
        )
    judge = generator if is_shared else await _open_judge(config.judge, config, closing)
    return Backends(generator, judge)


async def _open_judge(spec: str, config: BuildConfig, closing: AsyncExitStack) -> Backend:
    return await open_one(
        spec,
        config,
        closing,
        temperature=config.judge_temperature,
        temperature_option="--judge-temperature",
    )


async def open_one(
    spec: str,
    config: BuildConfig,
    closing: AsyncExitStack,
    *,
    temperature: float | None = None,
    temperature_option: str = "--temperature",
) -> Backend:
    """Open the backend that `spec` names; `closing` closes it."""
    return await closing.enter_async_context(
        opened_backend(
            spec,
            config,
            media_root=config.media_root,
            temperature=temperature,
            temperature_option=temperature_option,
        )
    )


def refuse_unpayable(config: BuildConfig, backends: Backends) -> None:
    """Raise UsageError, before anything is written, for --batch without a backend that takes
    batches, and for a budget over an unknown price.
    """
    both = (backends.generator, backends.judge)
    if config.batch and not any(map(takes_batches, both)):
        raise UsageError(
            f"--batch was given, but neither {config.generator} nor {config.judge} takes batches "
            "(claude: backends do); leave it out"
        )
    for backend in both:
        require_price(backend, config)


@dataclass(frozen=True)
class CallLayers:
    """The call layer of each step; the same object if teacher and judge share a backend."""

    generator: AnyCalls
    judge: AnyCalls

    def stop(self) -> None:
        """Start no new calls in either."""
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
        """Counters by role."""
        if self.generator is self.judge:
            return {"generator and judge": self.generator.stats}
        return {"generator": self.generator.stats, "judge": self.judge.stats}


async def check_backends(config: BuildConfig, backends: Backends) -> HeldCalls:
    """Raise UsageError where teacher or judge cannot answer; the calls that showed it."""
    return await check_before(
        {"--generator": backends.generator, "--judge": backends.judge}, config
    )


def call_layers(
    config: BuildConfig, backends: Backends, ledger: Ledger, checks: HeldCalls
) -> CallLayers:
    """Call layers over one shared budget, which includes the cost of earlier runs and `checks`."""
    limits = replace(
        call_limits(config),
        retry_base_seconds=config.retry_base_seconds,
        retry_cap_seconds=config.retry_cap_seconds,
    )
    session = CallSession(config, ledger, limits=limits, checks=checks)
    generator = _calls(session, backends.generator, config)
    if backends.judge is backends.generator:
        return CallLayers(generator, generator)
    return CallLayers(generator, _calls(session, backends.judge, config))


def _calls(session: CallSession, backend: Backend, config: BuildConfig) -> AnyCalls:
    if config.batch and takes_batches(backend):
        return session.batched_calls(
            backend,
            linger_seconds=config.batch_linger_seconds,
            poll_seconds=config.batch_poll_seconds,
        )
    return session.checked_calls(backend)
