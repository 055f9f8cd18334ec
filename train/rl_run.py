"""One run of reinforcement learning: built from its options, started or resumed, and closed."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cli.config import EXIT_OK, EXIT_ROWS_FAILED, EXIT_STOPPED, UsageError, say
from cli.console import quieten_libraries
from cli.output_folder import make_folder
from judges.backends.model_files.texts import refuse_foreign_tokens
from media.sampling import FrameSpec
from schemas.questions import MediaRef, VideoQuestion
from schemas.runs import start_run
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import TOKEN_WEIGHTINGS
from train.algorithms.token_weighting import AlgorithmError
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.data.prompt_dataset import PromptDataset
from train.modeling.loading import (
    load_policy,
    load_processor,
    processor_family,
    training_dtype,
)
from train.modeling.lora import adapter_from_options, base_of_adapter
from train.modeling.numerics import NotFiniteError
from train.modeling.vision_cache import vision_tower
from train.monitoring.console import RL_COLUMNS, Column, StepConsole
from train.monitoring.rl_callback import RunReports
from train.rewards.group_rewarder import (
    GroupRewarder,
    JudgePatience,
    JudgeUnavailableError,
    RewardError,
)
from train.rewards.judge_client import JudgeClient
from train.rewards.segment_rewards import RewardConfig
from train.rl_checks import Settings
from train.rl_ending import model_card, report_end, save_model
from train.rl_options import RlOptions, refuse_taken_options
from train.rl_rollouts import opened_engine, tolerance_of
from train.rollouts.sampler import sample_rollouts
from train.rollouts.streaming import RolloutServerError
from train.sharding_options import take_deepspeed_option
from train.trainers.checkpoint_files import checkpoint_to_resume, only_run_in, state_of
from train.trainers.checkpoints import StopAtBoundary, after_divergence
from train.trainers.distributed import (
    any_process,
    is_first_process,
    process_number,
    sum_over_processes,
)
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.parity_check import ParityError, check_parity
from train.trainers.sharded import prepare_deepspeed, read_weights_in_every_process
from train.trainers.trl_imports import GRPOConfig

_log = logging.getLogger(__name__)


def run(
    config: RlOptions,
    settings: Settings,
    questions: Sequence[VideoQuestion],
    *,
    begin: Callable[[], None] = lambda: None,
) -> int:
    """Train, and return the exit status. The judge's server is checked first.

    `begin` is called once all is open and checked, before the first step.
    """

    def check_and_begin() -> None:
        if config.parity_check:
            _check_parity(trainer, rows, config)
        begin()

    with ExitStack() as closing:
        closing.enter_context(only_run_in(config.output_dir))
        checkpoint = checkpoint_to_resume(config.output_dir)
        step = 0 if checkpoint is None else _step_of(checkpoint)
        judge = None
        if config.judge is not None:
            judge = closing.enter_context(_judge(config))
            judge.check()
        arguments = _arguments(config, settings)
        quieten_libraries(arguments.log_level)
        processor = load_processor(config.model)
        loader = closing.enter_context(
            FrameLoader.from_options(config, config.media_root, workers=config.decode_workers)
        )
        inputs = VideoInputs(
            processor, loader, settings.template, rope_positions=config.rope_positions
        )
        rows = PromptDataset(
            _with_files(questions, loader, settings), inputs.prompt, prefetch=loader.prefetch
        )
        _refuse_unknown_reference(config, arguments)
        family = processor_family(processor)
        record = start_run(sys.argv, config.as_json() | {"trl": settings.trl})
        card = model_card(config, settings, questions, family, record.as_json())
        reports = RunReports(
            config.output_dir,
            inputs=inputs,
            weighting=settings.weighting,
            reward_names=tuple(settings.rewards.weights),
            last_step=step,
            pages_every=config.pages_every,
            page_groups=config.page_groups,
        )
        console = closing.enter_context(StepConsole(_columns(config)))
        stop = closing.enter_context(StopAtBoundary())
        rewarder = _rewarder(config, settings, judge, inputs, stop)
        closing.callback(rewarder.close)
        engine = opened_engine(config, inputs, arguments)
        if engine is not None:
            closing.callback(engine.close)
        trainer = VideoGRPOTrainer(
            _model(config, processor),
            arguments,
            rows,
            processor=processor,
            template=settings.template,
            credit=CreditAssignment(
                settings.algo,
                scale=settings.scale,
                group_reward=config.group_reward,
                weighting=settings.weighting,
            ),
            rewarder=rewarder,
            rollout_source=partial(
                sample_rollouts,
                groups_at_once=config.groups_at_once,
                merge_adapters=config.merge_adapters,
            ),
            engine=engine,
            rollouts_ahead=config.rollouts_ahead,
            importance_cap=config.importance_cap,
            sampler_tolerance=tolerance_of(config, arguments),
            observe=reports.observe,
            before_first_step=check_and_begin,
            share_prompts=config.share_prompts,
            completions_per_pass=config.completions_per_pass,
            peft_config=adapter_from_options(config, family),
            callbacks=[stop, reports, console],
            write_card=card.write,
        )
        stop.trainer = trainer
        console.replace_bars_of(trainer)
        status = _train(trainer, checkpoint, stop)
        if status == EXIT_OK:
            status = EXIT_ROWS_FAILED if rows.lost else EXIT_OK
            save_model(trainer, config, processor, card)
            if is_first_process():
                report_end(config, card)
        for number, reason in rows.lost.items():
            say(f"row {number} was not used: {reason}")
        return status


def _columns(config: RlOptions) -> list[Column]:
    """Of the console; a run without a judge waits for none."""
    without = () if config.judge else ("judge/seconds_waited",)
    return [each for each in RL_COLUMNS if each.keys != without]


def _train(trainer: VideoGRPOTrainer, checkpoint: Path | None, stop: StopAtBoundary) -> int:
    if checkpoint is not None and _is_finished(checkpoint):
        say(f"training has ended already, at {checkpoint}")
        trainer.load_checkpoint(checkpoint)
        return EXIT_OK
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except ParityError as error:
        raise UsageError(f"--vllm-url: {error}") from None
    except (JudgeUnavailableError, RewardError, RolloutServerError) as error:
        # The generation whose rewards are missing has changed no weight: this step is whole.
        trainer.save_whole_step()
        return _stopped(trainer, error)
    except AlgorithmError as error:
        if trainer.is_at_generation_boundary:  # else the last checkpoint stands
            trainer.save_whole_step()
        return _stopped(trainer, error)
    except NotFiniteError as error:
        return _stopped(trainer, after_divergence(error, Path(trainer.args.output_dir)))
    if stop.is_requested:
        say(f"stopped at step {trainer.state.global_step}; the same command again resumes")
        return EXIT_STOPPED
    return EXIT_OK


def _stopped(trainer: VideoGRPOTrainer, error: Exception | str) -> int:
    say(f"stopped at step {trainer.state.global_step}: {error}")
    return EXIT_STOPPED


def _judge(config: RlOptions) -> JudgeClient:
    assert config.judge is not None
    make_folder(config.output_dir)
    return JudgeClient(
        config.judge,
        ledger_path=config.output_dir / f"judge-{process_number()}.duckdb",
        media_root=config.media_root,
        options=config,
        policy=config.model,
        frame_spec=FrameSpec(config.frames, config.max_pixels).frame_spec_id,
    )


def _rewarder(
    config: RlOptions,
    settings: Settings,
    judge: JudgeClient | None,
    inputs: VideoInputs,
    stop: StopAtBoundary,
) -> GroupRewarder:
    def duration_seconds(question: VideoQuestion) -> float:
        video = next((ref for ref in question.media if ref.kind == "video"), None)
        return 0.0 if video is None else inputs.loader.load(video).duration_seconds

    return GroupRewarder(
        settings.template,
        RewardConfig(**{each.name: getattr(config, each.name) for each in fields(RewardConfig)}),
        judge,
        plan=settings.rewards,
        duration_seconds=duration_seconds,
        frame_times=inputs.cell_seconds,
        allow_leaks=config.allow_leaks,
        patience=JudgePatience(
            max_missing_share=config.missing_rewards_limit,
            pause_seconds=config.judge_pause_seconds,
            max_pauses=config.judge_pauses,
        ),
        sum_over_processes=sum_over_processes,
        stop_requested=lambda: stop.is_requested,
        asks_ahead=config.judge_ahead,
    )


def _arguments(config: RlOptions, settings: Settings) -> GRPOConfig:
    """TRL's configuration. Raises UsageError for values that it refuses."""
    taken = {each.name for each in fields(GRPOConfig)}
    for weighting in TOKEN_WEIGHTINGS.values():
        refuse_taken_options(weighting, taken)
    given = dict(settings.trl)
    if settings.is_sharded:
        os.environ["ACCELERATE_USE_FSDP"] = "true"  # the one spelling that accelerate reads
    take_deepspeed_option(given, os.environ)
    on_gpu = torch.cuda.is_available() and not given.get("use_cpu", False)
    given.setdefault("bf16", on_gpu and not given.get("fp16", False))
    given.setdefault("gradient_checkpointing", on_gpu)  # memory is what it saves
    given.setdefault("dataloader_pin_memory", on_gpu)
    try:
        arguments = GRPOConfig(output_dir=str(config.output_dir), **given)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    prepare_deepspeed(arguments)
    if settings.is_sharded and arguments.beta and not config.lora_rank:
        read_weights_in_every_process(arguments)
    return arguments


def _refuse_unknown_reference(config: RlOptions, arguments: GRPOConfig) -> None:
    """TRL loads a reference by the name in the model's configuration: an adapter's base."""
    if arguments.beta and not config.lora_rank and base_of_adapter(config.model) is not None:
        raise UsageError(
            f"--beta {arguments.beta:g} needs a reference, but {config.model} is an adapter, whose"
            " reference would be its base model; merge it into a whole model first, or give"
            " --beta 0 or --lora-rank"
        )


def _model(config: RlOptions, processor: Any) -> Any:
    dtype = training_dtype(config.dtype, has_adapter=config.lora_rank > 0)
    model = load_policy(config.model, dtype=dtype, device="cpu")
    refuse_foreign_tokens(config.model, model, processor)
    if config.freeze_vision:
        vision_tower(model).requires_grad_(False)
    return model


def _with_files(
    questions: Sequence[VideoQuestion], loader: FrameLoader, settings: Settings
) -> list[VideoQuestion]:
    """The questions whose files are there; the others are counted on stderr."""
    from media.frames import MediaError

    failures: dict[MediaRef, str] = {}
    seen: set[MediaRef] = set()
    for ref in (ref for question in questions for ref in question.media):
        if ref in seen:
            continue
        seen.add(ref)
        try:
            loader.check(ref)
        except MediaError as error:
            failures[ref] = str(error)
    kept = [q for q in questions if not any(ref in failures for ref in q.media)]
    if len(kept) < len(questions) and is_first_process():
        first = next(iter(failures.values()))
        say(
            f"{len(questions) - len(kept)} of {len(questions)} questions are left out, because"
            f" {len(failures)} files cannot be used; the first: {first}"
        )
    if len(kept) < settings.prompts_per_generation:
        raise UsageError(
            f"the files of {len(kept)} questions can be used, but completions are sampled for"
            f" {settings.prompts_per_generation} at a time"
        )
    return kept


def _check_parity(trainer: VideoGRPOTrainer, rows: PromptDataset, config: RlOptions) -> None:
    _, prompt = rows[0]
    weights = trainer.model.get_input_embeddings().weight.dtype
    dtype = weights if weights != torch.float32 else torch.float32
    if trainer.args.bf16 or trainer.args.fp16:
        dtype = torch.bfloat16 if trainer.args.bf16 else torch.float16
    problem = ""
    try:
        check_parity(
            trainer.model,
            prompt,
            end_ids=trainer.eos_token_ids,
            share_prompts=config.share_prompts,
            autocast_dtype=dtype,
        )
    except ParityError as error:
        problem = str(error)
    if any_process(bool(problem)):
        problem = problem or "sampler and trainer differ in another process"
        raise UsageError(f"--model {config.model}: {problem}")


def _step_of(checkpoint: Path) -> int:
    return int(state_of(checkpoint)["global_step"])


def _is_finished(checkpoint: Path) -> bool:
    state = state_of(checkpoint)
    return bool(state["global_step"] >= state["max_steps"])
