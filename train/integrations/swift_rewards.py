"""Our rewards for ms-swift (4.6.0), as reward classes for its table `orms`.

A file for `--external_plugins`, and `--reward_funcs p2r` beside it:

    from swift.rewards import orms
    from train.integrations.swift_rewards import register
    register(orms)

P2R_REWARDS names the YAML file of options. ms-swift counts a missing reward as 0 (`nansum`), so a
missing one is returned as the mean of those of its group that are there: its advantage is then
exactly 0, and the mean that the others are compared with is theirs. The group's standard deviation
is that of all `num_generations`, sqrt((m - 1) / (n - 1)) times that of the m present ones.
"""

import math
from collections.abc import MutableMapping, Sequence
from typing import Any

from cli.config import UsageError
from train.integrations.completion_rewards import (
    CompletionReward,
    question_of,
    shared_rewarder,
)


class P2rReward:
    """Perception and reasoning together. ms-swift makes one for each name in `--reward_funcs`."""

    def __init__(self, args: Any = None, **_: Any) -> None:
        self._group_size = getattr(args, "num_generations", None)

    def __call__(
        self,
        completions: Sequence[str],
        question: Sequence[object] | None = None,
        response_token_ids: Sequence[Sequence[Any] | None] | None = None,
        prompt_id: Sequence[object] | None = None,
        **_: Any,
    ) -> list[float]:
        """One number for each completion; a missing one is its group's mean.

        Raises UsageError where the dataset has no column `question`, or where a value is missing in
        a group that lies across processes.
        """
        if question is None:
            raise UsageError(
                "the dataset has no column question; write its rows by"
                " train.integrations.rows.swift_row"
            )
        rewards = _rewards(completions, question, response_token_ids)
        values = [self.number(reward) for reward in rewards]
        return filled(values, prompt_id or list(question), self._group_size)

    def number(self, reward: CompletionReward) -> float:
        """What this class learns from; NaN = missing."""
        return reward.total


class P2rPerception(P2rReward):
    """Perception alone."""

    def number(self, reward: CompletionReward) -> float:
        """Raises UsageError where nothing rewards perception."""
        if reward.perception is None:
            raise UsageError(
                "nothing rewards perception: the options have no judge and no perception reward"
            )
        return reward.perception.total


class P2rReasoning(P2rReward):
    """Reasoning alone."""

    def number(self, reward: CompletionReward) -> float:
        """The reasoning reward."""
        return reward.reasoning.total


def register(orms: MutableMapping[str, Any]) -> None:
    """Add `p2r`, `p2r_perception` and `p2r_reasoning` to ms-swift's table."""
    orms.update(p2r=P2rReward, p2r_perception=P2rPerception, p2r_reasoning=P2rReasoning)


def filled(
    values: Sequence[float], groups: Sequence[object], group_size: int | None
) -> list[float]:
    """Each NaN as the mean of the present values of its group, or 0 where the group has none.

    A group with none present is all 0: flat, so it teaches nothing. Raises UsageError where a group
    with a missing value does not have its `group_size` members here.
    """
    present: dict[object, list[float]] = {group: [] for group in groups}
    for value, group in zip(values, groups, strict=True):
        if not math.isnan(value):
            present[group].append(value)
    members = list(groups)
    result = []
    for value, group in zip(values, groups, strict=True):
        if math.isnan(value):
            here = members.count(group)
            if group_size is not None and here % group_size:
                raise UsageError(
                    f"a reward is missing in a group of which {here} of {group_size} completions"
                    " are in this process, so its mean is not known here; make"
                    " per_device_train_batch_size times steps_per_generation a multiple of"
                    " num_generations"
                )
            value = sum(present[group]) / len(present[group]) if present[group] else 0.0
        result.append(value)
    return result


_last: tuple[Sequence[str], list[CompletionReward]] = ((), [])


def _rewards(
    completions: Sequence[str],
    question: Sequence[object],
    response_token_ids: Sequence[Sequence[Any] | None] | None,
) -> list[CompletionReward]:
    """Judged once for all reward classes: ms-swift hands each of them the very same list."""
    global _last
    if _last[0] is not completions:
        questions = [question_of(value) for value in question]
        ids = [_flat(each) for each in response_token_ids or ()]
        whole = ids if ids and all(ids) else None
        _last = (completions, shared_rewarder().rewards(questions, completions, whole))
    return _last[1]


def _flat(token_ids: Sequence[Any] | None) -> list[int]:
    """Token ids of all turns; an engine that gives none gives None or an empty list."""
    nested = token_ids or ()
    return [
        int(i) for turn in nested for i in (turn if isinstance(turn, list | tuple) else (turn,))
    ]
