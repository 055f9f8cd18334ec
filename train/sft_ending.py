"""What follows the last step of a fine-tuning run: adherence, the saved model, the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.prompting import save_prompt_files
from schemas.questions import VideoQuestion
from train.adherence import Adherence, measure_adherence
from train.processes import is_first_process, wait_for_all_processes
from train.sft_options import SftConfig
from train.sft_report import write_report
from train.video_inputs import VideoInputs

ADAPTER = "adapter"


def finish(
    config: SftConfig,
    trainer: Any,
    inputs: VideoInputs,
    questions: Sequence[VideoQuestion],
    facts: Mapping[str, Any],
    run: Mapping[str, Any],
) -> None:
    """Save the model as an ordinary one, measure how it follows the template, write the report.

    All processes must call it: a sharded model is gathered by all.
    """
    out = config.output_dir
    generation = trainer.accelerator.unwrap_model(trainer.model).generation_config
    ends = _end_ids(generation)
    generation.eos_token_id = ends[0] if len(ends) == 1 else ends
    trainer.save_model(str(out / ADAPTER if config.lora_rank else out))
    if is_first_process():
        save_prompt_files(out, inputs.template.name)
    is_sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    why_not = ""
    if is_sharded:
        why_not = "the model is spread over processes; python -m train.evaluate measures it"
    elif not questions:
        why_not = "no questions were held out (--held-out-rows, --held-out-questions)"
    if is_first_process():
        adherence = None
        if not why_not:
            adherence = _adherence(config, trainer, inputs, questions)
        if config.lora_rank and not is_sharded:
            from train.adapters import save_merged

            adapted = trainer.accelerator.unwrap_model(trainer.model)
            save_merged(adapted, inputs.processor, out)
        write_report(
            out,
            run=run,
            facts={**facts, "training": _training(trainer)},
            log=trainer.state.log_history,
            adherence=adherence,
            why_no_adherence=why_not,
        )
        if adherence is not None and adherence.share is not None:
            print(
                f"template adherence on {adherence.num_questions} held-out questions:"
                f" {adherence.share:.2%}"
            )
        print(f"the model is in {out}, the report in {out / 'report.md'}")
    wait_for_all_processes()


def _adherence(
    config: SftConfig, trainer: Any, inputs: VideoInputs, questions: Sequence[VideoQuestion]
) -> Adherence:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return measure_adherence(
        model,
        questions,
        inputs,
        end_ids=_end_ids(model.generation_config),
        max_new_tokens=config.held_out_max_new_tokens,
        batch_size=config.held_out_batch_size,
    )


def _end_ids(generation: Any) -> list[int]:
    """Each end token once: transformers repeats the tokenizer's when it aligns the model to it."""
    ends = generation.eos_token_id
    return [ends] if isinstance(ends, int) else list(dict.fromkeys(ends))


def _training(trainer: Any) -> dict[str, Any]:
    arguments, state = trainer.args, trainer.state
    runtime = next(
        (entry["train_runtime"] for entry in state.log_history[::-1] if "train_runtime" in entry),
        0.0,
    )
    return {
        "steps": state.global_step,
        "epochs": state.epoch,
        "processes": arguments.world_size,
        "per_device_train_batch_size": arguments.per_device_train_batch_size,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
        "rows_per_step": arguments.per_device_train_batch_size
        * arguments.gradient_accumulation_steps
        * arguments.world_size,
        "bf16": arguments.bf16,
        "seconds_since_resume": runtime,
        "data_wait_share": trainer.total_waited_seconds / runtime if runtime else 0.0,
    }
