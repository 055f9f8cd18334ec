"""`python -m train.evaluate`: numbers that can be believed, for a model or for answers that exist.

    python -m train.evaluate --model out/rl --questions q.json --media-root clips --out out/scores
    python -m train.evaluate --predictions answers.jsonl
    python -m train.evaluate --predictions new.parquet --compare old.parquet --out out/difference
    python -m train.evaluate --observations-from out/scores/predictions.parquet \\
        --reader local:Qwen/Qwen2.5-VL-7B-Instruct --out out/transfer

A file of answers has rows `{"question": {...}, "ground_truth": ..., "model_output": ...}` as
evaluations of video models write them, or is a `predictions.parquet` that this command wrote.
Scores that stand in it are never used: they are compared with ours, and rows that differ are told.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.config import (
    EXIT_OK,
    EXIT_ROWS_FAILED,
    UsageError,
    parse_command,
    run_command,
    save_config,
)
from train.evaluation.options import EvaluateConfig

if TYPE_CHECKING:
    from train.evaluation.report import Answers

PROG = "train.evaluate"
DESCRIPTION = "Answer video questions with a model, or score answers that exist: strict, tolerant."


def main(argv: Sequence[str] | None = None) -> int:
    """Get the answers, score them, print, and write where asked."""
    config = parse_command(EvaluateConfig, argv, prog=PROG, description=DESCRIPTION)
    from train.evaluation.report import report_of
    from train.evaluation.tables import comparison_text, report_text

    assert config.predictions is not None
    answers = _scored_file(config.predictions, config.template)
    report: dict[str, Any] = {"predictions": str(config.predictions), **report_of(answers)}
    print(report_text(report))
    if config.compare is not None:
        report["comparison"] = _compared(answers, config.compare, config.template)
        print(comparison_text(report["comparison"], config.predictions.name, config.compare.name))
    if config.output_dir is not None:
        _write(config.output_dir, config, report, answers)
    return EXIT_ROWS_FAILED if report["errors"] else EXIT_OK


def _scored_file(path: Path, template: str) -> "Answers":
    """The answers in a file, scored."""
    from train.evaluation.predictions_file import read_predictions
    from train.evaluation.report import score_all

    try:
        file = read_predictions(path)
        return score_all(
            file.facts, file.predictions, template=template, unreadable=file.unreadable
        )
    except (ValueError, OSError) as error:
        raise UsageError(f"--predictions {path}: {error}") from None


def _compared(answers: "Answers", other: Path, template: str) -> dict[str, Any]:
    from train.evaluation.comparison import compare_runs

    try:
        return compare_runs(answers.scored, _scored_file(other, template).scored)
    except ValueError as error:
        raise UsageError(f"--compare {other}: {error}") from None


def _write(
    folder: Path, config: EvaluateConfig, report: dict[str, Any], answers: "Answers"
) -> None:
    from schemas.runs import start_run
    from train.evaluation.predictions_file import write_predictions

    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, folder / "config.json")
    write_predictions(
        folder / "predictions.parquet",
        answers.facts,
        [one.prediction for one in answers.scored],
        [one.as_columns() for one in answers.scored],
    )
    report = {"run": start_run(sys.argv, config).as_json(), **report}
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(f"{text}\n", encoding="utf-8")
    print(f"wrote {folder / 'report.json'} and predictions.parquet")


if __name__ == "__main__":
    run_command(PROG, main)
