"""What a fine-tuning run trains on: read, each file checked, held out, tokenised, not too long."""

import json
from dataclasses import dataclass
from itertools import islice
from typing import Any

from judges.backends.base import BackendUnavailableError
from judges.backends.local import find_folder
from judges.backends.weights import weights_id
from media.cache import default_cache_dir
from media.sampling import FrameSpec
from schemas.annotations import read_questions
from schemas.config import UsageError
from schemas.dataset_files import (
    dataset_card_id,
    find_dataset_files,
    read_dataset_rows,
    rows_id,
)
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.traces import TraceTemplate
from train.frame_loader import FrameLoader
from train.processes import is_first_process, wait_for_all_processes
from train.sft_data import (
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
from train.sft_options import SftConfig
from train.video_inputs import VideoInputs

_BEGUN_WITH = "begun_with.json"


@dataclass(frozen=True)
class SftData:
    """What a run trains on and is measured on."""

    dataset_id: str
    template: TraceTemplate
    prompt_id: str
    train: list[TokenRow]
    held_out: list[TokenRow]
    held_out_questions: list[VideoQuestion]
    lengths: LengthReport


def open_frames(config: SftConfig) -> FrameLoader:
    """Frames of the media under the configured root. Raises UsageError."""
    if not config.media_root.is_dir():
        raise UsageError(
            f"--media-root {config.media_root} is not a folder; give the folder under which the"
            " dataset's paths lie"
        )
    try:
        return FrameLoader(
            config.media_root,
            spec=FrameSpec.parse(config.frames, config.max_pixels),
            cache_dir=config.frame_cache or default_cache_dir(),
            reader=config.reader,
            timeout_seconds=config.decode_timeout_seconds,
            workers=config.decode_workers,
            follow_symlinks=config.follow_symlinks,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def prepare_data(
    config: SftConfig, loader: FrameLoader, processor: Any
) -> tuple[VideoInputs, SftData]:
    """Read, check every file, hold out, tokenise, drop what is too long."""

    try:
        files = find_dataset_files(config.dataset)
        rows = list(islice(read_dataset_rows(files), config.limit))
    except ValueError as error:
        raise UsageError(f"--dataset: {error}") from None
    if not rows:
        raise UsageError(f"--dataset {' '.join(map(str, config.dataset))} has no rows")
    template = dataset_template(rows, config.template)
    inputs = VideoInputs(processor, loader, template)
    all_rows = sft_rows(rows, template, target=config.target)
    asked = _held_out_questions(config)
    questions = [*(row.question for row in all_rows), *asked]
    refuse_unusable_files(questions, loader, decode=config.decode_first)
    count = 0 if config.held_out_questions else config.held_out_rows
    to_train, held_out = hold_out(all_rows, count, config.seed)
    tokens = tokenised(to_train, inputs)
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
        held_out_questions=asked or [row.question for row in held_out],
        lengths=lengths,
    )


def hold_to_what_was_begun(config: SftConfig, dataset_id: str) -> None:
    """A resumed run learns from the same rows and starts from the same weights. Raises UsageError.

    The options alone do not say so: another dataset may lie at the same path.
    """
    try:
        weights = weights_id(find_folder(config.model))
    except BackendUnavailableError as error:
        raise UsageError(f"--model {config.model}: {error}") from None
    now = {"dataset": dataset_id, "model": weights}
    file = config.output_dir / _BEGUN_WITH
    if file.is_file():
        begun = json.loads(file.read_text("utf-8"))
        changed = [name for name in now if begun.get(name) != now[name]]
        if changed:
            told = "; ".join(
                f"{name} was {begun.get(name)}, is now {now[name]}" for name in changed
            )
            raise UsageError(
                f"{config.output_dir} was begun with other content: {told}; give the old files to"
                " resume, or another --output-dir to begin anew"
            )
    elif is_first_process():
        file.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    wait_for_all_processes()


def _held_out_questions(config: SftConfig) -> list[VideoQuestion]:
    if config.held_out_questions is None:
        return []
    try:
        found = list(read_questions(config.held_out_questions))
    except ValueError as error:
        raise UsageError(f"--held-out-questions: {error}") from None
    questions = [row for row in found if isinstance(row, VideoQuestion)]
    if not questions:
        raise UsageError(f"--held-out-questions {config.held_out_questions} holds no question")
    return questions


def _prompt_id(row: SftRow, template: TraceTemplate) -> str:
    return task_prompt(row.question, template.name, duration_seconds=1, num_frames=1).prompt_id
