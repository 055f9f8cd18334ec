"""Calls of reward functions, plain and async ones, while the training thread computes.

Functions run in one thread of their own: plain ones one after another, async ones side by side.
"""

import asyncio
import functools
import inspect
import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from schemas.questions import VideoQuestion
from train.rewards.background_loop import BackgroundLoop
from train.rewards.plan import NamedReward

_log = logging.getLogger(__name__)

_LONG_SECONDS = 60.0


class RewardError(Exception):
    """A reward function failed, so training cannot go on. One sentence: which, where, and why."""


class NoNumberError(ValueError):
    """What a reward function returned is neither a finite number nor None."""


@dataclass(frozen=True)
class RewardCall:
    """One reward of one rollout."""

    named: NamedReward
    question: VideoQuestion
    arguments: Mapping[str, Any]
    """Everything of `train.rewards.registry.ARGUMENTS` that is at hand."""

    async def value(self) -> float:
        """What the function returns; NaN for None. Raises what the function raises.

        What would end the thread, or what a coroutine may not raise, is a RewardError.
        """
        reward = self.named.reward
        given = {name: value for name, value in self.arguments.items() if reward.reads(name)}
        try:
            returned = reward.function(**given)
            return as_reward(await returned if inspect.isawaitable(returned) else returned)
        except (KeyboardInterrupt, SystemExit, StopIteration) as error:
            raise RewardError(_sentence(self, error)) from error

    @property
    def place(self) -> str:
        """Which reward, of which question: for sentences."""
        question = self.question
        return f"{self.named.label} of question {question.question_id} (row {question.row})"


def as_reward(returned: object) -> float:
    """A function's return value as a number; None is NaN, a missing value.

    Raises NoNumberError for everything that is not a finite number.
    """
    if returned is None:
        return math.nan
    if not isinstance(returned, Real) or not math.isfinite(returned):
        raise NoNumberError(
            f"returned {_short(returned)}; return a finite number, or None where the value is"
            " missing"
        )
    return float(returned)


class RewardCalls:
    """Calls reward functions in the background. Close it after the last one."""

    def __init__(self) -> None:
        self._loop: BackgroundLoop | None = None
        self._running: dict[int, RewardCall] = {}
        self._noted: set[str] = set()

    def start(self, calls: Sequence[RewardCall]) -> "Future[list[float]]":
        """Begin calls, and return at once. The future gives a number for each, NaN = missing.

        It raises RewardError where a function raises, or returns something else than a number.
        """
        if not calls:
            nothing: Future[list[float]] = Future()
            nothing.set_result([])
            return nothing
        if self._loop is None:
            self._loop = BackgroundLoop("rewards")
        return self._loop.start(self._values(calls))

    def error_of(self, future: "Future[list[float]]") -> BaseException | None:
        """Wait for what `start` gave, and return what it raises. A long wait is logged."""
        try:
            return future.exception(_LONG_SECONDS)
        except TimeoutError:
            self._note_running()
        return future.exception()

    def close(self) -> None:
        """End the thread."""
        if self._loop is not None:
            self._loop.close()

    async def _values(self, calls: Sequence[RewardCall]) -> list[float]:
        results = await asyncio.gather(*map(self._value, calls), return_exceptions=True)
        values = []
        for call, result in zip(calls, results, strict=True):
            if isinstance(result, RewardError):
                raise result
            if isinstance(result, BaseException):
                raise RewardError(_sentence(call, result)) from result
            values.append(result)
        return values

    async def _value(self, call: RewardCall) -> float:
        self._running[id(call)] = call
        try:
            return await call.value()
        finally:
            del self._running[id(call)]

    def _note_running(self) -> None:
        """Log which rewards are waited for, once for each."""
        for call in list(self._running.values()):
            if call.named.label not in self._noted:
                self._noted.add(call.named.label)
                _log.warning(
                    "waiting for the reward %s, which has not returned after %g s",
                    call.place,
                    _LONG_SECONDS,
                )


def _sentence(call: RewardCall, error: BaseException) -> str:
    where = f"the reward {call.place}"
    if isinstance(error, NoNumberError):
        return f"{where} {error}"
    place = _place(call.named.reward.function, error)
    return f"{where} raised {type(error).__name__} ({place}): {error}"


def _place(function: Any, error: BaseException) -> str:
    """The file and the line of an error, or the function's name where it has left no trace."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):  # an object that can be called
        function = type(function).__call__
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return str(function.__qualname__)
    code = getattr(inspect.unwrap(function), "__code__", None)
    own = None if code is None else code.co_filename
    last = next((frame for frame in reversed(frames) if frame.filename == own), frames[-1])
    return f"{Path(last.filename).name}, line {last.lineno}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
