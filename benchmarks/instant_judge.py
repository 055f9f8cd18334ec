"""A judge for timing a step where there is no server: it has answered when it is asked.

It has what `train.rewards.group_rewarder.GroupRewarder` asks of a `JudgeClient`, and no ledger.
"""

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from judges.sufficiency import SufficiencyOutcome
from schemas.samples import Sufficiency
from train.rewards.judge_client import JudgeStats


class InstantJudge:
    """Finds an observation insufficient if it has the word "poor", as `step_world.JUDGE_RULES`."""

    spec = "instant"

    def __init__(self) -> None:
        self._calls = 0

    def submit(self, _: Any, observation: str, **__: Any) -> "Future[SufficiencyOutcome]":
        """The verdict, in a future that is done."""
        self._calls += 1
        verdict = Sufficiency("no" if "poor" in observation else "yes")
        answered: Future[SufficiencyOutcome] = Future()
        answered.set_result(SufficiencyOutcome(verdict, (), None, prompt_id="instant"))
        return answered

    def ask_ahead(self, _: Any, observation: str, **__: Any) -> None:
        """Nothing can be gained: `submit` has its answer at once."""

    def forget_ahead(self) -> None:
        """Nothing was begun ahead."""

    def forget_failures(self, call_keys: Iterable[str]) -> None:
        """No call fails."""

    def note_leak(self, *_: Any) -> None:
        """Nothing is recorded."""

    def take_stats(self) -> JudgeStats:
        """The calls since this was called last."""
        calls, self._calls = self._calls, 0
        return JudgeStats(calls=calls)
