"""Which rewards a run uses, for which segment and with which weight: the words of `--reward`.

    [perception:|reasoning:]NAME[=WEIGHT]              a reward of the table
    [perception:|reasoning:]FILE.py:FUNCTION[=WEIGHT]  a function of the user's own
    [perception:|reasoning:]default                    accuracy + format + length

The segment is reasoning and the weight 1 unless given.
"""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from cli.config import UsageError
from cli.plugins import load_plugin
from schemas.traces import TraceTemplate
from train.rewards.published import grounding_weights
from train.rewards.registry import REWARDS, Reward, Term, reward_of
from train.rewards.segment_rewards import Role
from train.rollouts.types import SegmentReward

DEFAULT = "default"
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class NamedReward:
    """A reward with its place in the sum of a segment."""

    reward: Reward
    segment: Role = "reasoning"
    weight: float = 1.0
    label: str = ""
    """Its name in metrics (`rewards/LABEL`) and records."""


@dataclass(frozen=True)
class RewardPlan:
    """The rewards of a run."""

    default: frozenset[Role] = frozenset(ROLES)
    """Segments with the default reward: accuracy + format + length."""
    named: tuple[NamedReward, ...] = ()

    def of(self, segment: Role) -> tuple[NamedReward, ...]:
        """The named rewards of a segment."""
        return tuple(each for each in self.named if each.segment == segment)

    def rewards(self, segment: Role) -> bool:
        """Whether anything rewards this segment."""
        return segment in self.default or bool(self.of(segment))

    def needing(self, need: str) -> list[str]:
        """Labels of the named rewards that need something."""
        return [each.label for each in self.named if need in each.reward.needs_in(each.segment)]

    def segment_reward(
        self,
        segment: Role,
        values: Mapping[str, float],
        base: SegmentReward | None,
        accuracy: Callable[[], float],
    ) -> SegmentReward:
        """A rollout's reward of one segment, from its default reward and its named ones.

        `values` has the named rewards by label, `base` the default reward if there is one, else
        the terms are those of the named rewards, and `accuracy` gives the accuracy where none of
        them stands for it. A missing value (NaN) makes the sum missing.
        """
        named = self.of(segment)
        total = sum(each.weight * values[each.label] for each in named)
        if base is not None:
            return replace(base, total=base.total + total) if named else base
        terms = {
            term: [values[each.label] for each in named if each.reward.term == term]
            for term in get_args(Term)
        }
        return SegmentReward(
            accuracy=_largest(terms["accuracy"]) if terms["accuracy"] else accuracy(),
            format=_largest(terms["format"]),
            length=_largest(terms["length"]),
            total=float(total),
        )

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each named reward, by its label."""
        return {each.label: each.weight for each in self.named}


def read_rewards(
    words: Sequence[str], template: TraceTemplate, *, integer_seconds: bool = False
) -> RewardPlan:
    """The plan for the words of `--reward`; no word is `default`.

    Templates with times (grounding) have APPO's rewards by default: accuracy + 0.1 format + time
    IoU, in real seconds unless `integer_seconds`. Raises UsageError for a word that cannot be read,
    an unknown name, a file or function that is not there, and two rewards of one name.
    """
    has_times = any(segment.tag == "time" for segment in template.segments)
    default: set[Role] = set()
    named: list[NamedReward] = []
    for word in words or (DEFAULT,):
        segment, rest = _segment(word)
        if rest.partition("=")[0] != DEFAULT:
            named.append(_named(word, rest, segment or "reasoning"))
        elif rest != DEFAULT:
            raise UsageError(
                f"--reward {word}: the default rewards have weights of their own"
                " (--accuracy-weight, --format-weight, --length-weight); write"
                f" {word.partition('=')[0]}"
            )
        elif has_times:
            weights = grounding_weights(integer_seconds=integer_seconds)
            named += [NamedReward(REWARDS[name], weight=w) for name, w in weights.items()]
        else:
            default |= {segment} if segment else set(ROLES)
    return RewardPlan(frozenset(default), _labelled(named))


def plan_of(weights: Mapping[str, float]) -> RewardPlan:
    """A plan of these rewards of the table alone, all of them for reasoning. Raises UsageError."""
    return RewardPlan(
        frozenset(),
        _labelled([NamedReward(_known(name, name), weight=w) for name, w in weights.items()]),
    )


def _largest(values: Sequence[float]) -> float:
    """0 without values, NaN where all are missing."""
    present = [value for value in values if not math.isnan(value)]
    return max(present, default=math.nan) if values else 0.0


def reward_names() -> str:
    """The names of the table, for help texts."""
    return ", ".join(sorted(REWARDS))


def _segment(word: str) -> tuple[Role | None, str]:
    for role in ROLES:
        if word.startswith(f"{role}:"):
            return role, word.removeprefix(f"{role}:")
    return None, word


def _named(word: str, rest: str, segment: Role) -> NamedReward:
    target, colon, tail = rest.rpartition(":")
    name, equals, weight = tail.partition("=")
    found = _from_file(word, target, name) if colon else _known(word, name)
    return NamedReward(found, segment, _weight(word, weight) if equals else 1.0)


def _weight(word: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UsageError(
            f"--reward {word}: the weight {text!r} is no finite number; write NAME=WEIGHT, for"
            " example accuracy=0.9"
        )
    return weight


def _known(word: str, name: str) -> Reward:
    if name in REWARDS:
        return REWARDS[name]
    near = difflib.get_close_matches(name, [*REWARDS, DEFAULT], n=1)
    hint = f"did you mean {near[0]}?" if near else "write FILE.py:FUNCTION for one of your own."
    raise UsageError(
        f"--reward {word}: no reward is called {name!r}; {hint} There are {reward_names()} and"
        f" {DEFAULT}"
    )


def _from_file(word: str, target: str, name: str) -> Reward:
    try:
        module = load_plugin(target)
    except UsageError as error:
        is_word = not target.endswith(".py") and "/" not in target
        hint = f"; segments are {' and '.join(ROLES)}" if is_word else ""
        raise UsageError(str(error).replace("--plugin", "--reward", 1) + hint) from None
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"--reward {word}: {target} holds no function {name!r}; name one of its")
    try:
        return reward_of(function)
    except ValueError as error:
        raise UsageError(f"--reward {word}: {error}") from None


def _labelled(named: Iterable[NamedReward]) -> tuple[NamedReward, ...]:
    """With labels: the name, and for the perception part of a reward of both segments also that."""
    named = list(named)
    segments: dict[str, set[Role]] = {}
    for each in named:
        segments.setdefault(each.reward.name, set()).add(each.segment)
    labelled = []
    for each in named:
        name = each.reward.name
        is_second = each.segment == "perception" and len(segments[name]) > 1
        label = f"perception:{name}" if is_second else name
        labelled.append(NamedReward(each.reward, each.segment, each.weight, label))
    _refuse_duplicates(labelled)
    return tuple(labelled)


def _refuse_duplicates(named: Sequence[NamedReward]) -> None:
    twice = [label for label, count in Counter(each.label for each in named).items() if count > 1]
    names: dict[str, Reward] = {}
    for each in named:
        if names.setdefault(each.reward.name, each.reward).function is not each.reward.function:
            twice.append(each.reward.name)
    if twice:
        raise UsageError(
            f"--reward gives {twice[0]} twice, and each reward is logged under its name; keep one,"
            " or rename a function"
        )
