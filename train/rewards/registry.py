"""The table of rewards: those that ship, and those that `@reward` adds.

    @reward("brevity")
    def brevity(completion, **_):
        return 1.0 if len(completion) < 400 else 0.0

`--reward brevity=0.5` then adds half of it to the reward of reasoning, `--reward
perception:brevity` to that of perception. A reward is a function, plain or async, of the keyword
arguments in `ARGUMENTS` that it names. It returns a number, or None where its value is missing: a
missing value is left out of the statistics of its group and never counts as 0.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

RewardFunction = Callable[..., Any]
Term = Literal["accuracy", "format", "length"]
Need = Literal["verdict", "perception:verdict", "time_clues", "duration", "token_range"]
F = TypeVar("F", bound=RewardFunction)

ARGUMENTS: Mapping[str, str] = {
    "question": "the question (schemas.questions.VideoQuestion)",
    "completion": "the completion as text",
    "trace": "its segments (schemas.traces.Trace), or None where it breaks its template",
    "token_counts": "tokens between the tags of each well-formed segment, by the tag's name",
    "segment": "`perception` or `reasoning`: whose advantage the reward enters",
    "template": "the trace template (schemas.traces.TraceTemplate)",
    "settings": "weights, ranges and bonus (train.rewards.segment_rewards.RewardConfig)",
    "verdict": "the judge's verdict on its observation (schemas.samples.Sufficiency), or None"
    " where the judge was not asked",
    "frame_times": "seconds of the frames that the model saw, one for each temporal cell",
    "duration_seconds": "length of the question's first video; 0 without one",
}
"""What a reward may name among its parameters. More may come, so a function ends in `**_`."""

ON_DEMAND: Mapping[str, frozenset[str]] = {
    "verdict": frozenset({"verdict", "perception:verdict"}),
    "frame_times": frozenset(),
    "duration_seconds": frozenset({"duration"}),
}
"""Arguments that take time to get: a function is given one if it names it, or has one of these
needs."""


@dataclass(frozen=True)
class Reward:
    """A reward by name.

    Raises ValueError for a name that cannot be written, for an unknown need or term, and for a
    function with a parameter that no reward gets.
    """

    name: str
    function: RewardFunction
    needs: frozenset[Need] = frozenset()
    """What must be there: the judge's `verdict` (`perception:verdict`: only where it rewards
    perception), questions with `time_clues`, the `duration` of the video, completions as
    long as --perception-tokens or --reasoning-tokens (`token_range`)."""
    term: Term | None = None
    """The term that its value stands for in metrics and pages, and, as `accuracy`, in the choice of
    correct rollouts."""

    def __post_init__(self) -> None:
        if not self.name or any(character in self.name for character in ":=/ \t\n"):
            raise ValueError(
                f"a reward cannot be called {self.name!r}: a name has no colon, no equals sign, no"
                " slash and no white space"
            )
        if self.term is not None and self.term not in get_args(Term):
            raise ValueError(
                f"the reward {self.name} has the term {self.term!r}; expected one of"
                f" {', '.join(get_args(Term))}, or none"
            )
        if unknown := sorted(set[str](self.needs) - {*get_args(Need)}):
            raise ValueError(
                f"the reward {self.name} needs {', '.join(unknown)}; expected needs are"
                f" {', '.join(get_args(Need))}"
            )
        for name, parameter in self._parameters.items():
            is_needed = parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            )
            if is_needed and name not in ARGUMENTS:
                raise ValueError(
                    f"the reward {self.name} has a parameter {name!r}, which no reward is given;"
                    f" there are {', '.join(ARGUMENTS)}"
                )

    @property
    def waits_for_verdict(self) -> bool:
        """Whether it is called once the judge has answered; the others are called before."""
        return self.reads("verdict")

    def needs_in(self, segment: str) -> set[str]:
        """Its needs where it rewards `segment`."""
        prefix = f"{segment}:"
        return {
            need.removeprefix(prefix)
            for need in self.needs
            if ":" not in need or need.startswith(prefix)
        }

    def reads(self, argument: str) -> bool:
        """Whether the function is given this argument."""
        if argument in self._parameters:
            return True
        takes_more = any(each.kind is each.VAR_KEYWORD for each in self._parameters.values())
        return takes_more and (argument not in ON_DEMAND or bool(self.needs & ON_DEMAND[argument]))

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters


REWARDS: dict[str, Reward] = {}
"""Every reward that has a name. `train.rewards.plan` imports those that ship."""


def register_reward(entry: Reward) -> Reward:
    """Add a reward to the table. Raises ValueError where its name is taken.

    The same function again, as from a notebook's cell that is run twice, takes its own place.
    """
    known = REWARDS.get(entry.name)
    is_taken = known is not None and _origin(known.function) != _origin(entry.function)
    if is_taken or entry.name == "default":
        raise ValueError(f"there is a reward called {entry.name!r} already; take another name")
    REWARDS[entry.name] = entry
    return entry


def _origin(function: RewardFunction) -> tuple[str, str]:
    kind = type(function)
    return function.__module__, getattr(function, "__qualname__", f"{kind.__qualname__}()")


def reward(name: str, *, needs: Iterable[Need] = (), term: Term | None = None) -> Callable[[F], F]:
    """Register the function below as the reward `name`; see `Reward` for `needs` and `term`.

    Raises TypeError where no name is given, ValueError where `needs` is one word.
    """
    if not isinstance(name, str):
        raise TypeError('@reward is given no name; write @reward("NAME") above the function')
    if isinstance(needs, str):
        raise ValueError(f"the reward {name} needs {needs!r}, one word; write needs={{{needs!r}}}")

    def register(function: F) -> F:
        register_reward(Reward(name, function, frozenset(needs), term))
        return function

    return register


def reward_of(function: RewardFunction) -> Reward:
    """The entry of a function that `@reward` has registered, else a new one of its own name.

    The new one is not added to the table.
    """
    known = next((each for each in REWARDS.values() if each.function is function), None)
    name = getattr(function, "__name__", type(function).__name__)
    return known or Reward(name, function)
