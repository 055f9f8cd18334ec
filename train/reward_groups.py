"""Rewards of whole groups, with the judge asked in the background.

    rewarder.ask_ahead(question, text) # of a completion so far: the judge reads its observation
    ...                                # while the rest is drawn
    pending = rewarder.start(groups)   # the judge is asked about every other observation at once
    ...                                # the policy pass runs meanwhile
    rewards = pending.wait()

A verdict that is missing makes the perception reward missing (NaN), never 0, and its share is told.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from judges.leaks import find_answer_leak
from schemas.questions import VideoQuestion
from schemas.traces import TraceTemplate, segment_spans
from schemas.verdicts import Sufficiency
from train.judge_calls import JudgeCalls
from train.judge_options import JudgeStats
from train.rewards import (
    PUBLISHED,
    PublishedReward,
    RewardConfig,
    SegmentReward,
    perception_reward,
    published_accuracy,
    reasoning_reward,
)
from train.rollout_groups import GroupRewards, Rollout, RolloutGroup
from train.step_verdicts import (
    JudgeHealth,
    JudgePatience,
    JudgeUnavailableError,
    Key,
    StepVerdicts,
    SumOverProcesses,
)

__all__ = [
    "GroupRewarder",
    "JudgePatience",
    "JudgeUnavailableError",
    "JudgeUse",
    "PendingRewards",
]

_NOTHING_EARNED = Sufficiency("no")


@dataclass(frozen=True)
class JudgeUse:
    """What the rewards of one step asked of the judge, in this process."""

    asked: int = 0
    """Rollouts whose perception reward needs a verdict."""
    missing: int = 0
    """Those of them that have none."""
    leaks: int = 0
    """Rollouts whose observation claims the answer: perception accuracy 0, nothing asked."""
    distinct: int = 0
    """Observations that were sent: equal ones of a question are sent once."""
    pauses: int = 0
    seconds: float = 0.0
    """From when the completions were there until the last verdict was."""
    seconds_waited: float = 0.0
    """How long training stood still for them."""
    stats: JudgeStats = field(default_factory=JudgeStats)
    """Calls that were begun ahead included."""

    def __add__(self, other: "JudgeUse") -> "JudgeUse":
        names = [each.name for each in fields(self)]
        return JudgeUse(**{name: getattr(self, name) + getattr(other, name) for name in names})


class GroupRewarder:
    """Rewards rollouts by `train.rewards`.

    Without a judge there are no perception rewards. `published` gives names of `train.rewards.
    PUBLISHED` with weights: their sum is the reasoning reward then, with accuracy, format and
    length kept apart in its terms; rewards in seconds need `duration_seconds` of a question's
    video.

    An observation that claims the answer (`judges.leaks`) is not sent to the judge, as in a build:
    its perception accuracy is 0 and its verdict None. `allow_leaks` sends it. `asks_ahead` has the
    judge begin while completions are still being drawn.

    With `sum_over_processes` all processes pause and stop together where the judge is down; each of
    them must call `start` and `wait` equally often. `stop_requested` ends a pause: `wait` raises.
    """

    def __init__(
        self,
        template: TraceTemplate,
        config: RewardConfig,
        judge: JudgeCalls | None,
        *,
        published: Mapping[str, float] | None = None,
        duration_seconds: Callable[[VideoQuestion], float] | None = None,
        allow_leaks: bool = False,
        patience: JudgePatience | None = None,
        sum_over_processes: SumOverProcesses = list,
        stop_requested: Callable[[], bool] = lambda: False,
        asks_ahead: bool = True,
    ) -> None:
        if judge is not None and not any(s.role == "perception" for s in template.segments):
            raise ValueError(
                f"template {template.name!r} has no perception segment, so there is nothing for a"
                " judge to read: leave the judge out, or take another template"
            )
        if unknown := sorted(set(published or ()) - set(PUBLISHED)):
            raise ValueError(f"rewards are {', '.join(PUBLISHED)}; got {', '.join(unknown)}")
        if "next-gqa-tiou" in (published or ()) and duration_seconds is None:
            raise ValueError("the reward next-gqa-tiou needs the duration of a question's video")
        self.template, self.config, self.judge = template, config, judge
        self.allow_leaks = allow_leaks
        self._asks_ahead = asks_ahead
        self._stats = judge.stats() if judge else JudgeStats()
        self.health = None
        if judge is not None:
            self.health = JudgeHealth(
                judge, patience or JudgePatience(), sum_over_processes, stop_requested
            )
        self._published = dict(published or {})
        self._duration_seconds = duration_seconds or (lambda question: 0.0)

    def ask_ahead(self, question: VideoQuestion, text: str) -> bool:
        """Ask the judge about the observation of a completion that is still being drawn.

        Whether `text` need not be shown again as it grows. What the completion comes to is not
        known yet: where it breaks its template later, the call was made for nothing.
        """
        if not self._asks_ahead or self.judge is None:
            return True
        observation = self.observation(text)
        if observation is None:
            return False
        if self.allow_leaks or find_answer_leak(question, observation) is None:
            self.judge.ask_ahead(question, observation)
        return True

    def start(self, groups: Sequence[RolloutGroup]) -> "PendingRewards":
        """Ask the judge about every observation of a step at once, and return."""
        pending = PendingRewards(self, groups)
        if self.judge is not None:
            self.judge.forget_ahead()
        return pending

    def new_stats(self) -> JudgeStats:
        """What was asked of the judge since this was asked last."""
        before, self._stats = self._stats, self.judge.stats() if self.judge else JudgeStats()
        return self._stats - before

    def observation(self, text: str) -> str | None:
        """The observation of a completion without surrounding white space; None if malformed."""
        spans = [s for s in segment_spans(text, self.template) if s.role == "perception"]
        if len(spans) != sum(s.role == "perception" for s in self.template.segments):
            return None
        return "\n".join(text[span.inner_start : span.inner_end].strip() for span in spans)

    def reasoning(self, question: VideoQuestion, rollout: Rollout) -> SegmentReward:
        """The reasoning reward of a rollout, or what the published rewards make of it."""
        if not self._published:
            return reasoning_reward(
                question, rollout.text, rollout.token_counts, self.template, self.config
            )
        duration = self._duration_seconds(question)

        def value(reward: PublishedReward) -> float:
            return reward(rollout.text, question, duration)

        values = {name: value(PUBLISHED[name]) for name in self._published}
        return SegmentReward(
            accuracy=value(published_accuracy),
            format=max((v for name, v in values.items() if name.endswith("-format")), default=0.0),
            length=values.get("think-length", 0.0),
            total=sum(weight * values[name] for name, weight in self._published.items()),
        )


class PendingRewards:
    """The rewards of a step's groups, on their way. `GroupRewarder.start` makes it."""

    def __init__(self, rewarder: GroupRewarder, groups: Sequence[RolloutGroup]) -> None:
        self._rewarder = rewarder
        self._groups = tuple(groups)
        self._num_leaks = 0
        self._seconds_waited = 0.0
        self._stats = JudgeStats()
        self._rewards: list[GroupRewards] | None = None
        self._verdicts: StepVerdicts | None = None
        self._keys: list[list[Key | None]] = []
        if rewarder.judge is not None and rewarder.health is not None:
            self._verdicts = StepVerdicts(rewarder.health)
            for group in groups:
                keys = [
                    self._ask(rewarder.judge, self._verdicts, group, one) for one in group.rollouts
                ]
                self._keys.append(keys)
        # after the judge was asked: it works meanwhile
        self._reasoning = [
            tuple(rewarder.reasoning(group.question, one) for one in group.rollouts)
            for group in groups
        ]

    def wait(self) -> list[GroupRewards]:
        """The rewards of each group, in order; a second call returns them again.

        Raises JudgeUnavailableError where training must stop: the judge stays down, its replies
        cannot be read, or its budget is used up.
        """
        if self._rewards is None:
            if self._verdicts is not None and self._rewarder.judge is not None:
                began = time.monotonic()
                try:
                    self._verdicts.settle()
                finally:
                    self._seconds_waited = time.monotonic() - began
                    self._stats = self._rewarder.new_stats()
            self._rewards = [self._group_rewards(place) for place in range(len(self._groups))]
        return self._rewards

    def missing_share(self) -> float:
        """Share of the rollouts asked about that have no verdict; NaN where none was asked about.

        Call `wait` first.
        """
        use = self.use
        return use.missing / use.asked if use.asked else math.nan

    @property
    def use(self) -> JudgeUse:
        """What was asked of the judge; complete after `wait`."""
        verdicts = self._verdicts
        if verdicts is None:
            return JudgeUse()
        return JudgeUse(
            asked=verdicts.num_asked,
            missing=verdicts.num_missing,
            leaks=self._num_leaks,
            distinct=verdicts.num_distinct,
            pauses=verdicts.num_pauses,
            seconds=verdicts.last_reply - verdicts.began,
            seconds_waited=self._seconds_waited,
            stats=self._stats,
        )

    def _ask(
        self, judge: JudgeCalls, verdicts: StepVerdicts, group: RolloutGroup, rollout: Rollout
    ) -> Key | None:
        """Ask about a rollout's observation; None where no verdict is needed."""
        observation = self._rewarder.observation(rollout.text)
        if observation is None:
            return None
        leak = find_answer_leak(group.question, observation)
        if leak is not None and not self._rewarder.allow_leaks:
            judge.note_leak(group.question, observation, leak, rollout.text)
            self._num_leaks += 1
            return None
        return verdicts.ask(group.question, observation, rollout.text)

    def _group_rewards(self, place: int) -> GroupRewards:
        group, reasoning = self._groups[place], self._reasoning[place]
        if self._verdicts is None:
            return GroupRewards(reasoning, None, (None,) * group.size)
        verdicts = tuple(
            None if key is None else self._verdicts.verdict(key) for key in self._keys[place]
        )
        perception = tuple(
            perception_reward(
                one.text,
                one.token_counts,
                verdict or _NOTHING_EARNED,
                self._rewarder.template,
                self._rewarder.config,
            )
            for one, verdict in zip(group.rollouts, verdicts, strict=True)
        )
        return GroupRewards(reasoning, perception, verdicts)
