"""The report of a fine-tuning run: OUT/report.json, OUT/report.md and a picture of its curves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.markdown_page import cell
from schemas.serialization import write_text
from train.monitoring.curves import Points, draw_curves, points_of
from train.monitoring.template_adherence import Adherence

_CURVES = {
    "loss": "loss per completion token, nats",
    "mean_token_accuracy": "share of correct completion tokens",
    "learning_rate": "learning rate",
}
REPORT = "report.json"


def write_report(
    out: Path,
    *,
    run: Mapping[str, Any],
    facts: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    adherence: Adherence | None,
    why_no_adherence: str,
) -> None:
    """Write the report. `facts` go into it as they are; `log` is the trainer's history of this run
    and of the runs that it resumes.
    """
    names = (*_CURVES, "grad_norm", "data_wait_share")
    curves = {name: points_of(log, name) for name in names}
    panels = {title: {name: curves[name]} for name, title in _CURVES.items()}
    draw_curves(panels, out / "curves.png")
    report = {
        "run": run,
        **facts,
        "adherence": adherence.as_json() if adherence else {"not_measured": why_no_adherence},
        "curves": curves,
    }
    write_text(out / "report.md", _markdown(run, facts, curves, adherence, why_no_adherence))
    # Written last: its presence means that the run is finished.
    write_text(out / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def _markdown(
    run: Mapping[str, Any],
    facts: Mapping[str, Any],
    curves: Mapping[str, Points],
    adherence: Adherence | None,
    why_no_adherence: str,
) -> str:
    losses = curves["loss"]
    first_to_last = f"{losses[0][1]:.4f} → {losses[-1][1]:.4f}" if losses else "not logged"
    dirty = " (with uncommitted changes)" if run["dirty"] else ""
    rows = {
        "model": facts["model"],
        "dataset": facts["dataset"]["id"],
        "rows trained on": f"{facts['dataset']['rows_trained']:,}",
        "target answer": facts["target"],
        "template": facts["template"],
        "prompt id": facts["prompt_id"],
        "steps": f"{facts['training']['steps']:,} of {facts['training']['rows_per_step']} rows",
        "loss, first to last logged": first_to_last,
        "waiting for data": f"{facts['training']['data_wait_share']:.1%} of the time",
        "run": run["run_id"],
        "commit": f"{run['commit'] or 'installed package'}{dirty}",
        "begun": run["started_at"],
    }
    lines = ["# Fine-tuning on video", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {cell(value)} |" for name, value in rows.items()]
    lines += ["", "![Loss, token accuracy and learning rate](curves.png)", "", "## Lengths", ""]
    lines += [str(facts["lengths"]["sentence"]), "", "## Template adherence", ""]
    lines += _adherence_lines(adherence, why_no_adherence)
    lines += ["## Versions", "", "| package | version |", "|---|---|"]
    lines += [f"| {name} | {version} |" for name, version in run["versions"].items()]
    lines += ["", "Options are in `options.json` and `trl_options.json`.", ""]
    return "\n".join(lines)


def _adherence_lines(adherence: Adherence | None, why_not: str) -> list[str]:
    if adherence is None or adherence.share is None:
        return [f"Not measured: {why_not or 'no held-out question could be answered'}.", ""]
    lines = [
        f"{adherence.well_formed} of {adherence.num_questions} greedy answers to held-out questions"
        f" are well-formed `{adherence.template}` traces ({adherence.share:.2%});"
        f" {adherence.truncated} ran into the limit of tokens.",
        "",
    ]
    if adherence.faults:
        lines += ["| fault | answers |", "|---|---:|"]
        lines += [f"| {fault} | {count} |" for fault, count in adherence.faults.items()]
        lines.append("")
    if adherence.unusable:
        lines += [
            f"{len(adherence.unusable)} held-out questions have a file that cannot be used,"
            f" the first: {cell(adherence.unusable[0])}.",
            "",
        ]
    return lines
