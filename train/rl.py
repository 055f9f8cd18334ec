"""`python -m train.rl`: reinforcement learning on video questions, by GRPO's family.

    python -m train.rl --algo grpo --model out/sft --questions q.json --media-root clips \\
        --output-dir out/grpo
    python -m train.rl --algo pa-grpo+appo --judge claude:claude-haiku-5-5 ...
    python -m train.rl --reward accuracy my_rewards.py:brevity=0.5 ...
    accelerate launch -m train.rl ...            # a group stays in one process
    python -m train.rl ... --dry-run             # memory of each GPU, before anything is loaded
    python -m train.rl ...                       # the same command again resumes

GRPO, DAPO and Dr. GRPO reward the answer; PA-GRPO (VideoP2R, arXiv 2511.11113) rewards observation
and reasoning apart, each on its own tokens; `+appo` (APPO, arXiv 2602.23823) gives tokens that look
at crucial frames a larger weight. The output folder holds checkpoints, `model/` at the end,
`metrics.jsonl`, pages of rollouts, and the judge's ledger.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cli.config import UsageError, exit_with_usage_error, run_command, say
from cli.output_folder import check_folder, claim_folder, has_begun, left_as_it_was
from cli.plugins import load_plugins_of
from schemas.annotations.columns import parse_columns
from schemas.annotations.reader import UnreadableRow, read_questions
from schemas.questions import VideoQuestion
from train.early_checks import (
    needing_video,
    refuse_missing_folder,
    refuse_missing_model,
    refuse_unreadable_frames,
    refuse_unusable_backends,
)
from train.plan import print_plan
from train.rewards.quote import (
    JudgeQuote,
    RunLength,
    habits_by_options,
    habits_of_run,
    judge_quote,
)
from train.rl_checks import Settings, algorithm_of, check_questions, resolve_settings
from train.rl_options import (
    MAY_CHANGE_ON_RESUME,
    REFUSED,
    TRL_DEFAULTS,
    RlOptions,
    rl_config_class,
)
from train.trainers.distributed import num_processes, process_number
from train.training_options import (
    print_training_options,
    read_training_command,
    refuse_changed_training_options,
    save_training_options,
    saved_training_options,
)

PROG = "train.rl"
METRICS_FILE = "metrics.jsonl"  # as `train.monitoring.rl_report` has it, which draws pictures
DESCRIPTION = "Reinforcement learning on video questions: GRPO, DAPO, Dr. GRPO, PA-GRPO, APPO."


def main(argv: Sequence[str] | None = None) -> int:
    """Check the options and the questions, then train."""
    try:
        config, trl, questions = read_run(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        exit_with_usage_error(PROG, error)
    return begin_run(config, trl, questions)


def read_run(
    argv: Sequence[str],
) -> tuple[RlOptions, dict[str, Any], list[VideoQuestion]]:
    """Our options, TRL's that were given, and the questions. Raises UsageError."""
    questions: list[VideoQuestion] = []

    def check(config: RlOptions) -> None:
        _check_early(config)
        questions.extend(_questions(config))

    return *read_options(argv, check), questions


def begin_run(config: RlOptions, trl: dict[str, Any], questions: list[VideoQuestion]) -> int:
    """Look at the rest that can be wrong, then train, or plan under --dry-run. Raises UsageError.

    Returns the command's exit status.
    """
    settings = resolve_settings(config, trl, num_processes=num_processes())
    check_questions(questions, config, settings)
    if has_begun(config.output_dir, PROG):
        refuse_changed_training_options(config, trl, config.output_dir, MAY_CHANGE_ON_RESUME)
    if process_number() == 0:
        print_training_options(config, trl | _beside_defaults(settings.trl))
    if config.dry_run:
        if process_number() == 0 and config.judge is not None:
            print(_quote(config, settings, questions).text(config.max_cost_usd))
        return print_plan(config, settings.trl)
    # torch, transformers and TRL: the checks above need none of them
    from train.rl_run import run

    with left_as_it_was(config.output_dir, PROG):
        return run(config, settings, questions, begin=partial(_begin, config, trl))


def read_options(
    argv: Sequence[str], check: Callable[[RlOptions], None] | None = None
) -> tuple[RlOptions, dict[str, Any]]:
    """Our options, and TRL's that were given; plugins are loaded first. Raises UsageError.

    `check` looks at ours before TRL is loaded for its own.
    """
    load_plugins_of(argv)  # a token weighting brings options of its own
    return read_training_command(
        rl_config_class(),
        "GRPOConfig",
        argv,
        prog=PROG,
        description=DESCRIPTION,
        refused=REFUSED,
        check=check or _check_early,
    )


def _check_early(config: RlOptions) -> None:
    """What needs no TRL: it is loaded to read the options that are its own."""
    algorithm_of(config)
    if check_folder(config.output_dir, PROG) and has_begun(config.output_dir, PROG):
        refuse_changed_training_options(config, None, config.output_dir, MAY_CHANGE_ON_RESUME)
    refuse_missing_model(config.model)
    refuse_unusable_backends({"--judge": config.judge})
    refuse_unreadable_frames(config.frames, config.max_pixels)


def _quote(config: RlOptions, settings: Settings, questions: Sequence[VideoQuestion]) -> JudgeQuote:
    """What the judge will be asked and cost. Raises UsageError."""
    assert config.judge is not None
    if config.pilot is not None:
        habits = habits_of_run(config.pilot, _rollouts_of_pilot(config.pilot))
    else:
        habits = habits_by_options(
            config.perception_tokens,
            has_length_bonus=bool(config.length_weight and config.length_bonus),
        )
    length = _length(settings, num_processes())
    steps = length.steps(len(questions))
    return judge_quote(
        config.judge,
        config,
        questions,
        habits,
        rollouts=length.rollouts(steps),
        steps=steps,
        media_root=config.media_root,
    )


def _rollouts_of_pilot(folder: Path) -> int:
    """The rollouts of an earlier run, up to its last step. Raises UsageError."""
    options, trl = saved_training_options(rl_config_class(), folder, option="--pilot")
    try:
        last = (folder / METRICS_FILE).read_text("utf-8").splitlines()[-1]
        steps = int(json.loads(last)["step"])
    except (OSError, ValueError, LookupError, TypeError):
        raise UsageError(
            f"--pilot {folder} holds no {METRICS_FILE} with a step; give the output folder of a"
            " train.rl that has taken some"
        ) from None
    processes = len(list(folder.glob("judge-*.duckdb"))) or 1
    settings = resolve_settings(options, trl, num_processes=processes)
    return _length(settings, processes).rollouts(steps)


def _length(settings: Settings, processes: int) -> RunLength:
    return RunLength(settings.trl, settings.prompts_per_generation, settings.group_size, processes)


def _beside_defaults(trl: Mapping[str, Any]) -> dict[str, Any]:
    """TRL's options without those that every run has."""
    return {name: value for name, value in trl.items() if TRL_DEFAULTS.get(name, ...) != value}


def _begin(config: RlOptions, trl: dict[str, Any]) -> None:
    """The folder becomes this run's: model, data and judge are there."""
    if process_number() == 0:
        claim_folder(config.output_dir, PROG)
        save_training_options(config, trl, config.output_dir)


def _questions(config: RlOptions) -> list[VideoQuestion]:
    """The rows of the question file that can be read; the others are counted on stderr."""
    refuse_missing_folder(
        config.media_root, "--media-root", "under which the question file's paths lie"
    )
    questions, unreadable = [], []
    try:
        rows = read_questions(
            config.questions,
            format=config.format,
            strip_prefix=config.strip_prefix,
            columns=parse_columns(config.columns),
            media_root=config.media_root,
        )
        for number, row in enumerate(rows):
            if config.limit is not None and number >= config.limit:
                break
            if isinstance(row, UnreadableRow):
                unreadable.append(row)
            else:
                questions.append(row)
    except ValueError as error:
        raise UsageError(f"--questions: {error}") from None
    if unreadable and process_number() == 0:
        say(
            f"{len(unreadable)} of {len(questions) + len(unreadable)} rows of {config.questions}"
            f" cannot be read; the first, row {unreadable[0].row}: {unreadable[0].detail}"
        )
    if config.needs_video == "all":
        return questions
    return needing_video(
        questions,
        lambda question: question.answerable_blind,
        called="questions",
        is_printed=process_number() == 0,
    )


if __name__ == "__main__":
    run_command(PROG, main)
