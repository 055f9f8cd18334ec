"""A table of completions for trackers that show tables, as TRL's trainers log one: `completions`.

Its rows are the rollouts that a page of rollouts shows, in the steps that have one. It names no
file and holds no frame, but what the model wrote and what its judge made of it goes to the tracker.
"""

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from train.rollouts.segments import PERCEPTION, REASONING
from train.rollouts.types import ScoredGroup

TABLE = "completions"
WITH_TABLES = ("wandb", "trackio")
"""Trackers with a `Table` and a `log` of the same form."""

Table = Mapping[str, Sequence[Any]]


class Tracker(Protocol):
    """The part of a tracker's module that is used."""

    def Table(self, *, dataframe: Any) -> Any:
        """A table from a data frame."""

    def log(self, values: Mapping[str, Any]) -> Any:
        """Log values of the step that was logged last."""


def completions_table(groups: Sequence[ScoredGroup], *, step: int) -> dict[str, list[Any]]:
    """Columns of equal length, one row per rollout: texts, verdict, rewards and advantages."""
    columns: dict[str, list[Any]] = {}
    for scored in groups:
        rewards = scored.rewards
        for place, rollout in enumerate(scored.group.rollouts):
            verdict = rewards.verdicts[place] if rewards.verdicts else None
            row = {
                "step": step,
                "question_id": scored.group.question.question_id,
                "prompt": scored.group.question.problem,
                "solution": scored.group.question.solution,
                "completion": rollout.text,
                "verdict": None if verdict is None else verdict.verdict,
                "reward/reasoning": rewards.reasoning[place].total,
                "reward/perception": rewards.perception and rewards.perception[place].total,
                **{f"reward/{name}": values[place] for name, values in rewards.named.items()},
                "advantage/reasoning": _advantage(scored, place, REASONING),
                "advantage/perception": _advantage(scored, place, PERCEPTION),
                "tokens": len(rollout.token_ids),
                "truncated": rollout.is_truncated,
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    return columns


def _advantage(scored: ScoredGroup, place: int, segment: int) -> float | None:
    """The advantage on a rollout's tokens of a segment; None where it has no such token."""
    tokens = (scored.group.rollouts[place].segment_ids == segment).nonzero()
    return float(scored.advantages[place][int(tokens[0])]) if len(tokens) else None


def log_completions(report_to: Collection[str], table: Table) -> None:
    """Give the table to each tracker of --report-to that shows tables and has a run open."""
    import pandas

    for name in WITH_TABLES:
        if name not in report_to:
            continue
        module = import_module(name)
        if name == "wandb" and module.run is None:  # switched off by WANDB_MODE or WANDB_DISABLED
            continue
        tracker = cast(Tracker, module)
        tracker.log({TABLE: tracker.Table(dataframe=pandas.DataFrame(dict(table)))})
