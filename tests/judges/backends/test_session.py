"""From a command's options to calls: what is refused, what is shared, what is closed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from helpers.chat_requests import text_request
from helpers.scripted_backend import ScriptedBackend, ScriptedBatchServer, ask, open_ledger
from servers.model_server import TEST_KEY, RunningServer

from cli.config import UsageError
from judges.backends import session as session_module
from judges.backends.base import Backend, BackendUnavailableError, Reply
from judges.backends.batched_calls import BatchedCalls
from judges.backends.calls import BudgetExhausted, CallLimits
from judges.backends.registry import BackendOptions
from judges.backends.session import (
    CallSession,
    call_limits,
    open_calls,
    opened_backend,
    require_price,
    takes_batches,
    unknown_prices,
)

pytestmark = pytest.mark.heavy


@dataclass(frozen=True)
class Options:
    """Options as a command's config has them."""

    api_key_env: str | None = "SERVER_KEY"
    timeout_seconds: float = 20.0
    local_batch_size: int = 3
    device: str | None = "auto"
    concurrency: int = 5
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_cost_usd: float | None = None
    prices: Path | None = None


class ClosingBackend(ScriptedBackend):
    """Counts how often it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.num_closed = 0

    async def aclose(self) -> None:
        self.num_closed += 1


@pytest.fixture
def opened_with(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, BackendOptions]]:
    """What backends are opened with, instead of opening them."""
    seen: list[tuple[str, BackendOptions]] = []

    async def open_one(spec: str, options: BackendOptions) -> Backend:
        seen.append((spec, options))
        return ClosingBackend()

    monkeypatch.setattr(session_module, "open_backend", open_one)
    return seen


async def test_one_call_over_the_wire_from_options_alone(
    tmp_path: Path, model_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_KEY", TEST_KEY)
    spec = f"openai:judge@{model_server.openai_url}"
    with open_ledger(tmp_path) as ledger:
        async with open_calls(spec, Options(), ledger) as calls:
            result = await calls.call(text_request("Is 4 even?"))
        assert (calls.info.spec, calls.stats.concurrency) == (spec, 5)
        assert isinstance(result.outcome, Reply)
        assert ledger.query("SELECT count(*) FROM calls") == [(1,)]


async def test_a_backend_gets_the_options_that_concern_it_and_is_closed(
    opened_with: list[tuple[str, BackendOptions]], tmp_path: Path
) -> None:
    async with opened_backend("local:here", Options(), media_root=tmp_path) as backend:
        assert isinstance(backend, ClosingBackend)
        assert backend.num_closed == 0
    assert backend.num_closed == 1
    async with opened_backend("local:here", replace(Options(), device="cuda:1")):
        pass
    assert opened_with == [
        ("local:here", BackendOptions("SERVER_KEY", 20.0, 3, tmp_path, None)),
        ("local:here", BackendOptions("SERVER_KEY", 20.0, 3, None, "cuda:1")),
    ]


@pytest.mark.usefixtures("opened_with")
async def test_a_temperature_that_a_model_does_not_take_is_refused_and_nothing_left_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = ClosingBackend()

    async def open_one(spec: str, options: BackendOptions) -> Backend:
        return backend

    monkeypatch.setattr(session_module, "open_backend", open_one)
    with pytest.raises(UsageError, match=r"--judge-temperature 0\.5 .* claude:m takes no temp"):
        async with opened_backend(
            "claude:m", Options(), temperature=0.5, temperature_option="--judge-temperature"
        ):
            pass
    assert backend.num_closed == 1


async def test_what_cannot_be_opened_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="names no backend") as caught:
        async with opened_backend("nobody", Options()):
            pass
    assert isinstance(caught.value, BackendUnavailableError)


def test_limits_follow_from_the_options_and_a_command_may_replace_them(tmp_path: Path) -> None:
    options = replace(Options(), requests_per_minute=7, tokens_per_minute=900)
    assert call_limits(options) == CallLimits(
        max_concurrency=5, requests_per_minute=7, tokens_per_minute=900
    )
    with pytest.raises(UsageError, match="max_concurrency is 0"):
        call_limits(replace(Options(), concurrency=0))
    with open_ledger(tmp_path) as ledger:
        limits = CallLimits(max_concurrency=2)
        calls = CallSession(Options(), ledger, limits=limits).calls(ScriptedBackend())
    assert calls.stats.concurrency == 2


async def test_all_layers_share_one_budget_which_knows_earlier_runs(tmp_path: Path) -> None:
    first, second = ScriptedBackend(), ScriptedBackend()
    options = replace(Options(), max_cost_usd=0.016)  # two calls of $0.006, their worst case 0.009
    with open_ledger(tmp_path) as ledger:
        session = CallSession(options, ledger)
        await session.calls(first).call(ask("one"))
        await session.calls(second).call(ask("two"))
        with pytest.raises(BudgetExhausted):
            await session.calls(first).call(ask("three"))
    with open_ledger(tmp_path) as ledger:
        assert ledger.spent_usd() == pytest.approx(0.012)
        with pytest.raises(BudgetExhausted):
            await CallSession(options, ledger).calls(first).call(ask("three"))


@pytest.mark.parametrize(
    "use",
    [
        lambda backend, options, ledger: require_price(backend, options),
        lambda backend, options, ledger: CallSession(options, ledger).calls(backend),
    ],
    ids=["before the ledger", "with the ledger"],
)
def test_a_budget_needs_a_known_price(
    tmp_path: Path, use: Callable[[Backend, Options, object], object]
) -> None:
    backend = ScriptedBackend()
    backend.info = replace(backend.info, model="unheard-of")
    with open_ledger(tmp_path) as ledger:
        use(backend, Options(), ledger)
        with pytest.raises(UsageError, match="price of model 'unheard-of'"):
            use(backend, replace(Options(), max_cost_usd=1.0), ledger)
        with pytest.raises(UsageError, match="cannot be read"):
            use(backend, replace(Options(), prices=tmp_path / "none.toml"), ledger)


def test_models_without_a_price_are_named_once_with_the_option_to_give(tmp_path: Path) -> None:
    priced, first, second = ScriptedBackend(), ScriptedBackend(), ScriptedBackend()
    for backend, spec in ((first, "openai:m@http://a/v1"), (second, "openai:n@http://b/v1")):
        backend.info = replace(backend.info, spec=spec, provider="openai", model=spec[7])
    assert unknown_prices([priced], Options()) == ""
    assert unknown_prices([first, priced, second, first], Options()) == (
        "no price is known for openai:m@http://a/v1 and openai:n@http://b/v1: costs leave these "
        "calls out; a file given with --prices tells it"
    )
    (tmp_path / "prices.toml").write_text("[openai.m]\ninput = 0\noutput = 0\n")
    assert unknown_prices([first], replace(Options(), prices=tmp_path / "prices.toml")) == ""


async def test_batches_are_made_where_the_backend_takes_them(tmp_path: Path) -> None:
    server = ScriptedBatchServer()
    assert [takes_batches(one) for one in (ScriptedBackend(), server)] == [False, True]
    with open_ledger(tmp_path) as ledger:
        calls = CallSession(Options(), ledger).batched_calls(
            server, linger_seconds=0.001, poll_seconds=0.001
        )
        assert isinstance(calls, BatchedCalls)
        result = await calls.call(ask("one"))
        await calls.aclose()
    assert isinstance(result.outcome, Reply)
    assert server.submitted_texts == [["one"]]


async def test_a_server_that_is_down_is_found_in_seconds_and_named_by_its_option(
    tmp_path: Path, model_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_KEY", TEST_KEY)
    with open_ledger(tmp_path) as ledger:
        session = CallSession(Options(), ledger)
        async with opened_backend(f"openai:judge@{model_server.openai_url}", Options()) as alive:
            await session.check_reachable(alive)
        assert ledger.query("SELECT step FROM calls") == [("check",)]
        async with opened_backend("openai:judge@http://127.0.0.1:9/v1", Options()) as dead:
            with pytest.raises(UsageError, match=r"--extractor openai:judge@.* cannot be reached"):
                await session.check_reachable(dead, option="--extractor")
