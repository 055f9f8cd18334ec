"""Adaptive concurrency, pauses and rates: on the limiter itself and through the call layer."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.scripted_backend import ScriptedBackend, ask, live, open_ledger, reply

from judges.backends.base import ChatRequest, Reply, RetryableError
from judges.backends.budget import StopRequested
from judges.backends.calls import CallFailure, CallLimits
from judges.backends.limiter import Limiter, Slot
from judges.backends.retrying import CallHistory, wait_seconds
from schemas.ledger.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as ledger:
        yield ledger


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def others_ran() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_than_the_limit_are_in_flight_and_order_is_kept() -> None:
    limiter = Limiter(2)
    slots = [await limiter.acquire(1), await limiter.acquire(1)]
    order: list[int] = []

    async def wait(number: int) -> Slot:
        slot = await limiter.acquire(1)
        order.append(number)
        return slot

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await others_ran()
    assert order == []
    limiter.release(slots[0])
    await others_ran()
    assert order == [0]
    limiter.release(slots[1])
    limiter.release(tasks[0].result())
    await others_ran()
    assert order == [0, 1, 2]


async def test_one_congestion_event_halves_once_however_many_calls_report_it() -> None:
    clock = Clock()
    limiter = Limiter(16, clock=clock)
    slots = [await limiter.acquire(1) for _ in range(16)]
    clock.now += 1
    for slot in slots:
        limiter.overloaded(slot)
        limiter.release(slot)
    assert limiter.concurrency == 8
    clock.now += 1
    later = await limiter.acquire(1)
    clock.now += 1
    limiter.overloaded(later)
    assert limiter.concurrency == 4


async def test_concurrency_never_falls_below_one() -> None:
    clock = Clock()
    limiter = Limiter(3, clock=clock)
    for _ in range(5):
        slot = await limiter.acquire(1)
        clock.now += 1
        limiter.overloaded(slot)
        limiter.release(slot)
        clock.now += 1
    assert limiter.concurrency == 1


async def test_concurrency_creeps_back_by_one_per_round_up_to_the_maximum() -> None:
    clock = Clock()
    limiter = Limiter(6, clock=clock)
    slot = await limiter.acquire(1)
    clock.now += 1
    limiter.overloaded(slot)
    assert limiter.concurrency == 3
    for _ in range(3):
        limiter.succeeded()
    # 3 + 1/3 + 1/3.33 + 1/3.63 = 3.909: a little less than one per round
    assert limiter.concurrency == 3
    limiter.succeeded()
    assert limiter.concurrency == 4
    for _ in range(100):
        limiter.succeeded()
    assert limiter.concurrency == 6


async def test_a_large_maximum_is_reached_again_in_about_four_rounds() -> None:
    clock = Clock()
    limiter = Limiter(32, clock=clock)
    slot = await limiter.acquire(1)
    clock.now += 1
    limiter.overloaded(slot)
    num_successes = 0
    while limiter.concurrency < 32:
        limiter.succeeded()
        num_successes += 1
    # from 16 by 4 / limit each: (32^2 - 16^2) / 2 / 4 = 96 successes, four rounds of 24
    assert 96 <= num_successes <= 100


async def test_a_pause_holds_everybody_back_and_then_ends_by_itself() -> None:
    limiter = Limiter(4)
    limiter.pause(0.05)
    started = time.monotonic()
    await asyncio.gather(*(limiter.acquire(1) for _ in range(4)))
    assert 0.05 <= time.monotonic() - started < 10  # it ends; a busy machine may be late


async def test_a_longer_pause_during_a_pause_counts_and_a_shorter_one_does_not() -> None:
    limiter = Limiter(1)
    limiter.pause(0.03)
    waiting = asyncio.create_task(limiter.acquire(1))
    await others_ran()
    limiter.pause(0.08)
    limiter.pause(0.01)
    started = time.monotonic()
    await waiting
    assert time.monotonic() - started >= 0.075


async def test_a_stop_sends_everybody_away() -> None:
    limiter = Limiter(1)
    await limiter.acquire(1)
    waiting = asyncio.create_task(limiter.acquire(1))
    await others_ran()
    limiter.stop("enough")
    with pytest.raises(StopRequested, match="enough"):
        await waiting
    with pytest.raises(StopRequested, match="enough"):
        await limiter.acquire(1)


async def test_a_cancelled_wait_loses_no_slot() -> None:
    limiter = Limiter(1)
    slot = await limiter.acquire(1)
    before = asyncio.create_task(limiter.acquire(1))
    granted = asyncio.create_task(limiter.acquire(1))
    await others_ran()
    before.cancel()
    await others_ran()
    limiter.release(slot)  # now `granted` has a slot, but has not run yet
    granted.cancel()
    await others_ran()
    assert limiter.in_flight == 0


def simulate(clock: Clock, limiter: Limiter, tokens: int, seconds: float) -> list[float]:
    """Times at which requests start when there is always one that waits."""
    starts: list[float] = []
    end = clock.now + seconds
    while True:
        wait = limiter._seconds_until_free(tokens, clock.now)
        if clock.now + wait >= end:
            return starts
        clock.now += wait
        starts.append(clock.now)
        limiter.release(limiter._grant(tokens, clock.now))


@pytest.mark.parametrize("per_minute", [1, 7, 60, 600, 10_000])
def test_no_minute_has_more_requests_than_allowed_and_the_rate_is_used(per_minute: int) -> None:
    clock = Clock()
    limiter = Limiter(10**6, requests_per_minute=per_minute, clock=clock)
    starts = simulate(clock, limiter, 1, 300)
    for first, start in enumerate(starts):
        inside = next(
            (i for i in range(first, len(starts)) if starts[i] >= start + 59.999), len(starts)
        )
        assert inside - first <= per_minute
        if first > 50:
            break
    assert len(starts) >= 0.97 * 5 * per_minute - 1


def test_tokens_per_minute_are_kept_even_by_requests_larger_than_a_second_of_them() -> None:
    clock = Clock()
    limiter = Limiter(10**6, tokens_per_minute=6000, clock=clock)
    starts = simulate(clock, limiter, 500, 600)
    # 6,000 tokens a minute are 12 requests of 500: 120 in ten minutes, plus the first at once.
    assert 115 <= len(starts) <= 121


def test_tokens_that_were_not_used_are_given_back() -> None:
    clock = Clock()
    limiter = Limiter(10**6, tokens_per_minute=60_000, clock=clock)
    slot = limiter._grant(1000, clock.now)
    assert limiter._seconds_until_free(1000, clock.now) > 0.9
    slot.tokens_used = 0
    limiter.release(slot)
    assert limiter._seconds_until_free(1000, clock.now) == 0


async def test_waiters_behind_a_rate_start_without_anybody_giving_a_slot_back() -> None:
    limiter = Limiter(100, requests_per_minute=6000)  # a burst of 100, then one per 10 ms
    started = time.monotonic()
    await asyncio.gather(*(limiter.acquire(1) for _ in range(100)))
    limiter = Limiter(1000, requests_per_minute=6000)
    await asyncio.gather(*(limiter.acquire(1) for _ in range(110)))
    assert 0.08 <= time.monotonic() - started < 10  # as above


# Through the call layer.


async def test_retry_after_holds_back_all_calls_of_the_backend(ledger: Ledger) -> None:
    starts: dict[str, list[float]] = {}

    async def answer(request: ChatRequest) -> Reply | RetryableError:
        starts.setdefault(request.text, []).append(time.monotonic())
        if request.text == "a" and len(starts["a"]) == 1:
            return RetryableError("429", overloaded=True, retry_after_seconds=0.2)
        return reply()

    calls = live(ScriptedBackend(answer=answer), ledger)
    first = asyncio.create_task(calls.call(ask("a")))
    await asyncio.sleep(0.02)
    await calls.call(ask("b"))
    await first
    assert starts["b"][0] - starts["a"][0] >= 0.2
    assert starts["a"][1] - starts["a"][0] >= 0.2


async def test_retry_after_is_honoured_beyond_the_cap(ledger: Ledger) -> None:
    backend = ScriptedBackend(RetryableError("529", overloaded=True, retry_after_seconds=0.3))
    limits = CallLimits(retry_base_seconds=0.001, retry_cap_seconds=0.01)
    started = time.monotonic()
    await live(backend, ledger, limits=limits).call(ask("a"))
    assert time.monotonic() - started >= 0.3


async def test_an_absurd_retry_after_is_a_failure_with_a_sentence(ledger: Ledger) -> None:
    backend = ScriptedBackend(RetryableError("429: come tomorrow", retry_after_seconds=86_400))
    calls = live(backend, ledger)
    outcome = (await calls.call(ask("a"))).outcome
    assert isinstance(outcome, CallFailure)
    assert outcome.detail.startswith("the server asks to wait 86400 s, longer than the 600 s")
    assert "come tomorrow" in outcome.detail
    await asyncio.wait_for(calls.call(ask("b")), timeout=1)


async def test_waiting_for_a_retry_holds_no_slot(ledger: Ledger) -> None:
    backend = ScriptedBackend(RetryableError("500"))
    limits = CallLimits(max_concurrency=1, retry_base_seconds=0.5)
    calls = live(backend, ledger, limits=limits)
    first = asyncio.create_task(calls.call(ask("a")))
    await asyncio.sleep(0.01)
    await asyncio.wait_for(calls.call(ask("b")), timeout=0.2)
    assert not first.done()
    await first


async def test_overload_lowers_the_concurrency_that_the_display_shows(ledger: Ledger) -> None:
    errors = [RetryableError("429", overloaded=True) for _ in range(8)]
    backend = ScriptedBackend(*errors)
    limits = CallLimits(max_concurrency=8, retry_base_seconds=0.001)
    calls = live(backend, ledger, limits=limits)
    seen: list[int] = []

    async def one(number: int) -> None:
        await calls.call(ask(str(number)))
        seen.append(calls.stats.concurrency)

    await asyncio.gather(*(one(number) for number in range(40)))
    assert min(seen) in (4, 5)
    assert calls.stats.concurrency > min(seen)


def test_waits_double_up_to_the_cap_with_jitter() -> None:
    limits = CallLimits(retry_base_seconds=1.0, retry_cap_seconds=10.0)
    error = RetryableError("500")
    for number, longest in enumerate([1, 2, 4, 8, 10, 10, 10], start=1):
        waits = [wait_seconds(error, number, limits) for _ in range(200)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert max(waits) - min(waits) > longest / 4, "without jitter all calls come back at once"


def test_the_last_attempt_is_known_as_the_last() -> None:
    history = CallHistory(CallLimits(max_attempts=3))
    ends = []
    for _ in range(3):
        history.note(RetryableError("500"))
        ends.append(history.is_over)
    assert ends == [False, False, True]


@pytest.mark.parametrize("name", ["max_concurrency", "max_attempts", "requests_per_minute"])
def test_limits_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        CallLimits(**{name: 0})
