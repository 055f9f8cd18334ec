"""One run of reinforcement learning: its parts, put together, started or resumed, and closed."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from media.cache import default_cache_dir
from media.sampling import FrameSpec
from schemas.config import EXIT_OK, EXIT_ROWS_FAILED, EXIT_STOPPED, UsageError
from schemas.prompting import save_prompt_files
from schemas.questions import MediaRef, VideoQuestion
from train.appo import AppoConfig
from train.frame_loader import FrameLoader
from train.group_updates import UpdateRule
from train.judge_calls import JudgeCalls
from train.judge_options import JudgeOptions
from train.models import base_of_adapter, load_policy, load_processor
from train.processes import is_first_process, sum_over_processes
from train.question_rows import QuestionRows
from train.resuming import StopAtBoundary, last_whole_checkpoint
from train.reward_groups import GroupRewarder, JudgePatience, JudgeUnavailableError
from train.rewards import RewardConfig
from train.rl_checks import Settings, num_processes, process_number
from train.rl_options import RlConfig
from train.rl_reports import RunReports
from train.start_check import StartCheckError, check_start
from train.trainer import VideoGRPOTrainer
from train.trl_library import GRPOConfig
from train.video_inputs import VideoInputs

MODEL_FOLDER = "model"

_log = logging.getLogger(__name__)


def run(config: RlConfig, settings: Settings, questions: Sequence[VideoQuestion]) -> int:
    """Train, and return the exit status. The judge is asked whether it is there first."""
    checkpoint = checkpoint_of(config.output_dir)
    step = 0 if checkpoint is None else _step_of(checkpoint)
    with ExitStack() as closing:
        judge = None
        if config.judge is not None:
            judge = closing.enter_context(_judge(config))
            judge.check()
        arguments = _arguments(config, settings)
        processor = load_processor(config.model)
        loader = closing.enter_context(_loader(config))
        inputs = VideoInputs(processor, loader, settings.template)
        rows = QuestionRows(
            _with_files(questions, loader, settings), inputs.prompt, prefetch=loader.prefetch
        )
        _refuse_unknown_reference(config, arguments)
        rule = _rule(config, settings)
        reports = RunReports(
            config.output_dir,
            inputs=inputs,
            appo=rule.appo,
            last_step=step,
            pages_every=config.pages_every,
            page_groups=config.page_groups,
        )
        stop = closing.enter_context(StopAtBoundary())
        trainer = VideoGRPOTrainer(
            _model(config),
            arguments,
            rows,
            processor=processor,
            template=settings.template,
            rule=rule,
            rewarder=_rewarder(config, settings, judge, loader, stop),
            observe=reports.observe,
            share_prompts=config.share_prompts,
            peft_config=_adapter(config),
            callbacks=[stop, reports],
        )
        stop.trainer = trainer
        if config.start_check:
            _check_start(trainer, rows, config)
        status = _train(trainer, checkpoint, stop)
        if status == EXIT_OK:
            status = EXIT_ROWS_FAILED if rows.lost else EXIT_OK
            _save(trainer, config, processor, settings)
        for number, reason in rows.lost.items():
            print(f"row {number} was not used: {reason}", file=sys.stderr)
        return status


def _save(trainer: VideoGRPOTrainer, config: RlConfig, processor: Any, settings: Settings) -> None:
    """The trained model as an ordinary one; with LoRA its adapter beside it. All processes call it.

    A model that is spread over processes keeps its adapter apart.
    """
    folder = config.output_dir / MODEL_FOLDER
    is_merged = config.lora_rank and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
    trainer.save_model(str(config.output_dir / "adapter" if is_merged else folder))
    if is_first_process():
        if is_merged:
            from train.adapters import save_merged

            save_merged(trainer.accelerator.unwrap_model(trainer.model), processor, folder)
        save_prompt_files(folder, settings.template.name)


def _train(trainer: VideoGRPOTrainer, checkpoint: Path | None, stop: StopAtBoundary) -> int:
    if checkpoint is not None and _is_finished(checkpoint):
        print(f"training has ended already, at {checkpoint}", file=sys.stderr)
        trainer.load_checkpoint(checkpoint)
        return EXIT_OK
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except JudgeUnavailableError as error:
        # The generation whose verdicts are missing has changed no weight: this step is whole.
        trainer.save_whole_step()
        print(f"stopped at step {trainer.state.global_step}: {error}", file=sys.stderr)
        return EXIT_STOPPED
    if stop.is_requested:
        print(
            f"stopped at step {trainer.state.global_step}; the same command again resumes",
            file=sys.stderr,
        )
        return EXIT_STOPPED
    return EXIT_OK


def _judge(config: RlConfig) -> JudgeCalls:
    assert config.judge is not None
    config.output_dir.mkdir(parents=True, exist_ok=True)
    options = JudgeOptions(
        variant=config.judge_prompt,
        max_tokens=config.judge_max_tokens,
        retries=config.judge_retries,
        temperature=config.judge_temperature,
        concurrency=config.judge_concurrency,
        requests_per_minute=config.requests_per_minute,
        tokens_per_minute=config.tokens_per_minute,
        timeout_seconds=config.judge_timeout_seconds,
        max_cost_usd=config.max_cost_usd,
        prices=config.prices,
        api_key_env=config.api_key_env,
        local_batch_size=config.local_batch_size,
        device=config.judge_device,
    )
    return JudgeCalls(
        config.judge,
        ledger_path=config.output_dir / f"judge-{process_number()}.duckdb",
        media_root=config.media_root,
        options=options,
        policy=config.model,
        frame_spec=FrameSpec(config.frames, config.max_pixels).frame_spec_id,
    )


def _loader(config: RlConfig) -> FrameLoader:
    return FrameLoader(
        config.media_root,
        spec=FrameSpec(config.frames, config.max_pixels),
        cache_dir=config.frame_cache or default_cache_dir(),
        reader=config.reader,
        timeout_seconds=config.decode_timeout_seconds,
        workers=config.decode_workers,
        follow_symlinks=config.follow_symlinks,
    )


def _rewarder(
    config: RlConfig,
    settings: Settings,
    judge: JudgeCalls | None,
    loader: FrameLoader,
    stop: StopAtBoundary,
) -> GroupRewarder:
    def duration_seconds(question: VideoQuestion) -> float:
        video = next((ref for ref in question.media if ref.kind == "video"), None)
        return 0.0 if video is None else loader.load(video).duration_seconds

    return GroupRewarder(
        settings.template,
        RewardConfig(
            accuracy_weight=config.accuracy_weight,
            format_weight=config.format_weight,
            length_weight=config.length_weight,
            length_bonus=config.length_bonus,
            perception_tokens=config.perception_tokens,
            reasoning_tokens=config.reasoning_tokens,
            integer_seconds=config.integer_seconds,
        ),
        judge,
        published=settings.published or None,
        duration_seconds=duration_seconds,
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


def _rule(config: RlConfig, settings: Settings) -> UpdateRule:
    appo = AppoConfig(
        score_tokens=config.appo_score_tokens,
        frames_per_rollout=config.appo_frames_per_rollout,
        tokens_per_frame=config.appo_tokens_per_frame,
        max_weight=config.appo_max_weight,
        strategy=config.appo_strategy,
        reward_threshold=config.appo_reward_threshold,
        divergence=config.appo_divergence,
    )
    return UpdateRule(
        settings.algo,
        scale=settings.scale,
        group_reward=config.group_reward,
        appo=appo if settings.algo.uses_appo else None,
        right_by=config.appo_right_by,
        weighted_tokens=config.appo_tokens,
    )


def _arguments(config: RlConfig, settings: Settings) -> GRPOConfig:
    """TRL's configuration; what it refuses is told as wrong usage."""
    given = dict(settings.trl)
    on_gpu = torch.cuda.is_available() and not given.get("use_cpu", False)
    given.setdefault("bf16", on_gpu and not given.get("fp16", False))
    given.setdefault("gradient_checkpointing", on_gpu)  # memory is what it saves
    try:
        arguments = GRPOConfig(output_dir=str(config.output_dir), **given)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    plugin = getattr(arguments, "deepspeed_plugin", None)
    if arguments.fsdp or (plugin is not None and plugin.zero_stage == 3):
        raise UsageError(
            "weights sharded over processes (--fsdp, DeepSpeed ZeRO-3) are not supported: a prompt"
            " that its completions share needs the whole LM head; use DDP or ZeRO-2, or --lora-rank"
        )
    return arguments


def _refuse_unknown_reference(config: RlConfig, arguments: GRPOConfig) -> None:
    """TRL loads a reference by the name in the model's configuration: an adapter's base."""
    if arguments.beta and not config.lora_rank and base_of_adapter(config.model) is not None:
        raise UsageError(
            f"--beta {arguments.beta:g} needs a reference, but {config.model} is an adapter, whose"
            " reference would be its base model; merge it into a whole model first, or give"
            " --beta 0 or --lora-rank"
        )


def _model(config: RlConfig) -> Any:
    model = load_policy(config.model, dtype=config.model_dtype, device="cpu")
    if config.freeze_vision:
        model.model.visual.requires_grad_(False)
    return model


def _adapter(config: RlConfig) -> Any:
    if not config.lora_rank:
        return None
    from train.adapters import lora_config

    return lora_config(
        config.lora_rank,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        targets=config.lora_targets,
    )


def _with_files(
    questions: Sequence[VideoQuestion], loader: FrameLoader, settings: Settings
) -> list[VideoQuestion]:
    """The questions whose files are there; the others are told."""
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
        print(
            f"{len(questions) - len(kept)} of {len(questions)} questions are left out, because"
            f" {len(failures)} files cannot be used; the first: {first}",
            file=sys.stderr,
        )
    if len(kept) < settings.prompts_per_generation:
        raise UsageError(
            f"the files of {len(kept)} questions can be used, but completions are drawn for"
            f" {settings.prompts_per_generation} at a time"
        )
    return kept


def _check_start(trainer: VideoGRPOTrainer, rows: QuestionRows, config: RlConfig) -> None:
    _, prompt = rows.take(0)
    weights = trainer.model.get_input_embeddings().weight.dtype
    dtype = weights if weights != torch.float32 else torch.float32
    if trainer.args.bf16 or trainer.args.fp16:
        dtype = torch.bfloat16 if trainer.args.bf16 else torch.float16
    try:
        check_start(
            trainer.model,
            prompt,
            end_ids=trainer.eos_token_ids,
            share_prompts=config.share_prompts,
            autocast_dtype=dtype,
        )
    except StartCheckError as error:
        raise UsageError(f"--model {config.model}: {error}") from None


def checkpoint_of(folder: Path) -> Path | None:
    """The checkpoint to go on from. Raises UsageError where there are only foreign ones."""
    found = last_whole_checkpoint(folder, num_processes=num_processes())
    if found is None and any(folder.glob("checkpoint-*/trainer_state.json")):
        raise UsageError(
            f"the checkpoints in {folder} were not written by {num_processes()} processes; resume"
            " with as many as before, or begin anew in another --output-dir"
        )
    return found


def _step_of(checkpoint: Path) -> int:
    return int(_state(checkpoint)["global_step"])


def _is_finished(checkpoint: Path) -> bool:
    state = _state(checkpoint)
    return bool(state["global_step"] >= state["max_steps"])


def _state(checkpoint: Path) -> Mapping[str, Any]:
    state: Mapping[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    return state
