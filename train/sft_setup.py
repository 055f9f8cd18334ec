"""Sets up a fine-tuning run: reads the dataset, checks its files, holds rows out, tokenises."""

import json
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cli.config import UsageError
from cli.output_folder import has_begun
from judges.backends.base import BackendUnavailableError
from judges.backends.local import find_folder
from judges.backends.model_files.identity import weights_id
from schemas.annotations.reader import read_questions
from schemas.dataset_rows import (
    dataset_card_id,
    find_dataset_files,
    read_dataset_rows,
    rows_id,
)
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.serialization import write_text
from schemas.traces import TraceTemplate
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.data.sft_dataset import (
    LengthReport,
    SftRow,
    TokenRow,
    dataset_template,
    hold_out,
    refuse_unusable_files,
    sft_rows,
    tokenised,
    within_length,
)
from train.early_checks import needing_video
from train.sft_options import SftConfig
from train.trainers.distributed import is_first_process, wait_for_all_processes

_BEGUN_WITH = "begun_with.json"


@dataclass(frozen=True)
class SftData:
    """The rows that a run trains on, and the questions that it is measured on."""

    dataset_id: str
    template: TraceTemplate
    prompt_id: str
    train: list[TokenRow]
    held_out: list[TokenRow]
    held_out_questions: list[VideoQuestion]
    lengths: LengthReport


def prepare_data(
    config: SftConfig, loader: FrameLoader, processor: Any
) -> tuple[VideoInputs, SftData]:
    """Read, check every file, hold out, tokenise, drop what is too long. Raises UsageError."""
    try:
        files = find_dataset_files(config.dataset)
        rows = list(islice(read_dataset_rows(files), config.limit))
    except ValueError as error:
        raise UsageError(f"--dataset: {error}") from None
    if not rows:
        raise UsageError(f"--dataset {' '.join(map(str, config.dataset))} has no rows")
    if config.needs_video == "only":
        rows = needing_video(
            rows,
            lambda row: row.get("answerable_blind"),
            called="rows",
            is_printed=is_first_process(),
        )
    template = dataset_template(rows, config.template)
    inputs = VideoInputs(processor, loader, template, rope_positions=config.rope_positions)
    all_rows = sft_rows(rows, template, target=config.target)
    given = _held_out_questions(config)
    questions = [*(row.question for row in all_rows), *given]
    refuse_unusable_files(questions, loader, decode=config.decode_first)
    count = 0 if config.held_out_questions else config.held_out_rows
    to_train, held_out = hold_out(all_rows, count, config.seed)
    try:
        tokens = tokenised(to_train, inputs)
    except ValueError as error:  # such as a processor that does not belong to the model
        raise UsageError(f"--model {config.model} cannot read the dataset: {error}") from error
    names = [row.question.question_id for row in to_train]
    kept, lengths = within_length(tokens, names, inputs, config.max_length)
    if not kept:
        raise UsageError(f"no row is left to train on; {lengths.sentence()}")
    ids = [dataset_card_id(path) for path in config.dataset]
    return inputs, SftData(
        dataset_id=", ".join(name for name in ids if name)
        or rows_id([row["question_id"] for row in rows], [row["output"] for row in rows]),
        template=template,
        prompt_id=_prompt_id(all_rows[0], template),
        train=[tokens[place] for place in kept],
        held_out=tokenised(held_out, inputs),
        held_out_questions=given or [row.question for row in held_out],
        lengths=lengths,
    )


def refuse_changed_content(config: SftConfig, dataset_id: str) -> None:
    """Raise UsageError where a resumed run would see another dataset or other initial weights.

    Equal options do not exclude that: another dataset may lie at the same path.
    """
    try:
        weights = weights_id(find_folder(config.model))
    except BackendUnavailableError as error:
        raise UsageError(f"--model {config.model}: {error}") from None
    now = {"dataset": dataset_id, "model": weights}
    file = config.output_dir / _BEGUN_WITH
    if file.is_file() and has_begun(config.output_dir, "train.sft"):
        begun = json.loads(file.read_text("utf-8"))
        changed = [name for name in now if begun.get(name) != now[name]]
        if changed:
            changes = "; ".join(
                f"{name} was {begun.get(name)}, is now {now[name]}" for name in changed
            )
            raise UsageError(
                f"{config.output_dir} was begun with other content: {changes}; give the old files"
                " to resume, or another --output-dir to begin anew"
            )
    elif is_first_process():
        write_text(file, json.dumps(now, indent=2) + "\n")
    wait_for_all_processes()


def _held_out_questions(config: SftConfig) -> list[VideoQuestion]:
    if config.held_out_questions is None:
        return []
    try:
        found = list(read_questions(config.held_out_questions, media_root=config.media_root))
    except ValueError as error:
        raise UsageError(f"--held-out-questions: {error}") from None
    questions = [row for row in found if isinstance(row, VideoQuestion)]
    if not questions:
        raise UsageError(f"--held-out-questions {config.held_out_questions} holds no question")
    return questions


def _prompt_id(row: SftRow, template: TraceTemplate) -> str:
    return task_prompt(row.question, template.name, duration_seconds=1, num_frames=1).prompt_id
