"""Reinforcement learning from Python: `train.rl` as a function, with functions as rewards.

    def brevity(completion, **_):
        return 1.0 if len(completion) < 400 else 0.0

    run = reinforce(
        model="out/sft", questions="q.json", media_root="clips", output_dir="out/rl",
        algo="pa-grpo", judge="claude:claude-haiku-5-5",
        rewards={"default": 1, brevity: 0.5}, max_steps=100,
    )
    pandas.read_json(run.metrics, lines=True)

docs/python_api.md has the rest of a notebook around it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from cli.config import UsageError
from cli.config_file import written_options
from train.rewards.registry import REWARDS, Reward, RewardFunction, reward_of
from train.rl import begin_run, read_run
from train.rl_options import RlOptions


@dataclass(frozen=True)
class RunFolder:
    """What a run left behind."""

    folder: Path
    status: int
    """0: trained to the end; 1: trained, but rows were lost to unreadable files; 3: stopped early,
    resumable by the same call."""

    @property
    def model(self) -> Path:
        """The trained model; not there before the end."""
        return self.folder / "model"

    @property
    def metrics(self) -> Path:
        """JSON Lines, one object per step; docs/metrics.md explains the keys."""
        return self.folder / "metrics.jsonl"

    @property
    def rollouts(self) -> list[Path]:
        """JSON Lines of rollouts, a file for each step with a page, oldest first."""
        return sorted((self.folder / "rollouts").glob("step-*.jsonl"))

    @property
    def judge_ledgers(self) -> list[Path]:
        """The judge's DuckDB files, one per process; empty without a judge."""
        return sorted(self.folder.glob("judge-*.duckdb"))


def reinforce(
    *, rewards: Mapping[str | RewardFunction, float] | None = None, **options: Any
) -> RunFolder:
    """Train as `python -m train.rl` does; the same call again resumes.

    `options` are those of the command, ours and TRL's, with underscores for dashes. `rewards` gives
    weights to names of `--reward` (`default`, whose weight is 1, and a segment in front, as in
    `perception:NAME`, included) and to functions, which reward reasoning and are logged under their
    own names. Numbers may be numpy's. Raises UsageError for options that the command would refuse.

    Outside of the main thread Python gives no signals away, so Ctrl-C does not save there.
    """
    weights = _weights(rewards)
    if weights and (both := [name for name in options if _is_reward_option(name)]):
        raise UsageError(
            f"`rewards` and `{both[0]}` were both given; put all rewards into `rewards`"
        )
    entries = [_entry(each) for each in weights if callable(each)]
    words = [_word(each, weight) for each, weight in weights.items()]
    given = {**options, "reward": words} if words else options
    with _in_table(entries), written_options(given) as file:
        # `main` would end the process for what is refused, as a command does.
        config, trl, questions = read_run(["--config", str(file)])
        status = begin_run(config, trl, questions)
    return RunFolder(config.output_dir, status)


def _is_reward_option(name: str) -> bool:
    return RlOptions.former_names.get(name, name) == "reward"


def _weights(rewards: Any) -> dict[str | RewardFunction, float]:
    """What was given as `rewards`, with plain numbers. Raises UsageError."""
    if rewards is None:
        return {}
    if not isinstance(rewards, Mapping):
        raise UsageError(
            f"`rewards` is a {type(rewards).__name__}; give a dict of weights, such as "
            '{"default": 1, my_function: 0.5}'
        )
    for each, weight in rewards.items():
        if not isinstance(weight, Real) or isinstance(weight, bool):
            raise UsageError(f"the weight of the reward {each!r} is {weight!r}; give a number")
    return {
        each: int(weight) if isinstance(weight, Integral) else float(weight)
        for each, weight in rewards.items()
    }


def _entry(function: RewardFunction) -> Reward:
    """Its entry in the table of rewards. Raises UsageError for a function that cannot be one."""
    try:
        return reward_of(function)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _word(each: str | RewardFunction, weight: float) -> str:
    """A reward and its weight as `--reward` takes them."""
    name = each if isinstance(each, str) else reward_of(each).name
    is_default = name.rpartition(":")[2] == "default"
    return name if is_default and weight == 1 else f"{name}={weight!r}"


@contextmanager
def _in_table(entries: list[Reward]) -> Iterator[None]:
    """The table of rewards with these in it. Raises UsageError where a name means another one."""
    added: dict[str, Reward] = {}
    for entry in entries:
        known = REWARDS.get(entry.name) or added.get(entry.name, entry)
        if known.function is not entry.function or entry.name == "default":
            raise UsageError(
                f"the function {entry.name!r} has the name of another reward; rename it"
            )
        if entry.name not in REWARDS:
            added[entry.name] = entry
    REWARDS.update(added)
    try:
        yield
    finally:
        for name in added:
            del REWARDS[name]
