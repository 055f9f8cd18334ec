"""What is told of every step of reinforcement learning; `docs/metrics.md` says what each key means.

Functions of the step's groups alone. A key is absent where a step has nothing to say about it.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from judges.answers import extract_strict
from judges.choices import chosen_letter
from judges.think_answer import extract_conclusion, is_mismatch, reasoning_of
from schemas.questions import ProblemType, VideoQuestion
from schemas.traces import TraceError, TraceTemplate, parse_trace
from train.advantages import flat_groups
from train.appo import AppoConfig, frame_scores
from train.reward_groups import JudgeUse
from train.rewards import SegmentReward
from train.rollout_groups import Rollout, ScoredGroup
from train.segments import PERCEPTION, REASONING
from train.step_tally import Kind, StepTally

Gather = Callable[[list[float]], Sequence[Sequence[float]]]

_ROLES = ("perception", "reasoning")
_TERMS = ("accuracy", "format", "length", "total")
KINDS: dict[str, Kind] = {
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
    **{f"advantages/{role}/std": "std" for role in _ROLES},
    **{f"advantages/{role}/smallest": "min" for role in _ROLES},
    "appo/weight": "mean",
    "appo/weighted_tokens": "mean",
    "appo/crucial_frames": "mean",
    "appo/crucial_share": "mean",
    "appo/focus_gap_seconds": "mean",
    "appo/focus_same": "mean",
    "appo/focus_groups": "sum",
}
"""Every key, and how its values come together."""


def step_metrics(
    scored: Sequence[ScoredGroup],
    *,
    template: TraceTemplate,
    judge: JudgeUse | None = None,
    cell_seconds: Sequence[Sequence[float]] | None = None,
    appo: AppoConfig | None = None,
    seconds: Mapping[str, float] | None = None,
    gather: Gather = lambda row: [row],
) -> dict[str, float]:
    """The metrics of a step over its groups.

    `cell_seconds` are the times of each group's frames, for groups with frame attention. `seconds`
    become `time/<name>`, the slowest process's. `gather` gives the rows of all processes for this
    process's row; all of them must be given the same names of `seconds`.
    """
    timing = dict(sorted((seconds or {}).items()))
    kinds = KINDS | {f"time/{name}": "max" for name in timing}
    tally = StepTally(kinds)
    for name, value in timing.items():
        tally.add(f"time/{name}", value)
    for place, group in enumerate(scored):
        _add_rewards(tally, group)
        _add_advantages(tally, group)
        for rollout in group.group.rollouts:
            _add_rollout(tally, group.group.question, rollout, template)
        _add_appo(tally, group, cell_seconds[place] if cell_seconds else None, appo or AppoConfig())
    if judge is not None:
        _add_judge(tally, judge)
    return tally.metrics(gather(tally.row()))


def is_right(rewards: Sequence[SegmentReward], threshold: float) -> list[bool]:
    """Which rollouts answer right: the accuracy of reasoning is at least `threshold`."""
    return [reward.accuracy >= threshold for reward in rewards]


def focused_seconds(
    scored: ScoredGroup, cell_seconds: Sequence[float], config: AppoConfig
) -> list[float]:
    """The time of the frame that each rollout looks at most (`train.appo.frame_scores`)."""
    assert scored.frame_attention is not None
    scores = frame_scores(scored.frame_attention, config.score_tokens)
    return [cell_seconds[frame] for frame in scores.argmax(dim=1).tolist()]


def focus_gap(
    scored: ScoredGroup, cell_seconds: Sequence[float], config: AppoConfig
) -> float | None:
    """Seconds between the mean focused times of right and of wrong rollouts.

    APPO (arXiv:2602.23823), supplement, table A. None where nobody is right or nobody is wrong.
    """
    right = is_right(scored.rewards.reasoning, config.reward_threshold)
    if all(right) or not any(right):
        return None
    focused = focused_seconds(scored, cell_seconds, config)
    sides = [
        [time for time, yes in zip(focused, right, strict=True) if yes is side]
        for side in (True, False)
    ]
    first, second = (math.fsum(side) / len(side) for side in sides)
    return abs(first - second)


def _add_rewards(tally: StepTally, scored: ScoredGroup) -> None:
    rewards = scored.rewards
    is_flat = {}
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
        if verdict is not None:
            tally.add("judge/unscored", verdict.verdict == "unscored")
        # well formed, and yet the judge was not asked
        tally.add("judge/leaks", verdict is None and reward.format > 0)


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


def _add_appo(
    tally: StepTally,
    scored: ScoredGroup,
    cell_seconds: Sequence[float] | None,
    config: AppoConfig,
) -> None:
    if scored.weights is not None:
        for row, rollout in zip(scored.weights.tolist(), scored.group.rollouts, strict=True):
            for weight in row[: len(rollout.token_ids)]:
                tally.add("appo/weight", weight)
                tally.add("appo/weighted_tokens", weight != 1.0)
    if scored.crucial_frames is not None:
        chosen = scored.crucial_frames.tolist()
        tally.add("appo/crucial_frames", sum(chosen))
        tally.add("appo/crucial_share", sum(chosen) / len(chosen))
    if scored.frame_attention is not None and cell_seconds is not None:
        gap = focus_gap(scored, cell_seconds, config)
        tally.add("appo/focus_groups", gap is not None)
        if gap is not None:
            tally.add("appo/focus_gap_seconds", gap)
            tally.add("appo/focus_same", gap == 0)


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
