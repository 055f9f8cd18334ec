"""The judge's verdicts on the observations of one step: each asked about once, with patience.

A judge that is down does not poison the run. Where no reply came for more than a share of a step,
training pauses and asks again, and at last stops. A judge that does reply, but for more than that
share of its last verdicts with nothing that can be read, stops training too: asking again would not
help.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from judges.backends.budget import BudgetExhausted
from judges.sufficiency import SufficiencyOutcome
from schemas.questions import VideoQuestion
from schemas.verdicts import Sufficiency
from train.judge_calls import JudgeCalls
from train.judge_check import NO_REPLY

log = logging.getLogger(__name__)

SumOverProcesses = Callable[[Sequence[float]], Sequence[float]]
Key = tuple[str, str]
"""Question id and observation."""

_JUDGED_ENOUGH = 100  # verdicts, before a judge that says nothing readable is given up
_LONGEST_PAUSE_SECONDS = 300.0
_LOOK_SECONDS = 0.2  # how often a pause looks whether it is to end


class JudgeUnavailableError(Exception):
    """Training cannot go on without the judge: save a checkpoint and stop. One sentence why."""


@dataclass(frozen=True)
class JudgePatience:
    """What is borne of a judge that is down."""

    max_missing_share: float = 0.2
    """Above this share of a step's verdicts without a reply, training pauses."""
    pause_seconds: float = 10.0
    """The first pause; each further one is twice as long, 5 minutes at most."""
    max_pauses: int = 5
    """After so many pauses training stops."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_missing_share <= 1:
            raise ValueError(
                f"max_missing_share must be a share from 0 to 1, got {self.max_missing_share}"
            )
        if self.pause_seconds < 0 or self.max_pauses < 0:
            raise ValueError("pause_seconds and max_pauses must not be negative")


class JudgeHealth:
    """One judge with the patience that is had with it, over the steps of a run.

    `sum_over_processes` adds numbers up over all processes: all of them pause and stop together.
    Where `stop_requested` says so, a pause ends and training stops instead of asking again.
    """

    def __init__(
        self,
        judge: JudgeCalls,
        patience: JudgePatience,
        sum_over_processes: SumOverProcesses = list,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.judge, self.patience = judge, patience
        self.sum_over_processes = sum_over_processes
        self.stop_requested = stop_requested
        self._recent: deque[tuple[float, float]] = deque()

    def unreadable_share(self, replied: float, unreadable: float) -> float:
        """Adds a step's verdicts; the share of the last hundred or so that cannot be read.

        0 as long as there are fewer.
        """
        self._recent.append((replied, unreadable))
        while sum(count for count, _ in self._recent) - self._recent[0][0] >= _JUDGED_ENOUGH:
            self._recent.popleft()
        total = sum(count for count, _ in self._recent)
        return sum(bad for _, bad in self._recent) / total if total >= _JUDGED_ENOUGH else 0.0


@dataclass
class _Asked:
    """One observation, the rollouts that wrote it, and what became of it."""

    question: VideoQuestion
    observation: str
    output: str
    rollouts: int
    future: "Future[SufficiencyOutcome]"
    outcome: SufficiencyOutcome | None = None

    @property
    def has_no_reply(self) -> bool:
        failure = self.outcome.failure if self.outcome else None
        return failure is not None and failure.reason in NO_REPLY

    @property
    def is_unscored(self) -> bool:
        return self.outcome is None or self.outcome.verdict.verdict == "unscored"


class StepVerdicts:
    """Verdicts on their way. `ask` about each rollout's observation, then `settle` once."""

    def __init__(self, health: JudgeHealth) -> None:
        self._health = health
        self._asked: dict[Key, _Asked] = {}
        self.num_pauses = 0
        self.began = self.last_reply = time.monotonic()

    def ask(self, question: VideoQuestion, observation: str, output: str) -> Key:
        """Send one observation to the judge, unless the step has sent it before."""
        key = (question.question_id, observation)
        if key in self._asked:
            self._asked[key].rollouts += 1
        else:
            future = self._submit(question, observation, output)
            self._asked[key] = _Asked(question, observation, output, 1, future)
        return key

    def verdict(self, key: Key) -> Sufficiency:
        """The verdict on an observation. Call `settle` first."""
        outcome = self._asked[key].outcome
        assert outcome is not None
        return outcome.verdict

    @property
    def num_asked(self) -> int:
        """Rollouts that need a verdict."""
        return sum(one.rollouts for one in self._asked.values())

    @property
    def num_missing(self) -> int:
        """Those of them without one."""
        return sum(one.rollouts for one in self._asked.values() if one.is_unscored)

    @property
    def num_distinct(self) -> int:
        """Observations that were sent."""
        return len(self._asked)

    def settle(self) -> None:
        """Wait for every verdict; pause and ask again while too many calls have no reply.

        Raises JudgeUnavailableError.
        """
        patience, judge = self._health.patience, self._health.judge
        while True:
            exhausted = self._collect()
            silent = [one for one in self._asked.values() if one.has_no_reply]
            num_silent = sum(one.rollouts for one in silent)
            asked, missing, unreadable, spent, stops = self._health.sum_over_processes(
                [
                    float(self.num_asked),
                    float(num_silent),
                    float(self.num_missing - num_silent),
                    float(bool(exhausted)),
                    float(self._health.stop_requested()),
                ]
            )
            if spent:
                raise JudgeUnavailableError(
                    exhausted or "the judge's budget is used up in another process"
                )
            if missing <= patience.max_missing_share * asked:
                break
            told = (
                f"no reply of the judge {judge.spec} on {missing:.0f} of {asked:.0f} observations"
                f" of a step, more than {patience.max_missing_share:.0%}{_last_words(silent)}"
            )
            if stops or self.num_pauses >= patience.max_pauses:
                judge.forget_failures(_failed_calls(silent))  # a resumed run asks again
                end = "and a stop was asked for" if stops else "given up"
                raise JudgeUnavailableError(f"{told}; {end} after {self.num_pauses} pauses")
            seconds = min(patience.pause_seconds * 2**self.num_pauses, _LONGEST_PAUSE_SECONDS)
            self.num_pauses += 1
            number = f"{self.num_pauses} of {patience.max_pauses}"
            log.warning("%s; pausing for %g s, then asking again (%s)", told, seconds, number)
            self._sleep(seconds)
            judge.forget_failures(_failed_calls(silent))
            for one in silent:
                one.outcome = None
                one.future = self._submit(one.question, one.observation, one.output)
        share = self._health.unreadable_share(asked - missing, unreadable)
        if share > patience.max_missing_share:
            raise JudgeUnavailableError(
                f"the judge {judge.spec} replies, but {share:.0%} of its last verdicts cannot be"
                f" read{self._reasons()}: give it more tokens or another prompt, or another judge"
            )

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._health.stop_requested():
            time.sleep(min(left, _LOOK_SECONDS))

    def _submit(
        self, question: VideoQuestion, observation: str, output: str
    ) -> "Future[SufficiencyOutcome]":
        future = self._health.judge.submit(question, observation, output=output)
        future.add_done_callback(self._note_reply)
        return future

    def _note_reply(self, future: "Future[SufficiencyOutcome]") -> None:
        self.last_reply = time.monotonic()

    def _collect(self) -> str:
        """Take the outcomes that are missing; the budget's words where it is used up."""
        exhausted = ""
        for one in self._asked.values():
            if one.outcome is not None:
                continue
            is_waited_for = not one.future.done()
            try:
                one.outcome = one.future.result()
            except BudgetExhausted as error:
                exhausted = str(error)
            if is_waited_for:  # its callback may run a little later
                self.last_reply = time.monotonic()
        return exhausted

    def _reasons(self) -> str:
        reasons = {
            one.outcome.verdict.unscored_reason.value
            for one in self._asked.values()
            if one.outcome and one.outcome.verdict.unscored_reason
        }
        return f" ({', '.join(sorted(reasons))})" if reasons else ""


def _failed_calls(silent: Sequence[_Asked]) -> list[str]:
    return [one.outcome.failed_call for one in silent if one.outcome and one.outcome.failed_call]


def _last_words(silent: Sequence[_Asked]) -> str:
    failures = [one.outcome.failure for one in silent if one.outcome and one.outcome.failure]
    return f" (the last failure: {failures[-1].detail})" if failures else ""
