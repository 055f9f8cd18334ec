"""`python -m train.evaluate`: numbers for answers, from their raw text alone.

    python -m train.evaluate --predictions answers.jsonl
    python -m train.evaluate --predictions answers.jsonl --out out/scores
    python -m train.evaluate --predictions new.jsonl --compare old.jsonl

The file has rows `{"question": {...}, "ground_truth": ..., "model_output": ...}` as evaluations of
video models write them, or is a `predictions.parquet` that this command wrote. Scores that stand in
it are never used: they are compared with ours, and the rows that differ are told.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.config import EXIT_OK, Config, UsageError, parse_command, run_command, save_config

if TYPE_CHECKING:
    from train.evaluation.predictions_file import PredictionsFile
    from train.evaluation.scoring import Scored

PROG = "train.evaluate"
_SHOWN_ROWS = 10


class EvaluateConfig(Config):
    """Options of `train.evaluate`."""

    predictions: Path
    """Answers to score: JSON Lines of {question, ground_truth, model_output}, or a
    predictions.parquet of this command."""
    compare: Path | None = None
    """Answers of another run to the same questions: McNemar's tests and the difference with its
    interval."""
    template: str = ""
    """Trace template that the answers should follow (p2r, think-answer, grounding), where the file
    does not say it; without one no adherence is reported."""
    output_dir: Path | None = None
    """Folder for report.json and predictions.parquet (answers with what was read from them)."""
    seed: int = 0
    """Seed of the resampling of videos: the same answers give the same report."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read, score, print, and write where asked."""
    config = parse_command(
        EvaluateConfig,
        argv,
        prog=PROG,
        description="Score answers from their raw text: strict and tolerant, with intervals.",
    )
    from train.evaluation.summary import compare, summarize
    from train.evaluation.tables import comparison_text, summary_text

    file, scored, left_out = _scored(config.predictions, config.template)
    summary = summarize(scored, seed=config.seed)
    report: dict[str, Any] = {
        "predictions": str(config.predictions),
        "conditions": file.facts.sentence(),
        **summary.as_json(),
        "unreadable": list(file.unreadable),
        "without_usable_gold": left_out,
        "differs_from_published": [_difference(one) for one in _differing(scored)],
    }
    print(summary_text(summary, file.facts.sentence()))
    _say_what_was_left_out(file.unreadable, left_out)
    _say_what_differs(scored)
    if config.compare is not None:
        _, others, _ = _scored(config.compare, config.template)
        try:
            found = {
                reading: compare(scored, others, reading, seed=config.seed)
                for reading in ("strict", "tolerant")
            }
        except ValueError as error:
            raise UsageError(f"--compare {config.compare}: {error}") from None
        print(comparison_text(found, config.predictions.name, config.compare.name))
        report["comparison"] = {
            reading: {"unmatched": unmatched} | asdict(comparison)
            for reading, (comparison, unmatched) in found.items()
        }
    if config.output_dir is not None:
        _write(config.output_dir, config, report, file, scored)
    return EXIT_OK


def _scored(path: Path, template: str) -> tuple["PredictionsFile", list["Scored"], list[str]]:
    """The file, its scored rows, and why rows have no gold answer that can be read."""
    from schemas.traces import TEMPLATES
    from train.evaluation.predictions_file import read_predictions
    from train.evaluation.scoring import score_prediction, unscorable

    try:
        file = read_predictions(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"--predictions: {error}") from None
    name = template or file.facts.template
    if name and name not in TEMPLATES:
        raise UsageError(f"--template {name}: expected one of {', '.join(TEMPLATES)}")
    scored, left_out = [], []
    for prediction in file.predictions:
        if complaint := unscorable(prediction):
            left_out.append(f"question {prediction.question.problem_id}: {complaint}")
        else:
            scored.append(score_prediction(prediction, name))
    if not scored:
        raise UsageError(f"{path} has no question whose gold answer can be read: {left_out[0]}")
    return file, scored, left_out


def _differing(scored: Sequence["Scored"]) -> list["Scored"]:
    """Rows whose published score is not the tolerant one."""
    return [
        one
        for one in scored
        if one.prediction.published_score is not None
        and abs(one.prediction.published_score - one.tolerant_score) > 1e-6
    ]


def _difference(one: "Scored") -> dict[str, Any]:
    return {
        "problem_id": one.prediction.question.problem_id,
        "gold": one.prediction.question.solution,
        "published": one.prediction.published_score,
        "strict": one.strict_score,
        "tolerant": one.tolerant_score,
        "read": one.tolerant_answer,
    }


def _say_what_was_left_out(unreadable: Sequence[str], left_out: Sequence[str]) -> None:
    for what, rows in (("cannot be read", unreadable), ("have no usable gold answer", left_out)):
        if rows:
            print(f"{len(rows)} rows {what} and are left out; the first: {rows[0]}")


def _say_what_differs(scored: Sequence["Scored"]) -> None:
    rows = _differing(scored)
    if not rows:
        return
    print(f"{len(rows)} rows score otherwise (tolerant) than the file itself says:")
    for one in rows[:_SHOWN_ROWS]:
        told = _difference(one)
        print(
            f"  question {told['problem_id']}: published {told['published']:g}, ours"
            f" {told['tolerant']:g}; gold {told['gold']}, read {told['read']!r}"
        )
    if len(rows) > _SHOWN_ROWS:
        print(f"  ... and {len(rows) - _SHOWN_ROWS} more (all of them in report.json with --out)")


def _write(
    folder: Path,
    config: EvaluateConfig,
    report: dict[str, Any],
    file: "PredictionsFile",
    scored: Sequence["Scored"],
) -> None:
    from schemas.runs import start_run
    from train.evaluation.predictions_file import write_predictions

    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, folder / "config.json")
    write_predictions(
        folder / "predictions.parquet",
        file.facts,
        [one.prediction for one in scored],
        [one.as_columns() for one in scored],
    )
    report = {"run": start_run(sys.argv, config).as_json(), **report}
    text = json.dumps(_finite(report), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(f"{text}\n", encoding="utf-8")
    print(f"wrote {folder / 'report.json'} and predictions.parquet")


def _finite(value: Any) -> Any:
    """NaN, an interval that is not defined, is null in JSON."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value


if __name__ == "__main__":
    run_command(PROG, main)
