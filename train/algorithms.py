"""The closed list of `--algo` names and what each one means.

An algorithm is advantages (one per rollout, or one per segment), settings of TRL's loss, and
whether APPO's token weights multiply the policy term. The loss itself never learns its name.
"""

import difflib
from dataclasses import dataclass, replace
from typing import Literal

APPO_SUFFIX = "+appo"

GroupReward = Literal["reasoning", "sum"]
RightBy = Literal["accuracy", "perception", "both"]
WeightedTokens = Literal["all", "observation"]


@dataclass(frozen=True)
class AlgoSpec:
    """What an algorithm's name stands for; an option that the user gives wins over these values."""

    name: str
    advantages: Literal["group", "segment"]
    """One advantage per rollout, or separate ones for perception and reasoning tokens."""
    scale: bool
    """Whether advantages are divided by the group's standard deviation."""
    loss_type: Literal["grpo", "dapo", "dr_grpo"]
    """TRL's `loss_type`: how token losses are averaged."""
    beta: float
    """Weight of the KL penalty against the reference model; 0 needs no reference model."""
    epsilon: float
    """The importance ratio is kept above 1 - epsilon."""
    epsilon_high: float
    """The importance ratio is kept below 1 + epsilon_high."""
    uses_appo: bool = False
    """Whether APPO's token weights multiply the policy term."""


# DeepSeekMath (arXiv:2402.03300), DAPO (2503.14476), Dr. GRPO (2503.20783), VideoP2R (2511.11113);
# "+appo" is APPO (2602.23823), whose own baseline is DAPO.
_BASES = (
    AlgoSpec("grpo", "group", True, "grpo", beta=0.04, epsilon=0.2, epsilon_high=0.2),
    AlgoSpec("dapo", "group", True, "dapo", beta=0.0, epsilon=0.2, epsilon_high=0.28),
    AlgoSpec("dr-grpo", "group", False, "dr_grpo", beta=0.0, epsilon=0.2, epsilon_high=0.2),
    AlgoSpec("pa-grpo", "segment", True, "grpo", beta=0.04, epsilon=0.2, epsilon_high=0.2),
    AlgoSpec("pa-dapo", "segment", True, "dapo", beta=0.0, epsilon=0.2, epsilon_high=0.28),
)
ALGORITHMS: dict[str, AlgoSpec] = {
    spec.name: spec
    for base in _BASES
    for spec in (base, replace(base, name=base.name + APPO_SUFFIX, uses_appo=True))
}


def parse_algo(name: str) -> AlgoSpec:
    """The algorithm called `name`; any other name is a `ValueError` that lists the choices."""
    spec = ALGORITHMS.get(name)
    if spec is not None:
        return spec
    if name == "appo":
        hint = "appo only weights another algorithm's tokens; the paper's own is dapo+appo"
    else:
        close = difflib.get_close_matches(name.lower(), ALGORITHMS, n=1)
        hint = f"did you mean {close[0]}?" if close else "write one of them exactly as listed"
    choices = ", ".join(ALGORITHMS)
    raise ValueError(f"unknown algorithm {name!r}: {hint} (choose from {choices})")
