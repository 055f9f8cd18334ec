"""`python -m train.rl`: reinforcement learning on video questions, by GRPO's family.

    python -m train.rl --algo grpo --model out/sft/model --questions q.json --media-root clips \\
        --output-dir out/grpo
    python -m train.rl --algo pa-grpo+appo --judge claude:claude-haiku-4-5 ...
    accelerate launch -m train.rl ...            # a group stays in one process
    python -m train.rl ...                       # the same command again resumes

GRPO, DAPO and Dr. GRPO reward the answer; PA-GRPO (VideoP2R, arXiv 2511.11113) rewards observation
and reasoning apart, each on its own tokens; `+appo` (APPO, arXiv 2602.23823) lets tokens that look
at crucial frames learn harder. The output folder holds checkpoints, `model/` at the end,
`metrics.jsonl`, pages of rollouts, and the judge's ledger.
"""

import sys
from collections.abc import Sequence

from schemas.annotations import UnreadableRow, read_questions
from schemas.config import UsageError, run_command
from schemas.questions import VideoQuestion
from train.rl_checks import check_questions, num_processes, process_number, settle
from train.rl_options import MAY_CHANGE_ON_RESUME, REFUSED, RlConfig
from train.training_options import (
    OPTIONS_FILE,
    parse_training_command,
    print_training_options,
    refuse_changed_training_options,
    save_training_options,
)

PROG = "train.rl"
DESCRIPTION = "Reinforcement learning on video questions: GRPO, DAPO, Dr. GRPO, PA-GRPO, APPO."


def main(argv: Sequence[str] | None = None) -> int:
    """Check the options and the questions, then train."""
    config, trl = parse_training_command(
        RlConfig, "GRPOConfig", argv, prog=PROG, description=DESCRIPTION, refused=REFUSED
    )
    settings = settle(config, trl, num_processes=num_processes())
    questions = _questions(config)
    check_questions(questions, config, settings)
    if (config.output_dir / OPTIONS_FILE).is_file():
        refuse_changed_training_options(config, trl, config.output_dir, MAY_CHANGE_ON_RESUME)
    if process_number() == 0:
        print_training_options(config, trl | settings.trl)
        config.output_dir.mkdir(parents=True, exist_ok=True)
        save_training_options(config, trl, config.output_dir)
    # torch, transformers and TRL: what is wrong above is told without them
    from train.rl_run import run

    return run(config, settings, questions)


def _questions(config: RlConfig) -> list[VideoQuestion]:
    """The rows of the question file that can be read; the others are told."""
    if not config.media_root.is_dir():
        raise UsageError(
            f"--media-root {config.media_root} is not a folder; give the folder under which the"
            " question file's paths lie"
        )
    questions, unreadable = [], []
    try:
        rows = read_questions(
            config.questions, format=config.format, strip_prefix=config.strip_prefix
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
        print(
            f"{len(unreadable)} of {len(questions) + len(unreadable)} rows of {config.questions}"
            f" cannot be read; the first, row {unreadable[0].row}: {unreadable[0].detail}",
            file=sys.stderr,
        )
    return questions


if __name__ == "__main__":
    run_command(PROG, main)
