"""The judge's verdicts on the observations of one step, and the retry policy for a judge that is
down.

A missing verdict is excluded from its group's statistics, never scored 0. If more than a share of a
step's verdicts have no reply, training pauses and asks again, and in the end stops. A judge that
replies, but with nothing readable for more than that share of its recent verdicts, stops training
too: asking again would not help.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields

from judges.backends.budget import BudgetExhausted
from judges.backends.preflight import NO_REPLY
from judges.sufficiency import SufficiencyOutcome
from schemas.questions import VideoQuestion
from schemas.samples import Sufficiency
from train.rewards.judge_client import JudgeClient, JudgeStats

log = logging.getLogger(__name__)

SumOverProcesses = Callable[[Sequence[float]], Sequence[float]]
Key = tuple[str, str]
"""Question id and observation."""

_MIN_RECENT = 100  # verdicts, before a judge whose replies are unreadable is given up
_LONGEST_PAUSE_SECONDS = 300.0
_POLL_SECONDS = 0.2  # how often a pause checks whether a stop was requested


class JudgeUnavailableError(Exception):
    """Training cannot go on without the judge: save a checkpoint and stop. One sentence why."""


@dataclass(frozen=True)
class JudgePatience:
    """Retry policy for an unavailable judge."""

    max_missing_share: float = 0.2
    """Above this share of a step's verdicts without a reply, training pauses."""
    pause_seconds: float = 10.0
    """The first pause; each further one is twice as long, 5 minutes at most."""
    max_pauses: int = 5
    """Pauses in a row after which training stops."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_missing_share <= 1:
            raise ValueError(
                f"max_missing_share must be a share from 0 to 1, got {self.max_missing_share}"
            )
        if self.pause_seconds < 0 or self.max_pauses < 0:
            raise ValueError("pause_seconds and max_pauses must not be negative")


@dataclass(frozen=True)
class JudgeUse:
    """The judge's part in the rewards of one step, in this process."""

    asked: int = 0
    """Rollouts whose perception reward needs a verdict."""
    missing: int = 0
    """Those of them that have none."""
    leaks: int = 0
    """Rollouts whose observation claims the answer: perception accuracy 0, no call."""
    pauses: int = 0
    seconds: float = 0.0
    """From the last completion to the last verdict."""
    seconds_waited: float = 0.0
    """How long training stood still for them."""
    stats: JudgeStats = field(default_factory=JudgeStats)
    """Calls, those begun ahead included."""

    def __add__(self, other: "JudgeUse") -> "JudgeUse":
        names = [each.name for each in fields(self)]
        return JudgeUse(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass
class _Asked:
    """One observation, how many rollouts wrote it, and its outcome once it is there."""

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
    """The verdicts of one step: `ask` about each rollout's observation, then `wait` once.

    `sum_over_processes` adds numbers up over all processes: all of them pause and stop together.
    When `stop_requested` returns True, a pause ends and training stops instead of asking again.
    `recent` holds (replies, unreadable ones) of earlier steps; this step's are added to it.
    """

    def __init__(
        self,
        judge: JudgeClient,
        patience: JudgePatience,
        sum_over_processes: SumOverProcesses = list,
        stop_requested: Callable[[], bool] = lambda: False,
        recent: deque[tuple[float, float]] | None = None,
    ) -> None:
        self._judge, self._patience = judge, patience
        self._sum_over_processes, self._stop_requested = sum_over_processes, stop_requested
        self._recent = deque() if recent is None else recent
        self._asked: dict[Key, _Asked] = {}
        self._num_leaks = self._num_pauses = 0
        self._seconds_waited = 0.0
        self._stats = JudgeStats()
        self._began = self._last_reply = time.monotonic()

    def ask(self, question: VideoQuestion, observation: str, output: str) -> Key:
        """Send one observation to the judge, unless the step has sent it before."""
        key = (question.question_id, observation)
        if key in self._asked:
            self._asked[key].rollouts += 1
        else:
            future = self._submit(question, observation, output)
            self._asked[key] = _Asked(question, observation, output, 1, future)
        return key

    def note_leak(self, question: VideoQuestion, observation: str, leak: str, output: str) -> None:
        """Record an observation that claims the answer (`leak`): no judge is asked about it."""
        self._judge.note_leak(question, observation, leak, output)
        self._num_leaks += 1

    def verdict(self, key: Key) -> Sufficiency:
        """The verdict on an observation. Call `wait` first."""
        outcome = self._asked[key].outcome
        assert outcome is not None
        return outcome.verdict

    @property
    def use(self) -> JudgeUse:
        """The judge's part in this step; complete after `wait`."""
        return JudgeUse(
            asked=_num_rollouts(self._asked.values()),
            missing=_num_rollouts(one for one in self._asked.values() if one.is_unscored),
            leaks=self._num_leaks,
            pauses=self._num_pauses,
            seconds=self._last_reply - self._began,
            seconds_waited=self._seconds_waited,
            stats=self._stats,
        )

    def wait(self) -> None:
        """Wait for every verdict; pause and ask again while too many have no reply.

        Raises JudgeUnavailableError where training must stop: the judge stays down, its replies are
        unreadable, or its budget is used up.
        """
        began = time.monotonic()
        try:
            self._wait()
        finally:
            self._seconds_waited = time.monotonic() - began
            self._stats = self._judge.take_stats()

    def _wait(self) -> None:
        while True:
            exhausted = self._collect()
            silent = [one for one in self._asked.values() if one.has_no_reply]
            asked, missing, unreadable, spent, stops = self._sums(exhausted, silent)
            if spent:
                raise JudgeUnavailableError(
                    exhausted or "the judge's budget is used up in another process"
                )
            if missing <= self._patience.max_missing_share * asked:
                break
            problem = (
                f"no reply of the judge {self._judge.spec} on {missing:.0f} of {asked:.0f}"
                f" observations of a step, more than {self._patience.max_missing_share:.0%}"
                f"{_last_failure(silent)}"
            )
            self._stop_or_pause(problem, bool(stops), silent)
            self._ask_again(silent)
        self._refuse_unreadable(asked - missing, unreadable)

    def _sums(self, exhausted: str, silent: Sequence[_Asked]) -> Sequence[float]:
        """Over all processes: asked, without a reply, unreadable, out of budget, to be stopped."""
        use, num_silent = self.use, _num_rollouts(silent)
        return self._sum_over_processes(
            [
                float(use.asked),
                float(num_silent),
                float(use.missing - num_silent),
                float(bool(exhausted)),
                float(self._stop_requested()),
            ]
        )

    def _stop_or_pause(self, problem: str, stops: bool, silent: Sequence[_Asked]) -> None:
        patience, judge = self._patience, self._judge
        if stops or self._num_pauses >= patience.max_pauses:
            judge.forget_failures(_failed_calls(silent))  # a resumed run asks again
            end = "and a stop was asked for" if stops else "given up"
            raise JudgeUnavailableError(f"{problem}; {end} after {self._num_pauses} pauses")
        seconds = min(patience.pause_seconds * 2**self._num_pauses, _LONGEST_PAUSE_SECONDS)
        self._num_pauses += 1
        number = f"{self._num_pauses} of {patience.max_pauses}"
        log.warning("%s; pausing for %g s, then asking again (%s)", problem, seconds, number)
        self._sleep(seconds)

    def _ask_again(self, silent: Sequence[_Asked]) -> None:
        self._judge.forget_failures(_failed_calls(silent))
        for one in silent:
            one.outcome = None
            one.future = self._submit(one.question, one.observation, one.output)

    def _refuse_unreadable(self, replied: float, unreadable: float) -> None:
        """Raise JudgeUnavailableError where too many of the last hundred or so are unreadable."""
        recent = self._recent
        recent.append((replied, unreadable))
        while sum(count for count, _ in recent) - recent[0][0] >= _MIN_RECENT:
            recent.popleft()
        total = sum(count for count, _ in recent)
        share = sum(bad for _, bad in recent) / total if total >= _MIN_RECENT else 0.0
        if share > self._patience.max_missing_share:
            raise JudgeUnavailableError(
                f"the judge {self._judge.spec} replies, but {share:.0%} of its last verdicts cannot"
                f" be read{self._reasons()}: give it more tokens or another prompt, or another"
                " judge"
            )

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stop_requested():
            time.sleep(min(left, _POLL_SECONDS))

    def _submit(
        self, question: VideoQuestion, observation: str, output: str
    ) -> "Future[SufficiencyOutcome]":
        future = self._judge.submit(question, observation, output=output)
        future.add_done_callback(self._note_reply)
        return future

    def _note_reply(self, future: "Future[SufficiencyOutcome]") -> None:
        self._last_reply = time.monotonic()

    def _collect(self) -> str:
        """Take the outcomes that are missing; the budget's error where it is used up, else ''."""
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
                self._last_reply = time.monotonic()
        return exhausted

    def _reasons(self) -> str:
        reasons = {
            one.outcome.verdict.unscored_reason.value
            for one in self._asked.values()
            if one.outcome and one.outcome.verdict.unscored_reason
        }
        return f" ({', '.join(sorted(reasons))})" if reasons else ""


def _num_rollouts(asked: Iterable[_Asked]) -> int:
    return sum(one.rollouts for one in asked)


def _failed_calls(silent: Sequence[_Asked]) -> list[str]:
    return [one.outcome.failed_call for one in silent if one.outcome and one.outcome.failed_call]


def _last_failure(silent: Sequence[_Asked]) -> str:
    failures = [one.outcome.failure for one in silent if one.outcome and one.outcome.failure]
    return f" (the last failure: {failures[-1].detail})" if failures else ""
