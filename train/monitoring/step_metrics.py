"""Metrics of a step of reinforcement learning, and their file; `docs/metrics.md` explains each key.

Metrics are computed from the step's groups alone. A key is absent where a step has no value for it.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import get_args

import torch

from judges.consistency import extract_conclusion, is_mismatch, reasoning_of
from judges.scoring.choices import chosen_letter
from judges.scoring.text import extract_strict
from schemas.questions import ProblemType, VideoQuestion
from schemas.serialization import write_text
from schemas.traces import TraceError, TraceTemplate, parse_trace
from train.algorithms.advantages import flat_groups
from train.algorithms.importance_ratio import gap_of_rollouts
from train.algorithms.token_weighting import (
    AlgorithmError,
    MetricKind,
    TokenWeighting,
    blaming,
)
from train.rewards.group_rewarder import JudgeUse
from train.rollouts.segments import PERCEPTION, REASONING
from train.rollouts.types import Rollout, ScoredGroup

Gather = Callable[[list[float]], Sequence[Sequence[float]]]

_ROLES = ("perception", "reasoning")
_TERMS = ("accuracy", "format", "length", "total")
KINDS: dict[str, MetricKind] = {
    **{f"rewards/{role}/{term}": "mean" for role in _ROLES for term in _TERMS},
    **{f"groups/flat_{which}": "mean" for which in (*_ROLES, "both")},
    "length/completion": "mean",
    "length/longest": "max",
    **{f"length/{role}": "mean" for role in _ROLES},
    "completions/truncated": "mean",
    "template/adherence": "mean",
    "judge/unscored": "mean",
    "judge/leaks": "mean",
    "judge/seconds": "max",
    "judge/seconds_waited": "max",
    "judge/calls": "sum",
    "judge/cache_hits": "mean",
    "judge/failures": "sum",
    "judge/pauses": "max",
    "judge/cost_usd": "sum",
    "mismatch/share": "mean",
    "mismatch/unclear": "mean",
    "sampler/difference": "mean",
    "sampler/largest_difference": "max",
    "sampler/kl": "mean",
    "sampler/truncated": "mean",
    **{f"advantages/{role}/std": "std" for role in _ROLES},
    **{f"advantages/{role}/smallest": "min" for role in _ROLES},
    # What TRL's trainers log, under their names: dashboards that were made for those go on working.
    "reward": "mean",
    "reward_std": "std",
    "frac_reward_zero_std": "mean",
    "completions/mean_length": "mean",
    "completions/min_length": "min",
    "completions/max_length": "max",
    "completions/clipped_ratio": "mean",
    "completions/mean_terminated_length": "mean",
    "completions/min_terminated_length": "min",
    "completions/max_terminated_length": "max",
}
"""Every key and how its values are combined; rewards of --reward and token weightings add theirs.
"""
_NUMBERS = 3  # of a key in a row: count, sum or extreme, sum of squares


class StepTally:
    """Values by name, combined over the groups of a step and over all processes.

    Each process fills a tally and gives one `row` of numbers; the rows of all make the metrics, so
    a step needs one exchange, whatever it measures. `kinds` says how the values of a name are
    combined; std is the sample's and absent for a single value. NaN is a missing value and left
    out. Raises ValueError for an unknown kind.
    """

    def __init__(self, kinds: Mapping[str, MetricKind]) -> None:
        if unknown := [each for each in kinds.items() if each[1] not in get_args(MetricKind)]:
            raise ValueError(
                f"{unknown[0][0]} is combined by {unknown[0][1]!r}; choose from"
                f" {', '.join(get_args(MetricKind))}"
            )
        self._kinds = dict(kinds)
        self._values: dict[str, list[float]] = {name: [] for name in kinds}

    def add(self, name: str, value: float) -> None:
        """Add one value. Raises KeyError for an unknown name."""
        if not math.isnan(value):
            self._values[name].append(float(value))

    def row(self) -> list[float]:
        """This process's numbers: equally many, in the same order, in every process."""
        numbers: list[float] = []
        for name, values in self._values.items():
            match self._kinds[name]:
                case "mean" | "std" | "sum":
                    total = math.fsum(values)
                case "min":
                    total = min(values, default=math.inf)
                case "max":
                    total = max(values, default=-math.inf)
            numbers += [len(values), total, math.fsum(value * value for value in values)]
        return numbers

    def metrics(self, rows: Sequence[Sequence[float]]) -> dict[str, float]:
        """The values of all processes together, given their rows; names without one are absent."""
        found = {}
        for place, (name, kind) in enumerate(self._kinds.items()):
            parts = [row[place * _NUMBERS : (place + 1) * _NUMBERS] for row in rows]
            count = sum(part[0] for part in parts)
            if count and (value := _combined(kind, count, parts)) is not None:
                found[name] = value
        return found


def _combined(kind: MetricKind, count: float, parts: Sequence[Sequence[float]]) -> float | None:
    match kind:
        case "min":
            return min(part[1] for part in parts)
        case "max":
            return max(part[1] for part in parts)
    total = math.fsum(part[1] for part in parts)
    if kind == "sum":
        return total
    mean = total / count
    if kind == "mean":
        return mean
    assert kind == "std"
    if count < 2:
        return None
    squares = math.fsum(part[2] for part in parts)
    return math.sqrt(max(squares - count * mean * mean, 0.0) / (count - 1))


def step_metrics(
    scored: Sequence[ScoredGroup],
    *,
    template: TraceTemplate,
    judge: JudgeUse | None = None,
    cell_seconds: Sequence[Sequence[float]] | None = None,
    weighting: TokenWeighting | None = None,
    reward_names: Sequence[str] = (),
    seconds: Mapping[str, float] | None = None,
    gather: Gather = lambda row: [row],
) -> dict[str, float]:
    """The metrics of a step over its groups.

    `cell_seconds` are the times of each group's frames, for groups with frame attention;
    `reward_names` those of the rewards of --reward. `seconds` become `time/<name>`, the slowest
    process's. `gather` gives the rows of all processes for this process's row; all of them must be
    given the same weighting and the same names of rewards and `seconds`. Raises AlgorithmError, in
    all of them, where the weighting's own metrics fail in one.
    """
    timing = dict(sorted((seconds or {}).items()))
    kinds = dict(KINDS)
    for name in reward_names:
        kinds |= {f"rewards/{name}": "mean"}
        kinds |= {f"rewards/{name}/mean": "mean", f"rewards/{name}/std": "std"}  # TRL's
    kinds |= {} if weighting is None else weighting.metric_kinds
    kinds |= {f"time/{name}": "max" for name in timing}
    tally, problem = StepTally(kinds), ""
    for name, value in timing.items():
        tally.add(f"time/{name}", value)
    for place, group in enumerate(scored):
        _add_rewards(tally, group)
        _add_advantages(tally, group)
        _add_sampler_gap(tally, group)
        for rollout in group.group.rollouts:
            _add_rollout(tally, group.group.question, rollout, template)
        if weighting is not None and not problem:
            times = cell_seconds[place] if cell_seconds else None
            problem = _add_weighting(tally, weighting, group, times)
    if judge is not None:
        _add_judge(tally, judge)
    rows = gather([float(bool(problem)), *tally.row()])
    if any(row[0] for row in rows):
        raise AlgorithmError(problem or "the token weighting failed in another process")
    return tally.metrics([row[1:] for row in rows])


def _add_weighting(
    tally: StepTally,
    weighting: TokenWeighting,
    group: ScoredGroup,
    frame_times: Sequence[float] | None,
) -> str:
    """Add a weighting's own metrics; the sentence of what is wrong with them, if anything."""
    what = f"metrics of the token weighting {weighting.name}"
    try:
        with blaming(what):
            found = {**weighting.metrics(group, frame_times)}
    except AlgorithmError as error:
        return str(error)
    for name, values in found.items():
        if name not in weighting.metric_kinds:
            return f"{what} have {name!r}, which is not in its metric_kinds; add it there"
        if not isinstance(values, list | tuple) or not all(isinstance(v, Real) for v in values):
            return f"{what} must give a list of numbers for {name}, got {type(values).__name__}"
        for value in values:
            tally.add(name, float(value))
    return ""


def _add_rewards(tally: StepTally, scored: ScoredGroup) -> None:
    rewards = scored.rewards
    is_flat = {}
    for name, values in rewards.named.items():
        for value in values:
            for key in (f"rewards/{name}", f"rewards/{name}/mean", f"rewards/{name}/std"):
                tally.add(key, value)
    _add_whole_rewards(tally, scored)
    for verdict in rewards.verdicts:
        if verdict is not None:
            tally.add("judge/unscored", verdict.verdict == "unscored")
    for role, of_role in (("perception", rewards.perception), ("reasoning", rewards.reasoning)):
        if of_role is None:
            continue
        for reward in of_role:
            for term in _TERMS:
                tally.add(f"rewards/{role}/{term}", getattr(reward, term))
        totals = torch.tensor([reward.total for reward in of_role], dtype=torch.float64)
        is_flat[role] = bool(flat_groups(totals, len(totals)))
        tally.add(f"groups/flat_{role}", is_flat[role])
    if len(is_flat) == len(_ROLES):
        tally.add("groups/flat_both", all(is_flat.values()))
    if rewards.perception is None:
        return
    for reward, verdict in zip(rewards.perception, rewards.verdicts, strict=True):
        # well formed, and yet the judge was not asked
        tally.add("judge/leaks", verdict is None and reward.format > 0)


def _add_whole_rewards(tally: StepTally, scored: ScoredGroup) -> None:
    """TRL's keys: one reward for a rollout, which is that of all its segments together."""
    totals = [reward.total for reward in scored.rewards.reasoning]
    if scored.rewards.perception is not None:
        seen = [reward.total for reward in scored.rewards.perception]
        totals = [sum(pair) for pair in zip(totals, seen, strict=True)]
    for total in totals:
        tally.add("reward", total)
        tally.add("reward_std", total)
    whole = torch.tensor(totals, dtype=torch.float64)
    tally.add("frac_reward_zero_std", bool(flat_groups(whole, len(whole))))


def _add_advantages(tally: StepTally, scored: ScoredGroup) -> None:
    for row, rollout in zip(scored.advantages, scored.group.rollouts, strict=True):
        for role, number in (("perception", PERCEPTION), ("reasoning", REASONING)):
            columns = (rollout.segment_ids == number).nonzero()
            if not len(columns):
                continue
            advantage = float(row[int(columns[0])])
            tally.add(f"advantages/{role}/std", advantage)
            if advantage:
                tally.add(f"advantages/{role}/smallest", abs(advantage))


def _add_sampler_gap(tally: StepTally, scored: ScoredGroup) -> None:
    for differences, ratios in gap_of_rollouts(scored):
        tally.add("sampler/difference", float(differences.abs().mean()))
        tally.add("sampler/largest_difference", float(differences.abs().max()))
        # k3, the estimator that is never negative, of KL(sampler || learner) (Schulman 2020)
        tally.add("sampler/kl", float((differences.exp() - 1 - differences).mean()))
        if ratios is not None:
            tally.add("sampler/truncated", float((ratios < differences.exp()).float().mean()))


def _add_rollout(
    tally: StepTally, question: VideoQuestion, rollout: Rollout, template: TraceTemplate
) -> None:
    tally.add("length/completion", len(rollout.token_ids))
    tally.add("length/longest", len(rollout.token_ids))
    for role in _ROLES:
        tags = [segment.tag for segment in template.segments if segment.role == role]
        if tags and all(tag in rollout.token_counts for tag in tags):
            tally.add(f"length/{role}", sum(rollout.token_counts[tag] for tag in tags))
    tally.add("completions/truncated", rollout.is_truncated)
    tally.add("completions/clipped_ratio", rollout.is_truncated)
    for which in ("mean", "min", "max"):
        tally.add(f"completions/{which}_length", len(rollout.token_ids))
        if not rollout.is_truncated:
            tally.add(f"completions/{which}_terminated_length", len(rollout.token_ids))
    try:
        parse_trace(rollout.text, template)
        tally.add("template/adherence", 1.0)
    except TraceError:
        tally.add("template/adherence", 0.0)
    if question.problem_type is not ProblemType.MULTIPLE_CHOICE:
        return
    answer = extract_strict(rollout.text)
    if answer is None or chosen_letter(answer, question.options) is None:
        return
    extraction = extract_conclusion(reasoning_of(rollout.text), question.options)
    differs = is_mismatch(extraction, answer, question.options)
    tally.add("mismatch/unclear", differs is None)
    if differs is not None:
        tally.add("mismatch/share", differs)


def _add_judge(tally: StepTally, judge: JudgeUse) -> None:
    tally.add("judge/seconds", judge.seconds)
    tally.add("judge/seconds_waited", judge.seconds_waited)
    tally.add("judge/calls", judge.stats.calls)
    for is_hit, count in ((1.0, judge.stats.cache_hits), (0.0, judge.stats.calls)):
        for _ in range(count):
            tally.add("judge/cache_hits", is_hit)
    tally.add("judge/failures", judge.stats.failures)
    tally.add("judge/pauses", judge.pauses)
    tally.add("judge/cost_usd", judge.stats.cost_usd)


class MetricsFile:
    """`metrics.jsonl` of a run: one JSON object per step, in order, written by one process.

    A run that resumes repeats the steps after its checkpoint: their lines are cut off here, and so
    is a line that a kill left unfinished. `last_step` is the checkpoint's step, 0 for a new run.
    """

    def __init__(self, path: Path, *, last_step: int = 0) -> None:
        self.path = path
        kept = [line for line in _lines(path) if _step_of(line) <= last_step]
        write_text(path, "".join(f"{line}\n" for line in kept))
        self._last_step = last_step

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the line of a step; numbers that are not finite are null.

        Raises ValueError for a step that already has its line.
        """
        if step <= self._last_step:
            raise ValueError(f"{self.path} has the line of step {self._last_step}, got step {step}")
        values = {
            name: value if math.isfinite(value) else None for name, value in sorted(metrics.items())
        }
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
        self._last_step = step


def _lines(path: Path) -> list[str]:
    """Whole lines: a last one without its line feed is unfinished."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _step_of(line: str) -> int:
    step = json.loads(line)["step"]
    assert isinstance(step, int)
    return step
