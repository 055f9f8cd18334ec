"""The end of a fine-tuning run: OUT/report.json, OUT/report.md and a picture of the curves."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.adherence import Adherence
from train.pictures import draw_curves

_CURVES = {
    "loss": "loss per completion token, nats",
    "mean_token_accuracy": "completion tokens right",
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
    """`facts` are told as they are; `log` is the trainer's history of this run and its resumes."""
    curves = {
        name: [(int(entry["step"]), float(entry[name])) for entry in log if name in entry]
        for name in (*_CURVES, "grad_norm", "data_wait_share")
    }
    draw_curves({title: curves[name] for name, title in _CURVES.items()}, out / "curves.png")
    report = {
        "run": run,
        **facts,
        "adherence": adherence.as_json() if adherence else {"not_measured": why_no_adherence},
        "curves": curves,
    }
    _write(out / "report.md", _markdown(run, facts, curves, adherence, why_no_adherence))
    # Last: where this file is, the run is finished.
    _write(out / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def _markdown(
    run: Mapping[str, Any],
    facts: Mapping[str, Any],
    curves: Mapping[str, Sequence[tuple[int, float]]],
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
    lines += [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
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
            f" the first: {_cell(adherence.unusable[0])}.",
            "",
        ]
    return lines


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
