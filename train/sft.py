"""`python -m train.sft`: warm a video language model up on a dataset of traces.

    python -m train.sft --model Qwen/Qwen2.5-VL-7B-Instruct --dataset out/cot --media-root videos \
        --output-dir out/sft
    accelerate launch -m train.sft ...                     # several GPUs; the batch stays 16 rows

Questions and videos are the prompt, the trace is what is learned, with the ground truth as its
answer (VideoP2R, arXiv:2511.11113, section 4: one epoch, 16 frames, 128 x 28 x 28 pixels, 16 rows a
step). Where the paper is silent its lineage decides: learning rate 1e-6, linear decay, gradients
clipped at 5. Training is `trl.SFTTrainer`; what is ours is that the video reaches the model, that
the loss is on the completion alone, and that no row is cut or trained without its video.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from schemas.config import EXIT_OK, EXIT_STOPPED, UsageError, run_command
from train.sft_options import MAY_CHANGE_ON_RESUME, REFUSED, SftConfig, accumulation_steps
from train.training_options import (
    OPTIONS_FILE,
    parse_training_command,
    print_training_options,
    refuse_changed_training_options,
    save_training_options,
)

if TYPE_CHECKING:
    from train.frame_loader import FrameLoader
    from train.sft_collator import BatchesAhead
    from train.sft_data import TokenRow
    from train.sft_setup import SftData
    from train.video_inputs import VideoInputs

PROG = "train.sft"


def main(argv: Sequence[str] | None = None) -> int:
    """Check everything, train, report."""
    config, trl = parse_training_command(
        SftConfig,
        "SFTConfig",
        argv,
        prog=PROG,
        description="Fine-tune a video language model on traces.",
        refused=REFUSED,
    )
    from train.processes import is_first_process
    from train.sft_report import REPORT
    from train.sft_setup import open_frames

    arguments = _arguments(config, trl)
    with arguments.main_process_first(desc="output folder"):
        _claim(config, trl)
    if (config.output_dir / REPORT).exists():
        print(f"{config.output_dir} is finished: {config.output_dir / 'report.md'}")
        return EXIT_OK
    if is_first_process():
        print_training_options(config, trl)
    with ExitStack() as closing:
        loader = closing.enter_context(open_frames(config))
        return _train(config, trl, arguments, loader, closing)


def _train(
    config: SftConfig,
    trl: dict[str, Any],
    arguments: Any,
    loader: "FrameLoader",
    closing: ExitStack,
) -> int:
    from schemas.runs import start_run
    from train.models import load_processor
    from train.processes import is_first_process
    from train.sft_setup import hold_to_what_was_begun, prepare_data
    from train.sft_trainer import StopOnSignal

    run = start_run([PROG, *sys.argv[1:]], config.as_json() | {"trl": trl})
    inputs, data = prepare_data(config, loader, load_processor(config.model))
    hold_to_what_was_begun(config, data.dataset_id)
    if is_first_process():
        print(data.lengths.sentence(), file=sys.stderr)
    trainer = _trainer(config, arguments, inputs, data, closing)
    stop = StopOnSignal()
    trainer.add_callback(stop)
    try:
        trainer.train(resume_from_checkpoint=_checkpoint(config, arguments.world_size))
    finally:
        stop.restore()
    if stop.is_told and trainer.state.global_step < trainer.state.max_steps:
        print(
            f"{PROG}: stopped after step {trainer.state.global_step} of {trainer.state.max_steps};"
            " the same command again resumes",
            file=sys.stderr,
        )
        return EXIT_STOPPED
    _finish(config, trainer, inputs, data, run.as_json())
    return EXIT_OK


def _arguments(config: SftConfig, trl: dict[str, Any]) -> Any:
    """TRL's configuration: our options and the paper's defaults, then what the user gave."""
    import torch

    from train.trl_library import SFTConfig

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
        "report_to": ["tensorboard"],
        "prediction_loss_only": True,
        "dataloader_pin_memory": on_gpu,
        # Rows are prepared and cut to length here, not by TRL.
        "max_length": None,
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    try:
        arguments = SFTConfig(**(ours | trl))
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"TRL does not take these options: {error}") from None
    arguments.gradient_accumulation_steps = accumulation_steps(config, arguments.world_size)
    return arguments


def _claim(config: SftConfig, trl: dict[str, Any]) -> None:
    """Make the output folder ours, or see that it is the same run's."""
    out = config.output_dir
    if (out / OPTIONS_FILE).is_file():
        refuse_changed_training_options(config, trl, out, MAY_CHANGE_ON_RESUME)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--output-dir {out} holds something else; give a new folder")
    else:
        out.mkdir(parents=True, exist_ok=True)
        save_training_options(config, trl, out)


def _trainer(
    config: SftConfig,
    arguments: Any,
    inputs: "VideoInputs",
    data: "SftData",
    closing: ExitStack,
) -> Any:
    """The model and its trainer. Held-out rows are TRL's evaluation dataset."""
    import torch

    from train.models import load_policy
    from train.sft_data import end_token_id
    from train.sft_trainer import VideoSFTTrainer, row_numbers

    dtype = config.model_dtype
    if dtype == "auto":
        dtype = "bfloat16" if config.lora_rank and torch.cuda.is_available() else "float32"
    model = load_policy(config.model, dtype=dtype, device="cpu", attention=config.attention)
    _end_generation_at(model, end_token_id(inputs))
    if config.freeze_vision:
        model.model.visual.requires_grad_(False)
    adapter = None
    if config.lora_rank:
        from train.adapters import lora_config

        adapter = lora_config(
            config.lora_rank,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            targets=config.lora_targets,
        )
    num_train = len(data.train)
    held_out = range(num_train, num_train + len(data.held_out))
    ahead = batches_ahead(arguments, inputs, [*data.train, *data.held_out])
    closing.callback(ahead.close)
    return VideoSFTTrainer(
        rows_ahead=ahead,
        model=model,
        args=arguments,
        processing_class=inputs.processor,
        train_dataset=row_numbers(range(num_train)),
        eval_dataset=row_numbers(held_out) if held_out else None,
        peft_config=adapter,
    )


def batches_ahead(
    arguments: Any, inputs: "VideoInputs", rows: "Sequence[TokenRow]"
) -> "BatchesAhead":
    """The trainer's collator: batches of row numbers, two steps of them prepared ahead."""
    from train.sft_collator import BatchesAhead, SftCollator

    collate = SftCollator(inputs, pad_to_multiple_of=arguments.pad_to_multiple_of)
    return BatchesAhead(
        lambda numbers: collate([rows[number] for number in numbers]),
        batch_size=arguments.per_device_train_batch_size,
        num_ahead=2 * arguments.gradient_accumulation_steps,
        num_processes=arguments.world_size,
    )


def _end_generation_at(model: Any, end: int) -> None:
    """The saved model stops where its training ended."""
    known = model.generation_config.eos_token_id
    ends = [] if known is None else [known] if isinstance(known, int) else list(known)
    if end not in ends:
        model.generation_config.eos_token_id = [end, *ends]


def _checkpoint(config: SftConfig, num_processes: int) -> str | None:
    """The checkpoint to go on from. Raises UsageError where there are only foreign ones."""
    from train.resuming import last_whole_checkpoint

    found = last_whole_checkpoint(config.output_dir, num_processes=num_processes)
    if found is None and any(config.output_dir.glob("checkpoint-*/trainer_state.json")):
        raise UsageError(
            f"the checkpoints in {config.output_dir} were not written by {num_processes} processes;"
            " resume with as many as the run was begun with"
        )
    return None if found is None else str(found)


def _finish(
    config: SftConfig,
    trainer: Any,
    inputs: "VideoInputs",
    data: "SftData",
    run: dict[str, Any],
) -> None:
    """Measure, save the model, write the report."""
    from train.sft_ending import finish

    facts = {
        "model": config.model,
        "dataset": {
            "id": data.dataset_id,
            "files": [str(path) for path in config.dataset],
            "rows_trained": len(data.train),
            "rows_held_out": len(data.held_out),
        },
        "target": config.target,
        "template": data.template.name,
        "prompt_id": data.prompt_id,
        "frame_spec": {"policy": config.frames, "max_pixels": config.max_pixels},
        "lengths": {**vars(data.lengths), "sentence": data.lengths.sentence()},
    }
    finish(config, trainer, inputs, data.held_out_questions, facts, run)


if __name__ == "__main__":
    from media.frames import MediaError

    run_command(PROG, main, usage_errors=(MediaError,))
