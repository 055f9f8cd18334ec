"""Result tables of `sandbox.learning`: accuracy beside the best-constant baseline, differences with
confidence intervals.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from judges.statistics.cluster_bootstrap import Estimate, sample_design, share
from sandbox.lessons.folders import Folders
from sandbox.lessons.observation_measures import (
    JudgedAnswer,
    Measures,
    by_kind,
    judge_file,
    measure,
    percent,
)
from sandbox.lessons.stages import Spent
from sandbox.world.rendered import RenderedWorld

_CURVE_POINTS = 10
_PLANTED = (
    "The start was fine-tuned on systematic label noise: green taken for yellow, circles for"
    " squares, times and numbers one too high. So what RL repairs was planted. Differences between"
    " algorithms are reported as measured; they are no claim about methods."
)
_NOT_PLANTED = (
    "No faults were planted here for RL to repair; docs/reports/learning.md has runs from a start"
    " with planted faults, and more steps."
)


@dataclass(frozen=True)
class ResultTable:
    """The result of a training stage: Markdown text, and the same numbers as plain JSON."""

    text: str
    numbers: dict[str, Any]


def sft_table(folders: Folders, rows: Mapping[str, Path]) -> ResultTable:
    """Fine-tuning from random weights: each model on the held-out questions, and by kind."""
    world = RenderedWorld(folders.held_out.root)
    judged = {name: judge_file(path, world) for name, path in rows.items()}
    lines = [
        "## Fine-tuning from random weights",
        "",
        f"{len(judged['fine-tuned'])} held-out multiple-choice questions about"
        f" {folders.held_out.clips} new clips; seed {folders.config.seed}. *blind*: best constant"
        " guess per kind of question. *seen*: the observation states exactly what the clip shows.",
        "",
        "| model | right, % (95 %) | blind | format | seen | attributes | right if seen | if not |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(name, found) for name, found in judged.items()]
    lines += ["", "| kind | questions | right | blind | seen | right if seen | if not |"]
    lines += ["|---|---|---|---|---|---|---|"]
    kinds = by_kind(judged["fine-tuned"])
    lines += [
        f"| {kind} | {found.answers} | {percent(found.right)} | {percent(found.blind)}"
        f" | {percent(found.seen)} | {percent(found.right_if_seen)}"
        f" | {percent(found.right_if_not_seen)} |"
        for kind, found in kinds.items()
    ]
    known = _scenes(RenderedWorld(folders.train.root), folders.train.root)
    fresh = [one for one in judged["fine-tuned"] if _scene(world, one.video) not in known]
    lines += [
        "",
        f"Questions about clips in which things happen that no training clip shows"
        f" exactly so: {len(fresh)}, {percent(measure(fresh).right)} % right.",
    ]
    spent = {name: _spent(folders, name) for name in ("warm", "build", "sft")}
    report = json.loads((folders.out / "sft" / "report.json").read_text("utf-8"))
    curve = _thinned(report["curves"]["loss"])
    lines += [
        "",
        f"Time, loading and reports included: vision warm-up {spent['warm']}; fine-tuning"
        f" {spent['sft']}. The dataset before them took {spent['build']}.",
        "Loss by step: " + ", ".join(f"{step}: {loss:.3f}" for step, loss in curve) + ".",
    ]
    numbers = {
        "models": {name: measure(found)._asdict() for name, found in judged.items()},
        "by_kind": {kind: found._asdict() for kind, found in kinds.items()},
        "unseen_scripts": measure(fresh)._asdict(),
        "spent": {name: took._asdict() for name, took in spent.items()},
        "loss": report["curves"]["loss"],
    }
    return ResultTable("\n".join(lines), numbers)


def rl_table(
    folders: Folders,
    *,
    before: Path,
    clean: Path | None,
    runs: Mapping[tuple[str, int], tuple[Path, Spent]],
) -> ResultTable:
    """Each run from the same start, and per algorithm the pooled paired differences to it.

    `clean` is the model before label noise was added; None if the start has none.
    """
    world = RenderedWorld(folders.held_out.root)
    start = judge_file(before, world)
    parent = [("taught without faults", measure(judge_file(clean, world)))] if clean else []
    judged = {key: judge_file(path, world) for key, (path, _) in runs.items()}
    lines = [
        f"## RL from {'a start with planted faults' if clean else 'the fine-tuned model'}",
        "",
        f"{folders.config.rl_steps} steps of 8 questions x 8 rollouts; {len(start)} held-out"
        f" questions about {folders.held_out.clips} clips."
        f" {_PLANTED if clean else _NOT_PLANTED}",
        "",
        "| run | time | right, % | blind | format | seen | right if seen | if not |",
        "|---|---|---|---|---|---|---|---|",
        *(_run_row(name, None, found) for name, found in parent),
        _run_row("start", None, measure(start)),
    ]
    for (algo, seed), found in judged.items():
        lines.append(_run_row(f"{algo}, seed {seed}", runs[algo, seed][1], measure(found)))
    lines += [
        "",
        "| algorithm | seeds | answers right: points gained (95 %) | fully right observations |",
        "|---|---|---|---|",
    ]
    gains: dict[str, Any] = {}
    for algo in dict.fromkeys(algo for algo, _ in judged):
        after = [found for (name, _), found in judged.items() if name == algo]
        answers = pooled_gain(start, after, "is_right")
        seen = pooled_gain(start, after, "is_seen")
        gains[algo] = {"answers": vars(answers), "observations": vars(seen), "seeds": len(after)}
        lines.append(f"| {algo} | {len(after)} | {_points(answers)} | {_points(seen)} |")
    lines += ["", "Intervals: paired differences of all seeds, resampled by video."]
    numbers = {
        "start": measure(start)._asdict(),
        **{name.replace(" ", "_"): found._asdict() for name, found in parent},
        "runs": [
            {"algo": algo, "seed": seed, **runs[algo, seed][1]._asdict()} | measure(found)._asdict()
            for (algo, seed), found in judged.items()
        ],
        "gains": gains,
    }
    return ResultTable("\n".join(lines), numbers)


def repair_table(
    folders: Folders, *, before: Path, after: Mapping[int, Path], shuffled: Path
) -> ResultTable:
    """The shipped start, the model after RL by seed, and what they gained on the same questions."""
    world = RenderedWorld(folders.held_out.root)
    start = judge_file(before, world)
    runs = {seed: judge_file(path, world) for seed, path in after.items()}
    rows = {"start, with planted faults": start}
    rows |= {f"after RL, seed {seed}": found for seed, found in runs.items()}
    rows["the same, another clip's frames"] = judge_file(shuffled, world)
    lines = [
        f"{len(start)} held-out questions about {folders.held_out.clips} clips; a constant answer"
        f" is right in {percent(measure(start).blind)} %. In %:",
        "",
        "| model | answers right | observations that suffice |",
        "|---|---|---|",
    ]
    for name, found in rows.items():
        shares = measure(found)
        lines.append(f"| {name} | {percent(shares.right)} | {percent(shares.sufficient)} |")
    lines += [
        "",
        "| gained, points (95 %) | answers right | observations that suffice |",
        "|---|---|---|",
    ]
    groups = {f"seed {seed}": [found] for seed, found in runs.items()}
    if len(runs) > 1:
        groups["all seeds"] = list(runs.values())
    gains: dict[str, Any] = {}
    for name, group in groups.items():
        answers, observations = (
            pooled_gain(start, group, what) for what in ("is_right", "is_sufficient")
        )
        gains[name] = {"answers": vars(answers), "observations": vars(observations)}
        lines.append(f"| {name} | {_points(answers)} | {_points(observations)} |")
    lines += ["", "Intervals: paired differences, resampled by video."]
    measures = {name: measure(found)._asdict() for name, found in rows.items()}
    return ResultTable("\n".join(lines), {"models": measures, "gains": gains})


def pooled_gain(
    before: Sequence[JudgedAnswer], after: Sequence[Sequence[JudgedAnswer]], what: str
) -> Estimate:
    """Mean difference after - before in `what`, all runs together, videos resampled, in [-1, 1].

    Raises ValueError where a run answered other questions.
    """
    first = {one.question.question_id: one for one in before}
    videos, gains = [], []
    for run in after:
        if {one.question.question_id for one in run} != set(first):
            raise ValueError("the runs answered other questions than the start: evaluate them anew")
        for one in run:
            videos.append(one.question.media[0].path)
            gains.append(getattr(one, what) - getattr(first[one.question.question_id], what))
    return _mean_gain(gains, videos)


def _mean_gain(gains: Sequence[float], videos: Sequence[str]) -> Estimate:
    """The mean of differences in [-1, 1]; half of one, moved up by a half, is a share."""
    found = share((np.array(gains, dtype=np.float64) + 1) / 2, sample_design(videos))
    return Estimate(*(2 * end - 1 for end in (found.value, found.low, found.high)))


def frames_table(found: Mapping[str, Any]) -> ResultTable:
    """How often the frames that APPO selects are those that show the answer."""
    lines = [
        "## Selected and crucial frames",
        "",
        f"{found['groups']} groups of {found['rollouts']} rollouts of the start"
        f" ({found['frames']} temporal cells a clip, {found['crucial']:.2f} of them crucial on"
        " average). *chance*: as many cells drawn blindly.",
        "",
        "| strategy | K2 | groups that select | cells | recall | precision | chance |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['strategy']} | {one['frames_per_rollout']} | {one['groups']}"
        f" | {one['selected']:.2f} | {percent(one['recall'])} (chance"
        f" {percent(one['recall_by_chance'])}) | {percent(one['precision'])}"
        f" | {percent(one['precision_by_chance'])} |"
        for one in found["strategies"]
    ]
    return ResultTable("\n".join(lines), dict(found))


def grounding_table(before: Path, runs: Mapping[str, Path]) -> ResultTable:
    """Answers and time spans of the `grounding` template, and each run's gain."""
    import pyarrow.parquet as pq

    lines = [
        "## Grounding",
        "",
        "Answers in the `grounding` template: think, answer, and the time span that shows it."
        " *IoU* of the spans with the truth, in seconds; an answer without spans counts 0. *blind*:"
        " the mIoU of the best constant span. The start was fine-tuned on spans of which more than"
        " half are a second late: what RL repairs was planted. The reward in training:"
        " answer, format and IoU.",
        "",
        "| model | questions | right, % | mIoU, % | blind | IoU ≥ 0.3 | IoU ≥ 0.5 | gain (95 %) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    numbers: dict[str, Any] = {}
    first: dict[str, float] = {}
    for name, path in {"taught by the late teacher": before, **runs}.items():
        columns = ["question_id", "paths", "strict_is_correct", "strict_iou", "time_clues"]
        table = pq.read_table(path, columns=columns).to_pydict()
        overlaps = np.array([value or 0.0 for value in table["strict_iou"]])
        overlap_of = dict(zip(table["question_id"], overlaps, strict=True))
        first = first or overlap_of
        gain = _mean_gain(
            [overlap - first[key] for key, overlap in overlap_of.items()],
            [paths[0] for paths in table["paths"]],
        )
        numbers[name] = {
            "questions": len(overlaps),
            "right": float(np.mean(table["strict_is_correct"])),
            "miou": float(overlaps.mean()),
            "blind_miou": _best_constant_span(table["time_clues"]),
            "iou_0.3": float((overlaps >= 0.3).mean()),
            "iou_0.5": float((overlaps >= 0.5).mean()),
        }
        shares = [percent(share) for key, share in numbers[name].items() if key != "questions"]
        gained = _points(gain) if path != before else ""
        lines.append(f"| {name} | {len(overlaps)} | {' | '.join(shares)} | {gained} |")
        numbers[name]["gain"] = vars(gain)
    lines += ["", "*gain*: in mIoU, points; paired differences to the start, resampled by video."]
    return ResultTable("\n".join(lines), numbers)


def _best_constant_span(clues: Sequence[Sequence[Sequence[float]]]) -> float:
    """The best mean IoU that one constant span reaches, with ends that occur in the clues."""
    from judges.scoring.time_intervals import interval_iou

    golds = [tuple((span[0], span[1]) for span in spans) for spans in clues]
    ends = sorted({end for spans in golds for span in spans for end in span})
    guesses = [(a, b) for a in ends for b in ends if a < b]
    return max(
        sum(interval_iou(gold, (guess,)) for gold in golds) / len(golds) for guess in guesses
    )


def _row(name: str, judged: Sequence[JudgedAnswer]) -> str:
    found = measure(judged)
    interval = share(
        np.array([one.is_right for one in judged], dtype=np.float64),
        sample_design([one.question.media[0].path for one in judged]),
    )
    return (
        f"| {name} | {percent(found.right)} ({percent(interval.low)} to {percent(interval.high)})"
        f" | {percent(found.blind)} | {percent(found.adherence)} | {percent(found.seen)}"
        f" | {percent(found.attributes)} | {percent(found.right_if_seen)}"
        f" | {percent(found.right_if_not_seen)} |"
    )


def _run_row(name: str, spent: Spent | None, found: Measures) -> str:
    return (
        f"| {name} | {spent or ''} | {percent(found.right)} | {percent(found.blind)}"
        f" | {percent(found.adherence)} | {percent(found.seen)} | {percent(found.right_if_seen)}"
        f" | {percent(found.right_if_not_seen)} |"
    )


def _points(gain: Estimate) -> str:
    """`+8.1 (5.9 to 10.2)`, in points."""
    return f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"


def _spent(folders: Folders, name: str) -> Spent:
    done = json.loads((folders.out / "done" / f"{name}.json").read_text("utf-8"))
    return Spent(done["seconds"], done["cpu_seconds"])


def _thinned(points: Sequence[Sequence[float]]) -> list[tuple[int, float]]:
    """About `_CURVE_POINTS` of a curve's points, the last among them."""
    step = max(1, len(points) // _CURVE_POINTS)
    return [(int(x), y) for x, y in (*points[step - 1 : -1 : step], points[-1])]


def _scene(world: RenderedWorld, path: str) -> tuple[Any, ...]:
    """What happens in a clip, without sizes, places to the pixel, and noise."""
    things = world.clip(path).things
    return tuple((one.colour, one.shape, one.place, one.enters, one.leaves) for one in things)


def _scenes(world: RenderedWorld, root: Path) -> set[tuple[Any, ...]]:
    """The scenes of all clips of a world."""
    return {_scene(world, file.stem) for file in (root / "truth").glob("clip_*.json")}
