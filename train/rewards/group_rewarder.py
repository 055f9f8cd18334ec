"""Rewards of whole groups, with the judge and the reward functions at work in the background.

    rewarder.ask_ahead(question, text) # of a completion so far: the judge reads its observation
    ...                                # while the rest is sampled
    pending = rewarder.start(groups)   # the judge is asked about every other observation at once
    ...                                # the policy pass runs meanwhile
    rewards = pending.wait()

A missing verdict makes the perception reward missing (NaN), never 0.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from judges.answer_leaks import find_answer_leak
from judges.scoring.answer_score import GoldError
from schemas.questions import VideoQuestion
from schemas.samples import Sufficiency
from schemas.traces import Trace, TraceError, TraceTemplate, parse_trace, segment_spans
from train.rewards.judge_client import JudgeClient
from train.rewards.judge_health import (
    JudgePatience,
    JudgeUnavailableError,
    JudgeUse,
    Key,
    StepVerdicts,
    SumOverProcesses,
)
from train.rewards.pending_rewards import PendingRewards
from train.rewards.plan import RewardPlan
from train.rewards.reward_calls import RewardCall, RewardCalls, RewardError
from train.rewards.segment_rewards import (
    RewardConfig,
    answer_accuracy,
    perception_reward,
    reasoning_reward,
)
from train.rollouts.types import GroupRewards, Rollout, RolloutGroup, SegmentReward

__all__ = [
    "GroupRewarder",
    "JudgePatience",
    "JudgeUnavailableError",
    "JudgeUse",
    "RewardError",
]

_NOTHING_EARNED = Sufficiency("no")
_VERDICTS = {"yes": 1.0, "no": 0.0, "unscored": math.nan}
Place = tuple[int, int]
"""A rollout of a step: the number of its group, and its own in the group."""


@dataclass(frozen=True)
class _Step:
    """What is under way for the groups of a step."""

    groups: Sequence[RolloutGroup]
    verdicts: StepVerdicts | None
    keys: Mapping[Place, Key]
    """Of the rollouts that the judge was asked about."""
    reasoning: Mapping[Place, SegmentReward]
    """The default rewards of reasoning; empty without them."""

    def places(self) -> Iterator[tuple[Place, RolloutGroup, Rollout]]:
        for number, group in enumerate(self.groups):
            for own, rollout in enumerate(group.rollouts):
                yield (number, own), group, rollout

    def verdict(self, place: Place) -> Sufficiency | None:
        """Once it is there; None where the judge was not asked."""
        if self.verdicts is None or place not in self.keys:
            return None
        return self.verdicts.verdict(self.keys[place])


class GroupRewarder:
    """Rewards rollouts by `plan`, by default with accuracy + format + length of each segment.

    `config` has the weights and ranges of the default rewards. Perception has default rewards only
    with a judge. Reward functions that name `duration_seconds` or `frame_times` need the function
    of a question that gives them.

    An observation that claims the answer (`judges.answer_leaks`) is not sent to the judge, as in a
    build: its perception accuracy is 0 and its verdict None. `allow_leaks` sends it. `asks_ahead`
    has the judge begin while completions are still being sampled.

    With `sum_over_processes` all processes pause and stop together where the judge is down; each of
    them must call `start` and `wait` equally often. `stop_requested` ends a pause: `wait` raises.
    Close it at the end. Raises ValueError where the parts do not fit each other.
    """

    def __init__(
        self,
        template: TraceTemplate,
        config: RewardConfig,
        judge: JudgeClient | None,
        *,
        plan: RewardPlan | None = None,
        duration_seconds: Callable[[VideoQuestion], float] | None = None,
        frame_times: Callable[[VideoQuestion], Sequence[float]] | None = None,
        allow_leaks: bool = False,
        patience: JudgePatience | None = None,
        sum_over_processes: SumOverProcesses = list,
        stop_requested: Callable[[], bool] = lambda: False,
        asks_ahead: bool = True,
    ) -> None:
        self.template, self.config, self.judge = template, config, judge
        self.plan = plan or RewardPlan()
        self.allow_leaks = allow_leaks
        self._asks_ahead = asks_ahead
        self._media = {
            name: function
            for name, function in (
                ("duration_seconds", duration_seconds),
                ("frame_times", frame_times),
            )
            if function is not None
        }
        self._sum_over_processes = sum_over_processes
        self._new_step = partial(
            StepVerdicts,
            patience=patience or JudgePatience(),
            sum_over_processes=sum_over_processes,
            stop_requested=stop_requested,
            recent=deque(),
        )
        self._calls = RewardCalls()
        self._check()

    def close(self) -> None:
        """End the thread of the reward functions."""
        self._calls.close()

    def ask_ahead(self, question: VideoQuestion, text: str) -> bool:
        """Ask the judge about the observation of a completion that is still being sampled.

        Returns whether `text` need not be shown again as it grows. If the completion breaks its
        template later, the call was made for nothing.
        """
        if not self._asks_ahead or self.judge is None:
            return True
        observation = self.observation(text)
        if observation is None:
            return False
        if self.allow_leaks or find_answer_leak(question, observation) is None:
            self.judge.ask_ahead(question, observation)
        return True

    def start(self, groups: Sequence[RolloutGroup]) -> PendingRewards:
        """Ask the judge about every observation of a step at once, and return."""
        verdicts, keys = None, dict[Place, Key]()
        if self.judge is not None:
            verdicts = self._new_step(self.judge)
            keys = self._ask(verdicts, groups)
            self.judge.forget_ahead()
        # after the judge was asked: it works meanwhile
        step = _Step(groups, verdicts, keys, self._default_reasoning(groups))
        early = self._calls.start(self._reward_calls(step, late=False))
        return PendingRewards(
            partial(self._finish, step, early),
            JudgeUse if verdicts is None else lambda: verdicts.use,
        )

    def observation(self, text: str) -> str | None:
        """The observation of a completion without surrounding white space; None if malformed."""
        spans = [s for s in segment_spans(text, self.template) if s.role == "perception"]
        if len(spans) != sum(s.role == "perception" for s in self.template.segments):
            return None
        return "\n".join(text[span.inner_start : span.inner_end].strip() for span in spans)

    def _check(self) -> None:
        has_perception = any(s.role == "perception" for s in self.template.segments)
        if not has_perception and (self.judge is not None or self.plan.of("perception")):
            raise ValueError(
                f"template {self.template.name!r} has no perception segment, so there is nothing"
                " to judge or to reward there: leave the judge and perception's rewards out, or"
                " take another template"
            )
        if self.judge is None and (needing := self.plan.needing("verdict")):
            raise ValueError(f"the reward {needing[0]} needs a verdict, but there is no judge")
        for each in self.plan.named:
            needed = {"duration_seconds"} if "duration" in each.reward.needs else set()
            needed |= {name for name in ("frame_times",) if each.reward.reads(name)}
            if missing := sorted(needed - set(self._media)):
                what = missing[0].replace("_seconds", "").replace("_", " ")
                raise ValueError(f"the reward {each.label} needs the {what} of a question's video")

    def _ask(self, verdicts: StepVerdicts, groups: Sequence[RolloutGroup]) -> dict[Place, Key]:
        """Ask about each observation; malformed ones and those that claim the answer get no key."""
        keys = {}
        for number, group in enumerate(groups):
            for own, rollout in enumerate(group.rollouts):
                observation = self.observation(rollout.text)
                if observation is None:
                    continue
                leak = find_answer_leak(group.question, observation)
                if leak is not None and not self.allow_leaks:
                    verdicts.note_leak(group.question, observation, leak, rollout.text)
                    continue
                keys[number, own] = verdicts.ask(group.question, observation, rollout.text)
        return keys

    def _default_reasoning(self, groups: Sequence[RolloutGroup]) -> dict[Place, SegmentReward]:
        if "reasoning" not in self.plan.default:
            return {}
        return {
            (number, own): reasoning_reward(
                group.question, rollout.text, rollout.token_counts, self.template, self.config
            )
            for number, group in enumerate(groups)
            for own, rollout in enumerate(group.rollouts)
        }

    def _reward_calls(self, step: _Step, *, late: bool) -> list[RewardCall]:
        """Calls of the named rewards that wait for a verdict (`late`), or of the others."""
        named = [each for each in self.plan.named if each.reward.waits_for_verdict is late]
        if not named:
            return []
        wanted = {name for name in self._media if any(each.reward.reads(name) for each in named)}
        media = [
            {name: self._media[name](group.question) for name in wanted} for group in step.groups
        ]
        calls = []
        for place, group, rollout in step.places():
            common: dict[str, Any] = {
                "question": group.question,
                "completion": rollout.text,
                "trace": _trace(rollout.text, self.template),
                "token_counts": rollout.token_counts,
                "template": self.template,
                "settings": self.config,
                **media[place[0]],
            }
            if late:
                common["verdict"] = step.verdict(place)
            calls += [
                RewardCall(each, group.question, {**common, "segment": each.segment})
                for each in named
            ]
        return calls

    def _finish(self, step: _Step, early: "Future[list[float]]") -> list[GroupRewards]:
        if step.verdicts is not None:
            step.verdicts.wait()
        late = self._calls.start(self._reward_calls(step, late=True))
        problem, rewards = self._problem(early, late), list[GroupRewards]()
        if not problem:
            values = self._values(step, early, late)
            numbers = range(len(step.groups))
            rewards = [self._group_rewards(step, number, values) for number in numbers]
            problem = next(filter(None, map(_overflow, step.groups, rewards)), "")
        if self.plan.named:
            self._stop_together(problem)
        return rewards

    def _problem(self, *futures: "Future[list[float]]") -> str:
        """The sentence of the first reward function that failed; waits for all of them."""
        problem = ""
        for future in futures:
            error = self._calls.error_of(future)
            if isinstance(error, RewardError):
                problem = problem or str(error)
            elif error is not None:
                raise error
        return problem

    def _stop_together(self, problem: str) -> None:
        (num_failed,) = self._sum_over_processes([float(bool(problem))])
        if num_failed:
            raise RewardError(problem or "a reward function failed in another process")

    def _values(
        self, step: _Step, early: "Future[list[float]]", late: "Future[list[float]]"
    ) -> dict[str, dict[Place, float]]:
        """Of each named reward, by its label: the value of each rollout."""
        named = self.plan.named
        values: dict[str, dict[Place, float]] = {each.label: {} for each in named}
        for future, is_late in ((early, False), (late, True)):
            numbers = iter(future.result())
            own = [each for each in named if each.reward.waits_for_verdict is is_late]
            for place, _, _ in step.places():
                for each in own:
                    values[each.label][place] = next(numbers)
        return values

    def _group_rewards(
        self, step: _Step, number: int, values: Mapping[str, Mapping[Place, float]]
    ) -> GroupRewards:
        group = step.groups[number]
        places = [(number, own) for own in range(group.size)]
        verdicts = tuple(step.verdict(place) for place in places)
        reasoning, perception = [], []
        for place, rollout, verdict in zip(places, group.rollouts, verdicts, strict=True):
            own = {label: found[place] for label, found in values.items()}
            answered = partial(self._answer_accuracy, group.question, rollout.text)
            base = step.reasoning.get(place)
            reasoning.append(self.plan.segment_reward("reasoning", own, base, answered))
            base = self._default_perception(rollout, verdict)
            if base is not None or self.plan.of("perception"):
                judged = partial(_verdict_accuracy, verdict, has_judge=self.judge is not None)
                perception.append(self.plan.segment_reward("perception", own, base, judged))
        named = {label: tuple(found[place] for place in places) for label, found in values.items()}
        return GroupRewards(tuple(reasoning), tuple(perception) or None, verdicts, named)

    def _default_perception(
        self, rollout: Rollout, verdict: Sufficiency | None
    ) -> SegmentReward | None:
        if self.judge is None or "perception" not in self.plan.default:
            return None
        counts, earned = rollout.token_counts, verdict or _NOTHING_EARNED
        return perception_reward(rollout.text, counts, earned, self.template, self.config)

    def _answer_accuracy(self, question: VideoQuestion, text: str) -> float:
        """Of rollouts that no reward scores: for metrics, and for what reads who is correct."""
        try:
            return answer_accuracy(question, text, self.config)
        except GoldError:
            return math.nan


def _overflow(group: RolloutGroup, rewards: GroupRewards) -> str:
    """A sentence where the weighted sum of a rollout's rewards is infinite."""
    segments = {"reasoning": rewards.reasoning, "perception": rewards.perception or ()}
    for segment, of_segment in segments.items():
        if any(math.isinf(reward.total) for reward in of_segment):
            question = group.question
            return (
                f"the weighted sum of the rewards of {segment} of question {question.question_id}"
                f" (row {question.row}) is infinite; give smaller values or weights"
            )
    return ""


def _verdict_accuracy(verdict: Sufficiency | None, *, has_judge: bool) -> float:
    if not has_judge:
        return math.nan
    return 0.0 if verdict is None else _VERDICTS[verdict.verdict]


def _trace(text: str, template: TraceTemplate) -> Trace | None:
    try:
        return parse_trace(text, template)
    except TraceError:
        return None
