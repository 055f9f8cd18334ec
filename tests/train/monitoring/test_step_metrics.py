"""Metrics of a step: by hand on small groups, over processes, missing values, and their page."""

import json
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.rollout_scenes import P2R, rollout_group

from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.samples import Sufficiency, UnscoredReason
from schemas.traces import TEMPLATES
from train.algorithms.appo import AppoConfig
from train.algorithms.appo_weighting import AppoWeighting, focus_gap
from train.algorithms.token_weighting import AlgorithmError
from train.monitoring.rl_callback import MissingRewards
from train.monitoring.step_metrics import KINDS, MetricsFile, StepTally, step_metrics
from train.rewards.judge_client import JudgeStats
from train.rewards.judge_health import JudgeUse
from train.rollouts.types import GroupRewards, SamplerGap, ScoredGroup, SegmentReward

QUESTION = VideoQuestion(
    problem="Which one moves?",
    options=("A. the ball", "B. the box", "C. the lamp"),
    solution="B",
    media=(MediaRef(kind="video", path="a.mp4"),),
    problem_type=ProblemType.MULTIPLE_CHOICE,
)
YES, NO = Sufficiency("yes"), Sufficiency("no")
UNSCORED = Sufficiency("unscored", UnscoredReason.NO_REPLY)
NOTHING = SegmentReward(0.0, 0.0, 0.0, 0.0)
MISSING = SegmentReward(math.nan, 1.0, math.nan, math.nan)
TEXTS = (
    "<observation>it slides</observation> <think>Therefore, the answer is B.</think>"
    "<answer>B</answer>",
    "<observation>it stays</observation> <think>Therefore, the answer is C.</think>"
    "<answer>A</answer>",
    "<observation>it slides</observation> <think>Who knows.</think><answer>C</answer>",
    "<observation>never closed <answer>B</answer>",
)
CONFIG = AppoConfig(score_tokens=1, frames_per_rollout=1)
ALL_KEYS = {*KINDS, *AppoWeighting.metric_kinds, "time/sampling", "time/scoring"}


def reward(accuracy: float, formatted: float = 1.0, length: float = 0.0) -> SegmentReward:
    return SegmentReward(accuracy, formatted, length, accuracy + formatted + length)


def scored(
    *,
    perception: Sequence[SegmentReward] | None = (reward(1), MISSING, reward(0), NOTHING),
    reasoning: Sequence[SegmentReward] = (reward(1, 1, 0.2), reward(0), reward(0), reward(1, 0)),
    focus: Sequence[int] | None = (0, 2, 2, 1),
    advantages: Sequence[tuple[float, float]] = ((0.9, 0.5), (0, -0.3), (-0.9, -0.4), (0, 0.2)),
) -> ScoredGroup:
    """Four rollouts; `focus` is the frame of three that each of them looks at."""
    group = rollout_group(QUESTION, TEXTS)
    verdicts = (YES, UNSCORED, None, None) if perception is not None else (None,) * 4
    longest = max(len(one.token_ids) for one in group.rollouts)
    values = torch.zeros(4, longest)
    for row, one, (first, second) in zip(values, group.rollouts, advantages, strict=True):
        row[: len(one.token_ids)] = torch.where(one.segment_ids == 1, first, second)
    if focus is None:
        return ScoredGroup(
            group,
            GroupRewards(
                tuple(reasoning), None if perception is None else tuple(perception), verdicts
            ),
            values,
            None,
            None,
            None,
        )
    weights = torch.ones(4, longest)
    weights[0, 0] = 1.5
    weights[3, -1] = 9.0  # behind its end: not counted
    attention = torch.full((4, longest, 3), 0.1)
    for rollout, frame in enumerate(focus):
        attention[rollout, 2, frame] = 0.7
    return ScoredGroup(
        group,
        GroupRewards(tuple(reasoning), None if perception is None else tuple(perception), verdicts),
        values,
        weights,
        attention,
        torch.tensor([True, False, True]),
    )


def with_gap(group: ScoredGroup) -> ScoredGroup:
    """One token three times as probable to the learner, and one by half a nat less so; cap 2."""
    differences = torch.zeros_like(group.advantages)
    differences[0, 0], differences[1, 1] = math.log(3), -0.5
    differences[3, -1] = 9.0  # behind its end: not counted
    return replace(group, sampler_gap=SamplerGap(differences, differences.exp().clamp(max=2)))


def test_every_metric_by_hand() -> None:
    group = with_gap(scored())
    lengths = [len(one.token_ids) for one in group.group.rollouts]
    assert lengths[3] < max(lengths)
    found = step_metrics(
        [group],
        template=P2R,
        judge=JudgeUse(
            asked=2,
            missing=1,
            leaks=1,
            pauses=1,
            seconds=4.0,
            seconds_waited=0.5,
            stats=JudgeStats(calls=3, cache_hits=1, failures=1, cost_usd=0.25),
        ),
        cell_seconds=[[0.0, 1.0, 4.0]],
        weighting=AppoWeighting.of(CONFIG),
        seconds={"sampling": 2.0, "scoring": 1.0},
    )
    counts = [one.token_counts for one in group.group.rollouts]
    expected = {
        "rewards/perception/accuracy": 1 / 3,  # yes, missing, claimed, malformed
        "rewards/perception/format": 3 / 4,
        "rewards/perception/length": 0.0,
        "rewards/perception/total": (2 + 1 + 0) / 3,
        "rewards/reasoning/accuracy": 0.5,
        "rewards/reasoning/format": 0.75,
        "rewards/reasoning/length": 0.05,
        "rewards/reasoning/total": (2.2 + 1 + 1 + 1) / 4,
        "groups/flat_perception": 0.0,
        "groups/flat_reasoning": 0.0,
        "groups/flat_both": 0.0,
        "advantages/perception/std": math.sqrt(((0.9**2) * 2) / 2),  # three have such tokens
        "advantages/perception/smallest": 0.9,
        "advantages/reasoning/std": math.sqrt((0.25 + 0.09 + 0.16 + 0.04) / 3),
        "advantages/reasoning/smallest": 0.2,
        "length/completion": sum(lengths) / 4,
        "length/longest": max(lengths),
        "length/perception": sum(one["observation"] for one in counts[:3]) / 3,
        "length/reasoning": sum(one["think"] + one["answer"] for one in counts[:3]) / 3,
        "completions/truncated": 0.0,
        # TRL's: one reward for a rollout, 4.2, missing, 2 and 1
        "reward": 2.4,
        "reward_std": math.sqrt((1.8**2 + 0.4**2 + 1.4**2) / 2),
        "frac_reward_zero_std": 0.0,
        "completions/mean_length": sum(lengths) / 4,
        "completions/min_length": min(lengths),
        "completions/max_length": max(lengths),
        "completions/clipped_ratio": 0.0,
        "completions/mean_terminated_length": sum(lengths) / 4,
        "completions/min_terminated_length": min(lengths),
        "completions/max_terminated_length": max(lengths),
        "sampler/difference": (math.log(3) / lengths[0] + 0.5 / lengths[1]) / 4,
        "sampler/largest_difference": math.log(3),
        "sampler/kl": ((3 - 1 - math.log(3)) / lengths[0] + (math.exp(-0.5) - 1 + 0.5) / lengths[1])
        / 4,
        "sampler/truncated": 1 / lengths[0] / 4,
        "template/adherence": 0.75,
        "mismatch/share": 0.5,  # B concluded and said; C concluded, A said
        "mismatch/unclear": 0.5,  # nothing concluded in the last two
        "judge/unscored": 0.5,
        "judge/leaks": 0.25,
        "judge/seconds": 4.0,
        "judge/seconds_waited": 0.5,
        "judge/calls": 3,
        "judge/cache_hits": 0.25,
        "judge/failures": 1,
        "judge/pauses": 1,
        "judge/cost_usd": 0.25,
        "appo/weight": (sum(lengths) + 0.5) / sum(lengths),
        "appo/weighted_tokens": 1 / sum(lengths),
        "appo/crucial_frames": 2,
        "appo/crucial_share": 2 / 3,
        "appo/focus_groups": 1,
        "appo/focus_gap_seconds": 4.0 - (0.0 + 1.0) / 2,
        "appo/focus_same": 0.0,
        "time/sampling": 2.0,
        "time/scoring": 1.0,
    }
    # float32 advantages and weights: 1e-6
    assert found == pytest.approx(expected, abs=1e-6)
    assert set(found) == ALL_KEYS


def test_keys_are_absent_where_there_is_nothing_to_say() -> None:
    nobody = scored(perception=None, reasoning=[reward(0)] * 4, focus=None)
    found = step_metrics([nobody], template=P2R)
    assert not [key for key in found if key.startswith(("appo/", "judge/", "rewards/perc"))]
    assert found["groups/flat_reasoning"] == 1
    assert "groups/flat_both" not in found
    everything = step_metrics([scored(perception=[MISSING] * 4)], template=P2R)
    assert "rewards/perception/accuracy" not in everything
    assert everything["groups/flat_perception"] == 1
    still = scored(advantages=[(0.0, 0.0)] * 4)
    found = step_metrics([still], template=P2R)
    assert found["advantages/reasoning/std"] == 0
    assert "advantages/reasoning/smallest" not in found
    free = QUESTION.model_copy(update={"problem_type": ProblemType.FREE_FORM, "options": ()})
    group = rollout_group(free, TEXTS[:1], template=TEMPLATES["think-answer"])
    rewards = GroupRewards((reward(1),), None, (None,))
    one = ScoredGroup(group, rewards, torch.zeros(1, 99), None, None, None)
    found = step_metrics([one], template=TEMPLATES["think-answer"])
    assert not [key for key in found if key.startswith("mismatch") or key.endswith("/std")]
    assert step_metrics([], template=P2R) == {}


def test_the_focus_gap_needs_right_and_wrong_and_the_rollouts_own_frames() -> None:
    seconds = [0.0, 2.0, 9.0]
    assert focus_gap(scored(focus=(0, 0, 0, 0)), seconds, CONFIG) == 0
    assert focus_gap(scored(focus=(2, 0, 1, 2)), seconds, CONFIG) == 9 - 1
    assert focus_gap(scored(reasoning=[reward(1)] * 4), seconds, CONFIG) is None
    assert focus_gap(scored(reasoning=[reward(0.4)] * 4), seconds, CONFIG) is None


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"appo/other": [1.0]}, "have 'appo/other', which is not in its metric_kinds"),
        ({"appo/weight": 1.0}, "must give a list of numbers for appo/weight, got float"),
        ({"appo/weight": ["1"]}, "must give a list of numbers for appo/weight, got list"),
        (None, "metrics of the token weighting appo raised TypeError"),
    ],
)
def test_metrics_of_a_weighting_that_are_wrong_stop_every_process(
    metrics: Any, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AppoWeighting, "metrics", lambda self, scored, times: metrics)
    rows: list[list[float]] = []

    def measure(groups: list[ScoredGroup], number: int) -> None:
        step_metrics(
            groups,
            template=P2R,
            weighting=AppoWeighting.of(CONFIG),
            gather=lambda row: rows.append(row) or rows[:number] or rows,
        )

    with pytest.raises(AlgorithmError, match=sentence):
        measure([scored()], 1)
    with pytest.raises(AlgorithmError, match="failed in another process"):
        measure([], 2)


def test_values_are_combined_in_known_ways_only() -> None:
    with pytest.raises(ValueError, match="a is combined by 'median'; choose from mean, std, sum"):
        StepTally({"a": "median"})  # type: ignore[dict-item]


def test_a_reward_that_no_rollout_has_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    missing = MissingRewards(["mine", "other"])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            missing.warn({"rewards/other": 0.0})
    (record,) = caplog.records
    assert "the reward mine is missing for every rollout of a step" in record.message


def test_two_processes_give_what_one_gives() -> None:
    """Including spread and extremes, although each group lives in one process only."""
    first, second = scored(), scored(advantages=[(0.1, 5.0)] * 4, focus=(1, 1, 0, 2))
    uses = [
        JudgeUse(seconds=s, seconds_waited=s, stats=JudgeStats(calls=c))
        for s, c in ((1, 2), (3, 4))
    ]
    rows: list[list[float]] = []

    def keep(row: list[float]) -> list[list[float]]:
        rows.append(row)
        return [row]

    seconds = [[0.0, 1.0, 4.0]]
    for group, use in zip((first, second), uses, strict=True):
        step_metrics(
            [group],
            template=P2R,
            judge=use,
            cell_seconds=seconds,
            weighting=AppoWeighting.of(CONFIG),
            gather=keep,
        )
    assert len({len(row) for row in rows}) == 1
    empty = step_metrics(
        [], template=P2R, weighting=AppoWeighting.of(CONFIG), gather=lambda row: [*rows, row]
    )
    alone = step_metrics(
        [first, second],
        template=P2R,
        judge=JudgeUse(seconds=3, seconds_waited=3, stats=JudgeStats(calls=6)),
        cell_seconds=seconds * 2,
        weighting=AppoWeighting.of(CONFIG),
    )
    # sums in another order: 1e-12
    assert empty == pytest.approx(alone, rel=1e-12)


def test_a_tally_knows_no_other_names_and_takes_no_infinite_spread() -> None:
    tally = StepTally({"a": "std", "b": "min", "c": "sum"})
    for value in (1.0, 1.0, math.nan):
        tally.add("a", value)
    with pytest.raises(KeyError):
        tally.add("d", 1.0)
    assert tally.metrics([tally.row()]) == {"a": 0.0}


def test_the_page_of_metrics_names_every_key_with_its_unit(repository: Path) -> None:
    page = (repository / "docs" / "metrics.md").read_text("utf-8")
    ours, _, trl = page.partition("## From TRL")
    rows = re.findall(r"^\| `([\w/]+)` \| ([^|]+) \| ([^|]+) \|$", ours, re.MULTILINE)
    names = [name for name, _, _ in rows]
    assert len(names) == len(set(names))
    assert set(names) == ALL_KEYS
    assert all(unit.strip() and told.strip() for _, unit, told in rows)
    assert "`grad_norm`" in trl


def test_metrics_of_a_resumed_run_stand_once_each(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    file = MetricsFile(path)
    for step in range(1, 6):
        file.append(step, {"loss": step / 4, "kl": math.nan})
    with path.open("a") as torn:
        torn.write('{"step": 6, "lo')
    *whole, unfinished = path.read_text().split("\n")
    assert [json.loads(line)["step"] for line in whole] == [1, 2, 3, 4, 5]
    assert unfinished
    resumed = MetricsFile(path, last_step=3)
    resumed.append(4, {"loss": 9.0})
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == [
        *({"step": step, "loss": step / 4, "kl": None} for step in (1, 2, 3)),
        {"step": 4, "loss": 9.0},
    ]
    with pytest.raises(ValueError, match="has the line of step 4, got step 4"):
        resumed.append(4, {})
    assert all(json.loads(line) for line in path.read_text().splitlines())
    MetricsFile(path)
    assert path.read_text() == ""
