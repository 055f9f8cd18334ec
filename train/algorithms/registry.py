"""The algorithms of `--algo`: what each name means, and how to add one.

An algorithm is an advantage function, settings of TRL's loss, and, behind a `+`, a token weighting.
The loss itself never learns its name.

    register_advantage(Advantage("mine", my_advantages))
    register_algorithm(AlgoSpec("mine-grpo", "mine", True, "grpo", 0.04, 0.2, 0.2))
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Literal, get_args

from cli.config import Config
from train.algorithms.appo_weighting import AppoWeighting
from train.algorithms.token_weighting import MetricKind, TokenWeighting

GroupReward = Literal["reasoning", "sum"]
LossType = Literal["grpo", "dapo", "dr_grpo"]


@dataclass(frozen=True)
class Advantage:
    """An advantage function by name.

    It is called as function(perception, reasoning, segment_ids, scale=...): totals float64 [G] of
    each segment's rewards (perception None where nothing rewards it; NaN = missing) and long [G, N]
    (1 perception, 2 reasoning, 0 behind a completion's end) -> advantages [G, N]. What it gives
    behind an end is not read. `scale` divides by the group's standard deviation.
    """

    name: str
    function: Callable[..., Any] | str
    """The function, or `module:function`, imported when it is first used."""
    reads_perception: bool = False
    """Whether it reads perception's rewards. One that does not is given as `reasoning` what
    --group-reward asks for."""

    def load(self) -> Callable[..., Any]:
        """The function itself."""
        if not isinstance(self.function, str):
            return self.function
        module, _, name = self.function.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function


@dataclass(frozen=True)
class AlgoSpec:
    """The meaning of an algorithm's name; an option that the user gives wins over these values."""

    name: str
    advantages: str
    """Name of its advantage function: `group` gives one advantage per rollout, `segment` separate
    ones for perception and reasoning tokens."""
    scale: bool
    """Whether advantages are divided by the group's standard deviation."""
    loss_type: LossType
    """TRL's `loss_type`: how token losses are averaged."""
    beta: float
    """Weight of the KL penalty against the reference model; 0 needs no reference model."""
    epsilon: float
    """The importance ratio is kept above 1 - epsilon."""
    epsilon_high: float
    """The importance ratio is kept below 1 + epsilon_high."""
    weighting: str = ""
    """Name of the token weighting whose factors multiply the policy term."""


ADVANTAGES: dict[str, Advantage] = {}
TOKEN_WEIGHTINGS: dict[str, type[TokenWeighting]] = {}
ALGORITHMS: dict[str, AlgoSpec] = {}
"""Every name of `--algo`: each algorithm, plain and with each token weighting."""


def register_advantage(advantage: Advantage) -> None:
    """Add an advantage function.

    Raises ValueError where its name is taken, or for what is neither a function nor
    `module:function`.
    """
    _refuse_taken("an advantage function", advantage.name, ADVANTAGES)
    function = advantage.function
    if not (":" in function if isinstance(function, str) else callable(function)):
        raise ValueError(
            f"the advantage function {advantage.name} is {function!r}; give a function, or"
            " 'module:function'"
        )
    ADVANTAGES[advantage.name] = advantage


def register_algorithm(spec: AlgoSpec) -> None:
    """Add an algorithm, which is then there with every token weighting, too.

    Raises ValueError where its name is taken or cannot be written, its advantages, its loss or its
    token weighting are unknown, or a setting is no number.
    """
    _refuse_taken("an algorithm", spec.name, ALGORITHMS)
    if spec.advantages not in ADVANTAGES:
        raise ValueError(
            f"algorithm {spec.name!r} has advantages {spec.advantages!r}, which are not registered;"
            f" there are {', '.join(ADVANTAGES)}"
        )
    if spec.weighting and spec.weighting not in TOKEN_WEIGHTINGS:
        raise ValueError(
            f"algorithm {spec.name!r} has the token weighting {spec.weighting!r}, which is not"
            f" registered; there are {', '.join(TOKEN_WEIGHTINGS)}"
        )
    _check_settings(spec)
    ALGORITHMS[spec.name] = spec
    for name in () if spec.weighting else TOKEN_WEIGHTINGS:
        _add_weighted(spec, name)


def register_token_weighting(weighting: type[TokenWeighting]) -> None:
    """Add a token weighting: every algorithm is then there with it, and `train.rl` has its options.

    Raises ValueError where its name is taken or cannot be written, for an option or a metric that
    does not begin with it, and for a metric of an unknown kind.
    """
    name = weighting.name
    _refuse_taken("a token weighting", name, TOKEN_WEIGHTINGS)
    if not (isinstance(weighting.options, type) and issubclass(weighting.options, Config)):
        raise ValueError(f"options of the token weighting {name} are no class; derive from Config")
    for kind, names, prefix in (
        ("options", weighting.options.model_fields, f"{name.replace('-', '_')}_"),
        ("metrics", weighting.metric_kinds, f"{name}/"),
    ):
        if wrong := [each for each in names if not each.startswith(prefix)]:
            raise ValueError(
                f"{kind} of the token weighting {name} begin with {prefix}, not {wrong[0]}"
            )
    for key, how in weighting.metric_kinds.items():
        if how not in get_args(MetricKind):
            raise ValueError(
                f"the metric {key} of the token weighting {name} is combined by {how!r}; choose"
                f" from {', '.join(get_args(MetricKind))}"
            )
    TOKEN_WEIGHTINGS[name] = weighting
    for spec in [spec for spec in ALGORITHMS.values() if not spec.weighting]:
        _add_weighted(spec, name)


def parse_algo(name: str) -> AlgoSpec:
    """The algorithm called `name`; any other name is a `ValueError` that lists the choices."""
    spec = ALGORITHMS.get(name)
    if spec is not None:
        return spec
    if name in TOKEN_WEIGHTINGS:
        hint = f"{name} only weights another algorithm's tokens; write dapo+{name}, for example"
    else:
        close = difflib.get_close_matches(name.lower(), ALGORITHMS, n=1)
        hint = f"did you mean {close[0]}?" if close else "write one of them exactly as listed"
    choices = ", ".join(ALGORITHMS)
    raise ValueError(f"unknown algorithm {name!r}: {hint} (choose from {choices})")


def _refuse_taken(kind: str, name: str, table: dict[str, Any]) -> None:
    if not name or any(character in name for character in "+= \t\n"):
        raise ValueError(
            f"{kind} cannot be called {name!r}: a name has no plus, no equals sign and no white"
            " space"
        )
    if name in table:
        raise ValueError(f"there is {kind} called {name!r} already; take another name")


def _check_settings(spec: AlgoSpec) -> None:
    if spec.loss_type not in get_args(LossType):
        raise ValueError(
            f"algorithm {spec.name!r} has the loss {spec.loss_type!r}; choose from"
            f" {', '.join(get_args(LossType))}"
        )
    for setting in ("beta", "epsilon", "epsilon_high"):
        value = getattr(spec, setting)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value < 0:
            raise ValueError(
                f"algorithm {spec.name!r} has {setting} {value!r}; give a finite number that is"
                " not below 0"
            )


def _add_weighted(spec: AlgoSpec, weighting: str) -> None:
    name = f"{spec.name}+{weighting}"
    ALGORITHMS[name] = replace(spec, name=name, weighting=weighting)


_ADVANTAGES = (
    Advantage("group", "train.algorithms.advantages:per_rollout"),
    Advantage("segment", "train.algorithms.advantages:per_segment", reads_perception=True),
)
# DeepSeekMath (arXiv:2402.03300), DAPO (2503.14476), Dr. GRPO (2503.20783), VideoP2R (2511.11113).
_ALGORITHMS = (
    AlgoSpec("grpo", "group", True, "grpo", beta=0.04, epsilon=0.2, epsilon_high=0.2),
    AlgoSpec("dapo", "group", True, "dapo", beta=0.0, epsilon=0.2, epsilon_high=0.28),
    AlgoSpec("dr-grpo", "group", False, "dr_grpo", beta=0.0, epsilon=0.2, epsilon_high=0.2),
    AlgoSpec("pa-grpo", "segment", True, "grpo", beta=0.04, epsilon=0.2, epsilon_high=0.2),
    AlgoSpec("pa-dapo", "segment", True, "dapo", beta=0.0, epsilon=0.2, epsilon_high=0.28),
)
# APPO (2602.23823), whose own baseline is DAPO.
_WEIGHTINGS = (AppoWeighting,)

for _advantage in _ADVANTAGES:
    register_advantage(_advantage)
for _spec in _ALGORITHMS:
    register_algorithm(_spec)
for _weighting in _WEIGHTINGS:
    register_token_weighting(_weighting)
