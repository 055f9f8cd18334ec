"""`python -m train.evaluate`: scores of a model, or of answers that exist.

    python -m train.evaluate --model out/rl/model --questions q.json --media-root clips --out out/s
    python -m train.evaluate --predictions answers.jsonl
    python -m train.evaluate --predictions new.parquet --compare old.parquet --out out/difference
    python -m train.evaluate --observations-from out/s/predictions.parquet \\
        --observation-reader Qwen/Qwen2.5-VL-7B-Instruct --out out/transfer

A file of answers has rows `{"question": {...}, "ground_truth": ..., "model_output": ...}` as
evaluations of video models write them, or is a `predictions.parquet` of this command. Scores in it
are never used: they are compared with ours, and rows that differ are listed.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.config import (
    EXIT_OK,
    EXIT_ROWS_FAILED,
    EXIT_STOPPED,
    UsageError,
    parse_command,
    print_config,
    refuse_changed_options,
    require_packages,
    run_command,
    save_config,
    say,
)
from cli.output_folder import check_folder, claim_folder, left_as_it_was
from schemas.serialization import write_text
from train.early_checks import (
    EVALUATION_PACKAGES,
    refuse_missing_file,
    refuse_missing_folder,
    refuse_missing_model,
    refuse_missing_questions,
    refuse_unreadable_frames,
    refuse_unusable_backends,
)
from train.evaluation.options import MAY_CHANGE_ON_RESUME, EvaluateConfig, backend_specs

if TYPE_CHECKING:
    from train.data.frame_loader import FrameLoader
    from train.evaluation.backend_calls import CallsFolder
    from train.evaluation.predictions import Predictions
    from train.evaluation.report import ScoredAnswers

PROG = "train.evaluate"
DESCRIPTION = (
    "Answer video questions with a model, or take answers that exist, and score them: strictly and "
    "tolerantly, with intervals clustered by video."
)
CONFIG_FILE = "config.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Get the answers, score them, print, and write where asked."""
    config = parse_command(EvaluateConfig, argv, prog=PROG, description=DESCRIPTION)
    _check_early(config)
    print_config(config)
    from judges.backends.budget import StopRequested

    try:
        return _evaluate(config, [PROG, *(sys.argv[1:] if argv is None else argv)])
    except StopRequested as reason:
        say(f"{PROG}: stopped: {reason}; the same command again resumes")
        return EXIT_STOPPED


def _check_early(config: EvaluateConfig) -> None:
    """What needs no torch: nothing is loaded or written for a run that cannot begin."""
    if config.output_dir is not None:
        check_folder(config.output_dir, PROG)
    refuse_missing_questions(config.questions, "--questions")
    for option, path in {
        "--predictions": config.predictions,
        "--observations-from": config.observations_from,
        "--compare": config.compare,
    }.items():
        refuse_missing_file(path, option, "one that is there")
    if config.media_root is not None:
        refuse_missing_folder(config.media_root, "--media-root", "under which the media lie")
    refuse_unreadable_frames(config.frames, config.max_pixels)
    refuse_unusable_backends(backend_specs(config))
    if config.model is not None:
        require_packages(*EVALUATION_PACKAGES)
        refuse_missing_model(config.model)


def _evaluate(config: EvaluateConfig, command: Sequence[str]) -> int:
    from schemas.runs import start_run
    from train.evaluation.report import RULES, report_of
    from train.evaluation.tables import comparison_text, report_text

    folder = config.output_dir
    run = start_run(command, config)
    calls_folder = _calls_folder(config)
    with ExitStack() as closing:
        if folder is not None:
            closing.enter_context(left_as_it_was(folder, PROG))
            _begin(folder, config)
        loader = _loader(config, closing)
        answers = _answers(config, loader, calls_folder)
        extractor = RULES
        if config.extractor is not None:
            from train.evaluation.backend_calls import extract_conclusions

            assert calls_folder is not None
            scores, extractor = extract_conclusions(answers.scores, config, calls_folder)
            answers = replace(answers, scores=scores)
        answers, about = _read_by_models(answers, config, calls_folder)
        report: dict[str, Any] = {"run": run.as_json(), **report_of(answers, extractor=extractor)}
        report |= about
        say(report_text(report), sys.stdout)
        if config.compare is not None:
            found = report["comparison"] = _compared(answers, config.compare, config.template)
            say(comparison_text(found, "this run", str(config.compare)), sys.stdout)
        if folder is not None:
            _write(folder, config, report, answers, loader)
    return EXIT_ROWS_FAILED if report["errors"] or report["unreadable"] else EXIT_OK


def _read_by_models(
    answers: "ScoredAnswers", config: EvaluateConfig, calls_folder: "CallsFolder | None"
) -> tuple["ScoredAnswers", dict[str, Any]]:
    """The answers as text-only models mark and read them, and what the report says of these."""
    about: dict[str, Any] = {}
    if config.blind is None and config.answer_extractor is None:
        return answers, about
    from train.evaluation.text_only import extract_answers, mark_blind

    assert calls_folder is not None
    if config.blind is not None:
        scores, about["blind"] = mark_blind(answers.scores, config, calls_folder)
        answers = replace(answers, scores=scores)
    if config.answer_extractor is not None:
        scores, about["answer_extraction"] = extract_answers(answers.scores, config, calls_folder)
        answers = replace(answers, scores=scores)
    return answers, about


def _begin(folder: Path, config: EvaluateConfig) -> None:
    """Make the folder, or check that the answers in it were made with the same options."""
    from train.evaluation.answering.answer_log import ANSWERS_FILE

    saved = folder / CONFIG_FILE
    holds_answers = config.predictions is None or (folder / ANSWERS_FILE).exists()
    if claim_folder(folder, PROG) and holds_answers:
        refuse_changed_options(config, saved, MAY_CHANGE_ON_RESUME)
    save_config(config, saved)


def _loader(config: EvaluateConfig, closing: ExitStack) -> "FrameLoader | None":
    if config.media_root is None:
        return None
    from train.evaluation.eval_questions import frame_loader

    return closing.enter_context(frame_loader(config))


def _calls_folder(config: EvaluateConfig) -> "CallsFolder | None":
    """Where calls go, after the models that they go to have answered; None without such models."""
    asked = (config.extractor, config.observation_reader, config.answer_extractor, config.blind)
    if config.output_dir is None or not any(asked):
        return None
    from train.evaluation.backend_calls import checked_folder

    return checked_folder(config, config.output_dir)


def _answers(
    config: EvaluateConfig, loader: "FrameLoader | None", calls_folder: "CallsFolder | None"
) -> "ScoredAnswers":
    """The answers of the source that the options name, scored."""
    if config.predictions is not None:
        return _scored_file(config.predictions, "--predictions", config.template, config.limit)
    assert config.output_dir is not None
    if config.model is not None:
        from train.evaluation.answering.model_answers import answer_by_model

        assert loader is not None
        found = answer_by_model(config, loader, config.output_dir)
        return _scored(found, config.template)
    from train.evaluation.backend_calls import answer_from_observations

    assert config.observations_from is not None
    assert calls_folder is not None
    source = _read(config.observations_from, "--observations-from")
    return _scored(answer_from_observations(config, source, calls_folder), config.template)


def _scored_file(
    path: Path, option: str, template: str, limit: int | None = None
) -> "ScoredAnswers":
    """The answers in a file, scored."""
    found = _read(path, option)
    found = replace(found, predictions=found.predictions[:limit])
    return _scored(found, template, f"{option} {path}: ")


def _read(path: Path, option: str) -> "Predictions":
    from train.evaluation.predictions_file import read_predictions

    try:
        return read_predictions(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"{option}: {error}") from None


def _scored(found: "Predictions", template: str, named: str = "") -> "ScoredAnswers":
    from train.evaluation.report import score_all

    try:
        return score_all(found, template=template)
    except ValueError as error:
        raise UsageError(f"{named}{error}") from None


def _compared(answers: "ScoredAnswers", other: Path, template: str) -> dict[str, Any]:
    from train.evaluation.report import compare_runs

    try:
        return compare_runs(answers.scores, _scored_file(other, "--compare", template).scores)
    except ValueError as error:
        raise UsageError(f"--compare {other}: {error}") from None


def _write(
    folder: Path,
    config: EvaluateConfig,
    report: dict[str, Any],
    answers: "ScoredAnswers",
    loader: "FrameLoader | None",
) -> None:
    from train.evaluation.metrics import added_columns
    from train.evaluation.page import PAGE_FILE, write_answers_page
    from train.evaluation.predictions_file import write_predictions

    write_predictions(
        folder / "predictions.parquet",
        answers.conditions,
        [one.prediction for one in answers.scores],
        [one.as_columns() | added_columns(one) for one in answers.scores],
    )
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / "report.json", f"{text}\n")
    write_answers_page(
        folder / PAGE_FILE,
        answers,
        report,
        loader=loader,
        max_rows=config.page_rows,
        max_bytes=config.page_megabytes * 1e6,
    )
    say(f"wrote report.json, predictions.parquet and {PAGE_FILE} in {folder}", sys.stdout)


if __name__ == "__main__":
    run_command(PROG, main)
