"""From a command's options to backends that can be called: opened, priced, limited, recorded.

`options` is any config with the option group of backends (or an object with the same attributes).
A command that calls one model:

    with Ledger.open(path, run) as ledger:
        async with open_calls(spec, config, ledger, media_root=root) as calls:
            result = await calls.call(request)

A command that calls several, or must refuse bad options before it writes anything, takes the two
halves. One `CallSession` is one ledger and one budget, which all of its call layers share:

    async with opened_backend(config.generator, config, temperature=config.temperature) as teacher:
        require_price(teacher, config)
        with Ledger.open(path, run) as ledger:
            session = CallSession(config, ledger)
            calls = session.calls(teacher)
            batched = session.batched_calls(other, linger_seconds=10, poll_seconds=30)

In synchronous code that runs an event loop in a thread, an AsyncExitStack in that loop holds the
context: `run(stack.enter_async_context(opened_backend(...)))`, at the end `run(stack.aclose())`.
Opening a ledger raises LedgerError, which is the caller's to turn into a UsageError.

What fails every call alike is found by one short call, recorded and paid like any other:
`check_before` makes it before a folder is claimed, `session.check_reachable` before anything slow
begins, and `session.checked_calls` before the first call that the ledger cannot answer.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard

from cli.config import UsageError
from judges.backends.base import Backend, BatchBackend
from judges.backends.batched_calls import BatchedCalls
from judges.backends.budget import Budget, BudgetExhausted
from judges.backends.call_records import known_price
from judges.backends.calls import CallLimits, Calls
from judges.backends.preflight import HeldCalls, problem_of, quick_limits, silent
from judges.backends.prices import Prices
from judges.backends.registry import BackendOptions, open_backend, takes_no_money

if TYPE_CHECKING:
    from schemas.ledger.ledger import Ledger


class CallOptions(Protocol):
    """What the options of a command say about backends and their calls."""

    @property
    def api_key_env(self) -> str | None:
        """Environment variable with the key of an OpenAI-compatible server."""

    @property
    def timeout_seconds(self) -> float:
        """Time that one attempt may take."""

    @property
    def local_batch_size(self) -> int:
        """Requests per forward pass of a local model."""

    @property
    def device(self) -> str | None:
        """Device of a local model, as torch names it; None or `auto`: a GPU if there is one."""

    @property
    def concurrency(self) -> int:
        """Calls in flight at most, per backend."""

    @property
    def requests_per_minute(self) -> int | None:
        """Rate limit per backend."""

    @property
    def tokens_per_minute(self) -> int | None:
        """Rate limit per backend."""

    @property
    def max_cost_usd(self) -> float | None:
        """What all calls of the ledger may cost together, earlier runs included."""

    @property
    def prices(self) -> Path | None:
        """TOML file of prices that adds to or replaces the built-in table."""


@asynccontextmanager
async def opened_backend(
    spec: str,
    options: CallOptions,
    *,
    media_root: Path | None = None,
    temperature: float | None = None,
    temperature_option: str = "--temperature",
) -> AsyncIterator[Backend]:
    """The backend that `spec` names, closed at the end.

    Raises BackendUnavailableError where it cannot be opened, UsageError where it takes no
    temperature although `temperature_option` gives one.
    """
    backend = await open_backend(spec, _backend_options(options, media_root))
    try:
        if temperature is not None and "temperature" not in backend.info.takes_sampling:
            raise UsageError(
                f"{temperature_option} {temperature:g} was given, but {spec} takes no temperature; "
                "leave the option out (or use another model)"
            )
        yield backend
    finally:
        await backend.aclose()


def _backend_options(options: CallOptions, media_root: Path | None) -> BackendOptions:
    return BackendOptions(
        api_key_env=options.api_key_env,
        timeout_seconds=options.timeout_seconds,
        local_batch_size=options.local_batch_size,
        media_root=media_root,
        device=None if options.device == "auto" else options.device,
    )


@contextmanager
def _usage_errors() -> Iterator[None]:
    """A price file, budget or limit that cannot be used is for the user to mend."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def require_price(backend: Backend, options: CallOptions) -> None:
    """Raise UsageError where a budget is given and the model's price is not known."""
    with _usage_errors():
        known_price(backend.info, Prices.load(options.prices), Budget(options.max_cost_usd))


def unknown_prices(backends: Iterable[Backend], options: CallOptions) -> str:
    """One sentence on the models whose price is not known; "" where all are. Raises UsageError."""
    with _usage_errors():
        prices = Prices.load(options.prices)
    unknown = {
        backend.info.spec: None
        for backend in backends
        if prices.price(backend.info.provider, backend.info.model) is None
    }
    if not unknown:
        return ""
    return (
        f"no price is known for {' and '.join(unknown)}: costs leave these calls out; a file given "
        "with --prices tells it"
    )


def takes_batches(backend: Backend) -> TypeGuard[BatchBackend]:
    """Whether the backend has a batch API."""
    return hasattr(backend, "submit")


def call_limits(options: CallOptions) -> CallLimits:
    """Limits of one backend's call layer. A command with options for waits replaces theirs."""
    with _usage_errors():
        return CallLimits(
            max_concurrency=options.concurrency,
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
        )


async def check_before(backends: Mapping[str, Backend], options: CallOptions) -> HeldCalls:
    """Raise UsageError where a backend cannot answer, before anything is written.

    `backends` by the option that names each. Models in this process are not asked, nor is anything
    that the budget cannot pay. Returns the calls, which the run's ledger takes over.
    """
    held = HeldCalls()
    with _usage_errors():
        prices, budget = Prices.load(options.prices), Budget(options.max_cost_usd)
    options_of: dict[str, list[str]] = {}
    for option, backend in backends.items():
        options_of.setdefault(backend.info.spec, []).append(option)
    for spec, backend in {backend.info.spec: backend for backend in backends.values()}.items():
        if takes_no_money(spec):
            continue
        limits = quick_limits(call_limits(options))
        calls = Calls(backend, held, limits=limits, prices=prices, budget=budget, run_id="")
        with suppress(BudgetExhausted):  # the run says so itself, and can be resumed
            if problem := await problem_of(calls, 0, options.timeout_seconds):
                raise _mend_it(backend, " and ".join(options_of[spec]), problem)
            held.specs.add(spec)
    return held


def _mend_it(backend: Backend, option: str, problem: str) -> UsageError:
    sentence = silent(backend.info.spec, problem, option)
    return UsageError(f"{sentence}; mend that, or give another model")


class CallSession:
    """Makes the call layers of one run: they share its ledger, prices and budget.

    The budget counts what earlier runs of the ledger have spent. `limits` replaces those that
    follow from `options`. `checks`, those of `check_before`, are recorded and not made again.
    Raises UsageError for a price file or a budget that cannot be used.
    """

    def __init__(
        self,
        options: CallOptions,
        ledger: "Ledger",
        *,
        limits: CallLimits | None = None,
        checks: HeldCalls | None = None,
    ) -> None:
        self.ledger = ledger
        self._checked = set(checks.specs) if checks else set()
        if checks is not None:
            checks.move_to(ledger)
        self._timeout_seconds = options.timeout_seconds
        self._limits = limits or call_limits(options)
        with _usage_errors():
            self._prices = Prices.load(options.prices)
            self._budget = Budget(options.max_cost_usd, already_spent_usd=ledger.spent_usd())

    def calls(self, backend: Backend) -> Calls:
        """Live calls of `backend`; raises UsageError where a budget needs an unknown price."""
        return self._calls(backend, self._limits)

    def checked_calls(self, backend: Backend) -> Calls:
        """Live calls of `backend`, which begin with the check, unless the ledger answers all.

        Where the check fails, they raise StopRequested. It is left out where this session has made
        or was given a check of `backend`.
        """
        if takes_no_money(backend.info.spec) or backend.info.spec in self._checked:
            return self.calls(backend)

        async def problem() -> str:
            with suppress(BudgetExhausted):
                found = await self._problem_of(backend)
                return silent(backend.info.spec, found) if found else ""
            return ""  # the next call says it

        return self._calls(backend, self._limits, problem)

    def batched_calls(
        self, backend: BatchBackend, *, linger_seconds: float, poll_seconds: float
    ) -> BatchedCalls:
        """Calls through the batch API of `backend`; close them before the ledger."""
        with _usage_errors():
            return BatchedCalls(
                backend,
                self.ledger,
                limits=self._limits,
                prices=self._prices,
                budget=self._budget,
                run_id=self.ledger.run_id,
                linger_seconds=linger_seconds,
                poll_seconds=poll_seconds,
            )

    async def check_reachable(self, backend: Backend, *, option: str = "--judge") -> None:
        """Raise UsageError, within seconds, where `backend` cannot answer.

        One short call, recorded and paid. A model in this process has been reached when it was
        opened. `option` names it in the error.
        """
        if takes_no_money(backend.info.spec):
            return
        try:
            problem = await self._problem_of(backend)
        except BudgetExhausted as error:
            raise UsageError(str(error)) from None
        if problem:
            raise _mend_it(backend, option, problem)
        self._checked.add(backend.info.spec)

    async def _problem_of(self, backend: Backend) -> str:
        calls = self._calls(backend, quick_limits(self._limits))
        num_earlier_runs = len(self.ledger.run_configs())
        return await problem_of(calls, num_earlier_runs, self._timeout_seconds)

    def _calls(
        self,
        backend: Backend,
        limits: CallLimits,
        problem: Callable[[], Awaitable[str]] | None = None,
    ) -> Calls:
        with _usage_errors():
            return Calls(
                backend,
                self.ledger,
                limits=limits,
                prices=self._prices,
                budget=self._budget,
                run_id=self.ledger.run_id,
                problem=problem,
            )


@asynccontextmanager
async def open_calls(
    spec: str,
    options: CallOptions,
    ledger: "Ledger",
    *,
    media_root: Path | None = None,
    temperature: float | None = None,
    limits: CallLimits | None = None,
) -> AsyncIterator[Calls]:
    """The call layer of one backend, for a run that needs no other. Raises UsageError."""
    async with opened_backend(
        spec, options, media_root=media_root, temperature=temperature
    ) as backend:
        yield CallSession(options, ledger, limits=limits).calls(backend)
