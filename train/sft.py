"""`python -m train.sft`: fine-tune a video language model on a dataset of traces.

    python -m train.sft --model Qwen/Qwen2.5-VL-7B-Instruct --dataset out/cot --media-root videos \
        --output-dir out/sft
    accelerate launch -m train.sft ...                     # several GPUs; the batch stays 16 rows
    python -m train.sft ... --dry-run                      # memory of each GPU, nothing is loaded

The prompt is a question with its video; the completion is the trace with the ground truth as its
answer (VideoP2R, arXiv:2511.11113, section 4: one epoch, 16 frames, 128 x 28 x 28 pixels, 16 rows a
step). Settings that the paper leaves out are those of the code that it builds on: learning rate
1e-6, linear decay, gradients clipped at 5. The trainer is `trl.SFTTrainer` with our collator, which
passes the video on, restricts the loss to the completion, and never cuts a row.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from cli.config import EXIT_OK, EXIT_STOPPED, UsageError, run_command, say
from cli.output_folder import check_folder, claim_folder, has_begun, left_as_it_was
from train.early_checks import (
    refuse_missing_file,
    refuse_missing_folder,
    refuse_missing_model,
    refuse_missing_questions,
    refuse_unreadable_frames,
)
from train.plan import print_plan
from train.sft_options import MAY_CHANGE_ON_RESUME, REFUSED, SftConfig, accumulation_steps
from train.sharding_options import refuse_other_deepspeed, take_deepspeed_option
from train.trainers.distributed import num_processes
from train.training_options import (
    parse_training_command,
    print_training_options,
    refuse_changed_training_options,
    save_training_options,
)

if TYPE_CHECKING:
    from train.data.frame_loader import FrameLoader
    from train.data.model_inputs import VideoInputs
    from train.data.sft_collator import BatchesAhead
    from train.data.sft_dataset import TokenRow
    from train.monitoring.model_card import ModelCard
    from train.sft_setup import SftData

PROG = "train.sft"
_REPORT_TO = ("tensorboard",)


def main(argv: Sequence[str] | None = None) -> int:
    """Check options, folder and data, train, write the report."""
    config, trl = parse_training_command(
        SftConfig,
        "SFTConfig",
        argv,
        prog=PROG,
        description="Fine-tune a video language model on traces.",
        refused=REFUSED,
        check=_check_early,
        trackers=_REPORT_TO,
    )
    refuse_other_deepspeed(trl, os.environ, num_processes=num_processes())
    if has_begun(config.output_dir, PROG):
        refuse_changed_training_options(config, trl, config.output_dir, MAY_CHANGE_ON_RESUME)
    if config.dry_run:
        return print_plan(config, trl)
    from train.data.frame_loader import FrameLoader
    from train.monitoring.sft_report import REPORT
    from train.trainers.checkpoint_files import only_run_in
    from train.trainers.distributed import is_first_process

    arguments = _arguments(config, trl)
    if (config.output_dir / REPORT).exists():
        say(f"{config.output_dir} is finished: {config.output_dir / 'report.md'}", sys.stdout)
        return EXIT_OK
    if is_first_process():
        print_training_options(config, trl)
    with ExitStack() as closing:
        closing.enter_context(left_as_it_was(config.output_dir, PROG))
        closing.enter_context(only_run_in(config.output_dir))
        loader = closing.enter_context(
            FrameLoader.from_options(config, config.media_root, workers=config.decode_workers)
        )
        return _train(config, trl, arguments, loader, closing)


def _train(
    config: SftConfig,
    trl: dict[str, Any],
    arguments: Any,
    loader: "FrameLoader",
    closing: ExitStack,
) -> int:
    from cli.console import quieten_libraries
    from schemas.runs import start_run
    from train.modeling.loading import load_processor, processor_family
    from train.modeling.numerics import NotFiniteError
    from train.monitoring.console import SFT_COLUMNS, StepConsole
    from train.sft_ending import finish, model_card
    from train.sft_setup import prepare_data, refuse_changed_content
    from train.trainers.checkpoint_files import checkpoint_to_resume
    from train.trainers.checkpoints import after_divergence
    from train.trainers.distributed import is_first_process
    from train.trainers.sft_trainer import StopOnSignal

    quieten_libraries(arguments.log_level)
    run = start_run([PROG, *sys.argv[1:]], config.as_json() | {"trl": trl})
    inputs, data = prepare_data(config, loader, load_processor(config.model))
    refuse_changed_content(config, data.dataset_id)
    if is_first_process():
        say(data.lengths.sentence())
    card = model_card(config, trl, data, processor_family(inputs.processor), run.as_json())
    trainer = _trainer(config, arguments, inputs, data, closing, card)
    stop = StopOnSignal()
    trainer.add_callback(stop)
    console = closing.enter_context(StepConsole(SFT_COLUMNS))
    trainer.add_callback(console)
    console.replace_bars_of(trainer)
    if is_first_process():
        claim_folder(config.output_dir, PROG)
        save_training_options(config, trl, config.output_dir)
    try:
        found = checkpoint_to_resume(config.output_dir, num_processes=arguments.world_size)
        trainer.train(resume_from_checkpoint=None if found is None else str(found))
    except NotFiniteError as error:
        say(f"{PROG}: stopped: {after_divergence(error, config.output_dir)}")
        return EXIT_STOPPED
    finally:
        stop.restore()
    if stop.is_asked and trainer.state.global_step < trainer.state.max_steps:
        say(
            f"{PROG}: stopped after step {trainer.state.global_step} of {trainer.state.max_steps};"
            " the same command again resumes"
        )
        return EXIT_STOPPED
    finish(config, trainer, inputs, data, card)
    return EXIT_OK


def _arguments(config: SftConfig, trl: dict[str, Any]) -> Any:
    """TRL's configuration: our options and the paper's defaults, then the user's TRL options."""
    import torch

    from train.trainers.sharded import prepare_deepspeed
    from train.trainers.trl_imports import SFTConfig

    on_gpu = torch.cuda.is_available() and not trl.get("use_cpu")
    bf16 = on_gpu and torch.cuda.is_bf16_supported() and not trl.get("fp16")
    ours = {
        "output_dir": str(config.output_dir),
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "num_train_epochs": config.num_train_epochs,
        "learning_rate": config.learning_rate,
        "max_grad_norm": config.max_grad_norm,
        "seed": config.seed,
        "bf16": bf16 if config.bf16 is None else config.bf16,
        "gradient_checkpointing": (
            on_gpu if config.gradient_checkpointing is None else config.gradient_checkpointing
        ),
        "report_to": list(_REPORT_TO),
        "prediction_loss_only": True,
        # The newest and the one before it, should that be damaged: each is several models large.
        "save_total_limit": 2,
        "dataloader_pin_memory": on_gpu,
        # Rows are prepared and cut to length here, not by TRL.
        "max_length": None,
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    given = ours | trl
    take_deepspeed_option(given, os.environ)
    try:
        arguments = SFTConfig(**given)
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"TRL does not take these options: {error}") from None
    arguments.gradient_accumulation_steps = accumulation_steps(config, arguments.world_size)
    prepare_deepspeed(arguments)
    return arguments


def _check_early(config: SftConfig) -> None:
    """What needs neither torch nor TRL."""
    if check_folder(config.output_dir, PROG) and has_begun(config.output_dir, PROG):
        refuse_changed_training_options(config, None, config.output_dir, MAY_CHANGE_ON_RESUME)
    refuse_missing_model(config.model)
    refuse_unreadable_frames(config.frames, config.max_pixels)
    for path in config.dataset:
        refuse_missing_file(path, "--dataset", "the output folder of a build, or Parquet files")
    refuse_missing_questions(config.held_out_questions, "--held-out-questions")
    refuse_missing_folder(config.media_root, "--media-root", "under which the dataset's paths lie")


def _trainer(
    config: SftConfig,
    arguments: Any,
    inputs: "VideoInputs",
    data: "SftData",
    closing: ExitStack,
    card: "ModelCard",
) -> Any:
    """The model and its trainer. Held-out rows are TRL's evaluation dataset."""
    from judges.backends.model_files.texts import refuse_foreign_tokens
    from train.data.sft_dataset import end_token_id
    from train.modeling.families import family_of
    from train.modeling.loading import load_policy, training_dtype
    from train.modeling.lora import adapter_from_options
    from train.modeling.vision_cache import vision_tower
    from train.trainers.sft_trainer import VideoSFTTrainer, row_numbers

    dtype = training_dtype(config.dtype, has_adapter=config.lora_rank > 0)
    model = load_policy(config.model, dtype=dtype, device="cpu", attention=config.attention)
    refuse_foreign_tokens(config.model, model, inputs.processor)
    _end_generation_at(model, end_token_id(inputs))
    if config.freeze_vision:
        vision_tower(model).requires_grad_(False)
    num_train = len(data.train)
    held_out = range(num_train, num_train + len(data.held_out))
    ahead = batches_ahead(arguments, inputs, [*data.train, *data.held_out])
    closing.callback(ahead.close)
    return VideoSFTTrainer(
        rows_ahead=ahead,
        write_card=card.write,
        model=model,
        args=arguments,
        processing_class=inputs.processor,
        train_dataset=row_numbers(range(num_train)),
        eval_dataset=row_numbers(held_out) if held_out else None,
        peft_config=adapter_from_options(config, family_of(model.config)),
    )


def batches_ahead(
    arguments: Any, inputs: "VideoInputs", rows: "Sequence[TokenRow]"
) -> "BatchesAhead":
    """The trainer's collator: batches of row numbers, prepared two steps ahead."""
    from train.data.sft_collator import BatchesAhead, SftCollator

    collate = SftCollator(inputs, pad_to_multiple_of=arguments.pad_to_multiple_of)
    return BatchesAhead(
        lambda numbers: collate([rows[number] for number in numbers]),
        batch_size=arguments.per_device_train_batch_size,
        num_ahead=2 * arguments.gradient_accumulation_steps,
        num_processes=arguments.world_size,
    )


def _end_generation_at(model: Any, end: int) -> None:
    """Make the saved model stop generating at the token that ends the training targets."""
    known = model.generation_config.eos_token_id
    ends = [] if known is None else [known] if isinstance(known, int) else list(known)
    if end not in ends:
        model.generation_config.eos_token_id = [end, *ends]


if __name__ == "__main__":
    from media.frames import MediaError

    run_command(PROG, main, usage_errors=(MediaError,))
