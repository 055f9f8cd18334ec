"""`python -m train.evaluate`: numbers that can be believed, for a model or for answers that exist.

    python -m train.evaluate --model out/rl/model --questions q.json --media-root clips --out out/s
    python -m train.evaluate --predictions answers.jsonl
    python -m train.evaluate --predictions new.parquet --compare old.parquet --out out/difference
    python -m train.evaluate --observations-from out/s/predictions.parquet \\
        --reader local:Qwen/Qwen2.5-VL-7B-Instruct --out out/transfer

A file of answers has rows `{"question": {...}, "ground_truth": ..., "model_output": ...}` as
evaluations of video models write them, or is a `predictions.parquet` that this command wrote.
Scores that stand in it are never used: they are compared with ours, and rows that differ are told.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.config import (
    EXIT_OK,
    EXIT_ROWS_FAILED,
    EXIT_STOPPED,
    UsageError,
    parse_command,
    print_config,
    refuse_changed_options,
    run_command,
    save_config,
)
from train.evaluation.options import MAY_CHANGE_ON_RESUME, EvaluateConfig

if TYPE_CHECKING:
    from train.evaluation.predictions_file import PredictionsFile
    from train.evaluation.report import Answers
    from train.frame_loader import FrameLoader

PROG = "train.evaluate"
DESCRIPTION = (
    "Answer video questions with a model, or take answers that exist, and score them: strictly and "
    "tolerantly, with intervals clustered by video."
)
CONFIG_FILE = "config.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Get the answers, score them, print, and write where asked."""
    config = parse_command(EvaluateConfig, argv, prog=PROG, description=DESCRIPTION)
    print_config(config)
    from judges.backends.budget import StopRequested

    try:
        return _evaluate(config, [PROG, *(sys.argv[1:] if argv is None else argv)])
    except StopRequested as reason:
        print(f"{PROG}: stopped: {reason}; the same command again resumes", file=sys.stderr)
        return EXIT_STOPPED


def _evaluate(config: EvaluateConfig, command: Sequence[str]) -> int:
    from schemas.runs import start_run
    from train.evaluation.report import RULES, report_of
    from train.evaluation.tables import comparison_text, report_text

    folder = config.output_dir
    run = start_run(command, config)
    if folder is not None:
        _begin(folder, config)
    with ExitStack() as closing:
        loader = _loader(config, closing)
        answers = _answers(config, loader)
        extractor = RULES
        if config.extractor is not None:
            from train.evaluation.extraction import extracted

            assert folder is not None
            scored, extractor = extracted(answers.scored, config, folder)
            answers = replace(answers, scored=scored)
        report: dict[str, Any] = {"run": run.as_json(), **report_of(answers, extractor=extractor)}
        print(report_text(report))
        if config.compare is not None:
            found = report["comparison"] = _compared(answers, config.compare, config.template)
            print(comparison_text(found, "this run", str(config.compare)))
        if folder is not None:
            _write(folder, config, report, answers, loader)
    return EXIT_ROWS_FAILED if report["errors"] or report["unreadable"] else EXIT_OK


def _begin(folder: Path, config: EvaluateConfig) -> None:
    """Make the folder, or see that the answers in it were begun with the same options."""
    from train.evaluation.answer_log import ANSWERS_FILE

    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / CONFIG_FILE
    holds_answers = config.predictions is None or (folder / ANSWERS_FILE).exists()
    if saved.exists() and holds_answers:
        refuse_changed_options(config, saved, MAY_CHANGE_ON_RESUME)
    save_config(config, saved)


def _loader(config: EvaluateConfig, closing: ExitStack) -> "FrameLoader | None":
    if config.media_root is None:
        return None
    from train.evaluation.frames import frame_loader

    return closing.enter_context(frame_loader(config))


def _answers(config: EvaluateConfig, loader: "FrameLoader | None") -> "Answers":
    """The answers that the options name, scored."""
    from train.evaluation.report import score_all

    if config.predictions is not None:
        return _scored_file(config.predictions, "--predictions", config.template, config.limit)
    assert config.output_dir is not None
    if config.model is not None:
        from train.evaluation.model_answers import answer_by_model

        assert loader is not None
        answered = answer_by_model(config, loader, config.output_dir)
    else:
        from train.evaluation.transfer import answer_from_observations

        assert config.observations_from is not None
        source = _file(config.observations_from, "--observations-from")
        answered = answer_from_observations(config, source, config.output_dir)
    try:
        return score_all(
            answered.facts,
            answered.predictions,
            template=config.template,
            unreadable=answered.left_out,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _file(path: Path, option: str) -> "PredictionsFile":
    from train.evaluation.predictions_file import read_predictions

    try:
        return read_predictions(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"{option}: {error}") from None


def _scored_file(path: Path, option: str, template: str, limit: int | None = None) -> "Answers":
    """The answers in a file, scored."""
    from train.evaluation.report import score_all

    file = _file(path, option)
    try:
        return score_all(
            file.facts, file.predictions[:limit], template=template, unreadable=file.unreadable
        )
    except ValueError as error:
        raise UsageError(f"{option} {path}: {error}") from None


def _compared(answers: "Answers", other: Path, template: str) -> dict[str, Any]:
    from train.evaluation.comparison import compare_runs

    try:
        return compare_runs(answers.scored, _scored_file(other, "--compare", template).scored)
    except ValueError as error:
        raise UsageError(f"--compare {other}: {error}") from None


def _write(
    folder: Path,
    config: EvaluateConfig,
    report: dict[str, Any],
    answers: "Answers",
    loader: "FrameLoader | None",
) -> None:
    from train.evaluation.page import PAGE_FILE, write_answers_page
    from train.evaluation.predictions_file import write_predictions

    write_predictions(
        folder / "predictions.parquet",
        answers.facts,
        [one.prediction for one in answers.scored],
        [one.as_columns() for one in answers.scored],
    )
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(f"{text}\n", encoding="utf-8")
    write_answers_page(
        folder / PAGE_FILE,
        answers,
        report,
        loader=loader,
        max_rows=config.page_rows,
        max_bytes=config.page_megabytes * 1e6,
    )
    print(f"wrote report.json, predictions.parquet and {PAGE_FILE} in {folder}")


if __name__ == "__main__":
    run_command(PROG, main)
