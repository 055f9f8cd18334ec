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
from judges.text_reader import ReaderSettings
from media.cache import default_cache_dir
from media.sampling import FrameSpec
from media.store import FrameStore
from pipeline.options import BuildConfig
from pipeline.planning import QuestionSource
from pipeline.reader_steps import ReaderStep
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
    return QuestionSource(
        config.questions,
        config.format,
        config.strip_prefix,
        config.limit,
        config.columns,
        config.media_root,
    )


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
    """The settings of all steps; without `backends`, attempts and samples get no seeds."""
    seeds = backends is not None and _takes_seed(backends.generator)
    return StepSettings(
        generator=config.generator or "",
        judge=config.judge or "",
        max_new_tokens=config.max_new_tokens,
        threshold=config.threshold,
        judge_max_tokens=config.judge_max_tokens,
        judge_retries=config.retries,
        allow_leaks=config.allow_leaks,
        sufficiency=config.sufficiency,
        reading=_reader_step(config, None if backends is None else backends.reader),
        generator_sampling=_sampling_params(config.temperature),
        judge_sampling=_sampling_params(config.judge_temperature),
        seed_attempts=seeds and bool(config.temperature),
    )


def _reader_step(config: BuildConfig, backend: Backend | None) -> ReaderStep | None:
    if config.blind_filter is None:
        return None
    return ReaderStep(
        config.blind_filter,
        ReaderSettings(
            samples=config.blind_samples,
            max_tokens=config.judge_max_tokens,
            threshold=config.threshold,
            sampling=_sampling_params(config.judge_temperature),
            sends_seed=backend is not None
            and _takes_seed(backend)
            and bool(config.judge_temperature),
        ),
        num_needed=config.blind_correct,
        action=config.blind_action,
        margin=config.sufficiency_margin,
    )


def _takes_seed(backend: Backend) -> bool:
    return "seed" in backend.info.takes_sampling


def _sampling_params(temperature: float | None) -> tuple[tuple[str, float], ...]:
    return () if temperature is None else (("temperature", temperature),)


@dataclass(frozen=True)
class Backends:
    """Teacher, judge and text reader; the same object for roles with the same spec.

    There is no judge where a reader alone filters, and mostly no reader.
    """

    generator: Backend
    judge: Backend | None
    reader: Backend | None = None

    def by_option(self) -> dict[str, Backend]:
        """Those that there are, by the option that names each."""
        named = {
            "--generator": self.generator,
            "--judge": self.judge,
            "--blind-filter": self.reader,
        }
        return {option: backend for option, backend in named.items() if backend is not None}


async def open_backends(config: BuildConfig, closing: AsyncExitStack) -> Backends:
    """Open all backends; `closing` closes them.

    Raises UsageError or BackendUnavailableError for a backend that cannot be used.
    """
    assert config.generator is not None
    opened: dict[str, Backend] = {}
    for spec in specs_of(config):
        is_teacher = spec == config.generator and config.temperature is not None
        opened[spec] = await open_one(
            spec,
            config,
            closing,
            temperature=_temperature(spec, config),
            temperature_option="--temperature" if is_teacher else "--judge-temperature",
        )
    generator = opened[config.generator]
    if not generator.info.takes_images:
        raise UsageError(
            f"--generator {config.generator} takes no images, but a teacher must see the frames; "
            "give a vision model"
        )
    return Backends(
        generator,
        opened[config.judge] if config.judge else None,
        opened[config.blind_filter] if config.blind_filter else None,
    )


def specs_of(config: BuildConfig) -> list[str]:
    """The backends that a build asks, each once, the teacher first."""
    specs = (config.generator, config.judge, config.blind_filter)
    return list(dict.fromkeys(spec for spec in specs if spec is not None))


def _temperature(spec: str, config: BuildConfig) -> float | None:
    """The temperature that a backend is asked with in one of its roles; the teacher's first."""
    judges = spec in (config.judge, config.blind_filter)
    if spec == config.generator and (config.temperature is not None or not judges):
        return config.temperature
    return config.judge_temperature


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
    backends_asked = list(backends.by_option().values())
    if config.batch and not any(map(takes_batches, backends_asked)):
        raise UsageError(
            f"--batch was given, but neither {' nor '.join(specs_of(config))} takes batches "
            "(claude: backends do); leave it out"
        )
    for backend in backends_asked:
        require_price(backend, config)


@dataclass(frozen=True)
class CallLayers:
    """The call layer of each role; the same object where roles share a backend."""

    generator: AnyCalls
    judge: AnyCalls | None
    reader: AnyCalls | None = None

    def _roles(self) -> dict[str, AnyCalls]:
        named = {"generator": self.generator, "judge": self.judge, "reader": self.reader}
        return {role: calls for role, calls in named.items() if calls is not None}

    def _distinct(self) -> list[AnyCalls]:
        return list({id(calls): calls for calls in self._roles().values()}.values())

    def stop(self) -> None:
        """Start no new calls in any."""
        for calls in self._distinct():
            calls.stop()

    async def aclose(self) -> None:
        """End all waiting, before the ledger is closed."""
        for calls in self._distinct():
            if isinstance(calls, BatchedCalls):
                await calls.aclose()

    @property
    def num_left_at_server(self) -> int:
        """Requests in batches that go on at the server after a stop."""
        return sum(
            calls.num_left_at_server
            for calls in self._distinct()
            if isinstance(calls, BatchedCalls)
        )

    def stats(self) -> dict[str, CallStats]:
        """Counters by role; roles that share a layer are named together."""
        found = {}
        for calls in self._distinct():
            roles = [role for role, one in self._roles().items() if one is calls]
            found[" and ".join(roles)] = calls.stats
        return found


async def check_backends(config: BuildConfig, backends: Backends) -> HeldCalls:
    """Raise UsageError where a backend cannot answer; the calls that showed it."""
    return await check_before(backends.by_option(), config)


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
    layers: dict[int, AnyCalls] = {}

    def layer(backend: Backend) -> AnyCalls:
        if id(backend) not in layers:
            layers[id(backend)] = _calls(session, backend, config)
        return layers[id(backend)]

    return CallLayers(
        layer(backends.generator),
        layer(backends.judge) if backends.judge is not None else None,
        layer(backends.reader) if backends.reader is not None else None,
    )


def _calls(session: CallSession, backend: Backend, config: BuildConfig) -> AnyCalls:
    if config.batch and takes_batches(backend):
        return session.batched_calls(
            backend,
            linger_seconds=config.batch_linger_seconds,
            poll_seconds=config.batch_poll_seconds,
        )
    return session.checked_calls(backend)
