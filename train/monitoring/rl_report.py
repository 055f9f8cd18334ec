"""The report of a reinforcement learning run: OUT/report.md, OUT/report.json and its curves.

It is made of `metrics.jsonl` alone, so it covers a run that was resumed, from its first step on.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cli.markdown_page import cell
from schemas.serialization import write_text
from train.monitoring.curves import Points, draw_curves, points_of, what_changed
from train.monitoring.model_card import ModelCard

REPORT = "report.json"
METRICS_FILE = "metrics.jsonl"
_PANELS: Mapping[str, Mapping[str, str]] = {
    "reward": {
        "perception": "rewards/perception/total",
        "reasoning": "rewards/reasoning/total",
    },
    "accuracy": {
        "answers": "rewards/reasoning/accuracy",
        "observations": "rewards/perception/accuracy",
    },
    "template adherence": {"adherence": "template/adherence", "cut off": "completions/truncated"},
    "length, tokens": {
        "completion": "length/completion",
        "perception": "length/perception",
        "reasoning": "length/reasoning",
    },
    "KL to the reference, nats": {"KL": "kl"},
    "entropy, nats": {"entropy": "entropy"},
    "flat groups": {
        "perception": "groups/flat_perception",
        "reasoning": "groups/flat_reasoning",
    },
    "judge, seconds a step": {
        "until the last verdict": "judge/seconds",
        "waited": "judge/seconds_waited",
    },
    "APPO: tokens weighted": {"share": "appo/weighted_tokens"},
    "learner against sampler, nats": {"mean difference": "sampler/difference"},
    "seconds": {"a step": "step_time", "sampling": "time/sampling"},
}
"""Titles of the curves, and their lines: a label and its key in `metrics.jsonl`."""


class RunTotals(NamedTuple):
    """What a run's steps add up to."""

    steps: int
    judge_calls: int
    judge_cost_usd: float
    seconds: float
    """Of steps, summed over resumed runs; without what lies between them."""


def read_steps(out: Path) -> list[dict[str, Any]]:
    """The steps in a run's `metrics.jsonl`; none where it has not logged any."""
    path = out / METRICS_FILE
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def totals_of(steps: Sequence[Mapping[str, Any]]) -> RunTotals:
    """The sums over all steps."""

    def total(name: str) -> float:
        return math.fsum(value for _, value in points_of(steps, name))

    last = int(steps[-1]["step"]) if steps else 0
    calls, cost = round(total("judge/calls")), total("judge/cost_usd")
    return RunTotals(last, calls, cost, total("step_time"))


def write_rl_report(out: Path, card: ModelCard) -> RunTotals:
    """Write the report of a run that has ended."""
    steps = read_steps(out)
    drawn = {
        title: {label: points_of(steps, name) for label, name in names.items()}
        for title, names in _PANELS.items()
    }
    panels = {title: lines for title, lines in drawn.items() if _says_something(lines)}
    totals = totals_of(steps)
    if panels:
        draw_curves(panels, out / "curves.png")
    write_text(out / "report.md", _markdown(out, card, steps, totals, has_curves=bool(panels)))
    report = {
        "run": dict(card.run),
        "base_model": card.base_model,
        **card.facts,
        "totals": totals._asdict(),
        "curves": {
            name: points_of(steps, name)
            for name in sorted({name for step in steps for name in step} - {"step"})
        },
    }
    # Written last: its presence means that the run is finished.
    write_text(out / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return totals


def _says_something(lines: Mapping[str, Points]) -> bool:
    """Whether a panel has points, and not only zeros: a run without a judge waits for none."""
    return any(value for points in lines.values() for _, value in points)


def _markdown(
    out: Path,
    card: ModelCard,
    steps: Sequence[Mapping[str, Any]],
    totals: RunTotals,
    *,
    has_curves: bool,
) -> str:
    run = card.run
    dirty = " (with uncommitted changes)" if run["dirty"] else ""
    rows = {
        "base model": card.base_model,
        **card.facts,
        "template": card.template,
        "steps": f"{totals.steps:,} in {totals.seconds / 3600:,.2f} h",
        "judge": f"{card.facts['judge']}; {totals.judge_calls:,} calls,"
        f" ${totals.judge_cost_usd:,.2f} where the price is known",
        "run": run["run_id"],
        "commit": f"{run['commit'] or 'installed package'}{dirty}",
        "begun": run["started_at"],
    }
    lines = ["# Reinforcement learning on video", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {cell(value)} |" for name, value in rows.items()]
    if has_curves:
        lines += ["", "![Curves of the run](curves.png)"]
    lines += ["", *what_changed(steps, _PANELS)]
    lines += ["## Where things are", "", "| | |", "|---|---|"]
    places = {
        "model": "model/",
        "LoRA adapter": "adapter/",
        "pages of rollouts": "pages/index.html",
        "rollouts as JSON Lines": "rollouts/",
        "all metrics of each step": METRICS_FILE,
        "options": "options.json",
        "TRL's options": "trl_options.json",
    }
    lines += [
        f"| {name} | [{place}]({place}) |"
        for name, place in places.items()
        if (out / place).exists()
    ]
    lines += ["", "What each metric is: `docs/metrics.md` of the package.", ""]
    lines += ["## Versions", "", "| package | version |", "|---|---|"]
    lines += [f"| {name} | {version} |" for name, version in run["versions"].items()]
    return "\n".join([*lines, ""])
