"""The end of a fine-tuning run: the saved model and its card, template adherence, the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from cli.config import changed_options
from cli.index_page import write_index_page
from cli.output_folder import full_disk_is_told
from media.sampling import FrameSpec
from schemas.questions import VideoQuestion
from train.data.model_inputs import VideoInputs
from train.modeling.families import ModelFamily
from train.modeling.loading import save_dtype
from train.modeling.lora import save_merged, save_ordinary
from train.monitoring.model_card import VIDEO_P2R, ModelCard
from train.monitoring.sft_report import write_report
from train.monitoring.template_adherence import Adherence, measure_adherence
from train.sft_options import SftConfig
from train.sft_setup import SftData
from train.trainers.distributed import is_first_process, wait_for_all_processes
from train.trainers.sharded import is_spread, merged_again, save_whole_model

ADAPTER = "adapter"


def model_card(
    config: SftConfig,
    trl: Mapping[str, Any],
    data: SftData,
    family: ModelFamily,
    run: Mapping[str, Any],
) -> ModelCard:
    """The card of the models that a run saves."""
    answers = {"gold": "ground truth", "teacher": "the teacher's"}
    return ModelCard(
        command="train.sft",
        method="supervised fine-tuning",
        base_model=config.model,
        family=family,
        facts={
            "dataset": data.dataset_id,
            "dataset files": ", ".join(str(path) for path in config.dataset),
            "rows": f"{len(data.train):,} trained on, {len(data.held_out):,} held out",
            "answers in the traces": answers[config.target],
        },
        template=data.template.name,
        prompt_id=data.prompt_id,
        frames=FrameSpec(config.frames, config.max_pixels),
        options=changed_options(config) | dict(trl),
        run=run,
        papers=(VIDEO_P2R,),
        max_new_tokens=config.held_out_max_new_tokens,
    )


def finish(
    config: SftConfig, trainer: Any, inputs: VideoInputs, data: SftData, card: ModelCard
) -> None:
    """Save the model as an ordinary one, measure how it follows the template, write the report.

    All processes must call it: a sharded model is gathered by all.
    """
    out = config.output_dir
    generation = trainer.accelerator.unwrap_model(trainer.model).generation_config
    ends = _end_ids(generation)
    generation.eos_token_id = ends[0] if len(ends) == 1 else ends
    dtype = _save(config, trainer)
    why_not = ""
    if is_spread(trainer):
        why_not = "the model is spread over processes; python -m train.evaluate measures it"
    elif not data.held_out_questions:
        why_not = "no questions were held out (--held-out-rows, --held-out-questions)"
    if is_first_process():
        adherence = None
        if not why_not:
            adherence = _adherence(config, trainer, inputs, data.held_out_questions)
        if config.lora_rank:
            _save_merged(config, trainer, inputs, dtype)
            card.write(out)
        write_report(
            out,
            run=card.run,
            facts={**_facts(config, data), "training": _training(trainer)},
            log=trainer.state.log_history,
            adherence=adherence,
            why_no_adherence=why_not,
        )
        if adherence is not None and adherence.share is not None:
            print(
                f"template adherence on {adherence.num_questions} held-out questions:"
                f" {adherence.share:.2%}"
            )
        write_index_page(out)
        print(f"the model is in {out}, the report in {out / 'report.md'}")
    wait_for_all_processes()


def _save(config: SftConfig, trainer: Any) -> Any:
    """Save the trained weights or adapter. -> The format of whole models (None: training's)."""
    dtype = save_dtype(config.model, config.save_dtype)
    saved = config.output_dir / ADAPTER if config.lora_rank else config.output_dir
    if is_spread(trainer):
        save_whole_model(trainer, saved, None if config.lora_rank else dtype)
        return dtype
    if dtype is not None and not config.lora_rank:
        trainer.accelerator.unwrap_model(trainer.model).to(dtype)
    trainer.save_model(str(saved))
    return dtype


def _save_merged(config: SftConfig, trainer: Any, inputs: VideoInputs, dtype: Any) -> None:
    """Save the adapter and its base as one model; the trainer's is used up by it."""
    out, model = config.output_dir, trainer.accelerator.unwrap_model(trainer.model)
    with full_disk_is_told(out):
        if is_spread(trainer):
            merged = merged_again(model, config.model, config.dtype, out / ADAPTER)
            save_ordinary(merged, inputs.processor, out, dtype)
        else:
            save_merged(model, inputs.processor, out, dtype)


def _facts(config: SftConfig, data: SftData) -> dict[str, Any]:
    """What the report states about the run's model and data."""
    return {
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
