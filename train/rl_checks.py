"""Checks of the options of `train.rl`, before a model is loaded.

Each check raises UsageError with one sentence: what was given, what was expected, what to do.
`resolve_settings` checks what needs no file and gives TRL's settings; `check_questions` looks at
the questions. Neither imports torch.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.config import UsageError
from judges.backends.registry import takes_no_money
from judges.backends.session import call_limits
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES, TraceTemplate
from train.algorithms.registry import ADVANTAGES, TOKEN_WEIGHTINGS, AlgoSpec, parse_algo
from train.algorithms.token_weighting import TokenWeighting
from train.rewards.plan import ROLES, RewardPlan, read_rewards
from train.rewards.segment_rewards import Role
from train.rl_options import TRL_DEFAULTS, RlOptions
from train.sharding_options import asks_for_fsdp
from train.trainers.distributed import num_processes

# Tags, white space and the end token of a completion, in tokens, at most.
_TAG_TOKENS = 32
_LOSSES_OF_TOKENS = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")
_RATIO_LEVELS = ("token", "sequence")
_DDP_TIMEOUT_SECONDS = 1800  # transformers' TrainingArguments.ddp_timeout
_COUNTS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "generation_batch_size",
    "steps_per_generation",
    "num_iterations",
    "max_completion_length",
)
_UPDATE_IN_EVERY_BACKWARD = ("lomo", "adalomo")


@dataclass(frozen=True)
class Settings:
    """Options that belong together, resolved."""

    algo: AlgoSpec
    template: TraceTemplate
    scale: bool
    weighting: TokenWeighting | None
    rewards: RewardPlan
    group_size: int
    prompts_per_generation: int
    """Questions of a generation batch, over all processes."""
    is_sharded: bool
    """Weights are spread over processes by FSDP2."""
    trl: dict[str, Any]
    """Arguments for TRL's GRPOConfig, `output_dir` and precision apart."""


def resolve_settings(
    config: RlOptions, given: Mapping[str, Any], *, num_processes: int
) -> Settings:
    """Resolve options; `given` are TRL's fields that the user gave."""
    algo = algorithm_of(config)
    template = TEMPLATES[config.template]
    trl = {
        **TRL_DEFAULTS,
        "loss_type": algo.loss_type,
        "beta": algo.beta,
        "epsilon": algo.epsilon,
        "epsilon_high": algo.epsilon_high,
        "scale_rewards": "group" if algo.scale else "none",
        **given,
    }
    trl["scale_rewards"] = {"True": "group", "False": "none"}.get(
        str(trl["scale_rewards"]), trl["scale_rewards"]
    )
    is_sharded = asks_for_fsdp(trl, os.environ, num_processes=num_processes)
    if is_sharded and trl.get("fsdp_config"):
        trl["fsdp"] = trl.get("fsdp") or True  # else transformers leaves the settings unread
    prompts = prompts_per_generation(trl, num_processes)
    settings = Settings(
        algo=algo,
        template=template,
        scale=trl["scale_rewards"] == "group",
        weighting=TOKEN_WEIGHTINGS[algo.weighting](config) if algo.weighting else None,
        rewards=read_rewards(config.reward, template, integer_seconds=config.integer_seconds),
        group_size=int(trl["num_generations"]),
        prompts_per_generation=prompts,
        is_sharded=is_sharded,
        trl=trl,
    )
    _check_rollouts(config)
    _check_loss(trl)
    _check_ratio(trl, given, algo)
    _check_boundaries(trl)
    _check_passes(config, trl)
    _check_rewards(config, settings)
    _check_weighting(config, settings)
    _check_lengths(config, settings)
    _check_silence(config, trl, num_processes)
    if not config.lora_rank and (config.lora_alpha or config.lora_targets or config.lora_dropout):
        raise UsageError("--lora-alpha, --lora-dropout and --lora-targets need --lora-rank")
    return settings


def algorithm_of(config: RlOptions) -> AlgoSpec:
    """The algorithm that --algo names. Raises UsageError."""
    try:
        return parse_algo(config.algo)
    except ValueError as error:
        raise UsageError(f"--algo: {error}") from None


def check_questions(
    questions: Sequence[VideoQuestion], config: RlOptions, settings: Settings
) -> None:
    """Whether these questions can be trained on with these options."""
    if len(questions) < settings.prompts_per_generation:
        raise UsageError(
            f"{config.questions} gives {len(questions)} usable questions, but completions are"
            f" sampled for {settings.prompts_per_generation} at a time; give more questions, or a"
            " smaller --per-device-train-batch-size or --gradient-accumulation-steps"
        )
    has_video = [any(ref.kind == "video" for ref in question.media) for question in questions]
    needs_frames = settings.weighting and "frame_attention" in settings.weighting.needs
    if needs_frames and not any(has_video):
        algo = settings.algo
        raise UsageError(
            f"{algo.name} weights tokens by their look at a video's frames, but none of the"
            f" {len(questions)} questions of {config.questions} has a video; give questions about"
            f" videos, or --algo {algo.name.removesuffix(f'+{algo.weighting}')}"
        )
    if config.template == "grounding" and not all(has_video):
        raise UsageError(
            f"--template grounding asks for times, but {has_video.count(False)} of"
            f" {len(questions)} questions have no video"
        )
    times = settings.rewards.needing("time_clues")
    if times and not any(question.time_clues for question in questions):
        raise UsageError(
            f"times are rewarded ({', '.join(times)}), but none of the questions of"
            f" {config.questions} has time clues; give questions with time clues (NExT-GQA)"
        )


def prompts_per_generation(trl: dict[str, Any], num_processes: int) -> int:
    """Questions of a generation batch, over all processes; sizes that are not given are filled in.

    Raises UsageError where groups would be cut.
    """
    for name in _COUNTS:
        if (given := trl.get(name)) is not None and int(given) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {given}: give a number of 1 or above")
    size = int(trl.setdefault("num_generations", 8))
    batch = int(trl.setdefault("per_device_train_batch_size", size))
    if size < 2:
        raise UsageError(
            f"--num-generations {size}: a rollout is compared with the others of its group, so a"
            " group needs at least 2; 8 is usual"
        )
    if batch % size:
        raise UsageError(
            f"--per-device-train-batch-size {batch} must be a multiple of --num-generations {size}:"
            f" a group that is cut has no mean; try {max(size, batch // size * size)}"
        )
    accumulation = int(trl.get("gradient_accumulation_steps", 1))
    generated, steps = trl.get("generation_batch_size"), trl.get("steps_per_generation")
    if generated is not None and steps is not None:
        raise UsageError("give --generation-batch-size or --steps-per-generation, not both")
    if generated is not None and int(generated) % (batch * num_processes):
        raise UsageError(
            f"--generation-batch-size {generated} must be a multiple of the"
            f" {batch * num_processes} completions that all processes forward at a time"
        )
    if generated is None:
        generated = batch * num_processes * int(steps or accumulation)
    return int(generated) // size


def _check_loss(trl: Mapping[str, Any]) -> None:
    if trl["loss_type"] not in _LOSSES_OF_TOKENS:
        raise UsageError(
            f"--loss-type {trl['loss_type']} assumes one advantage per rollout; choose from"
            f" {', '.join(_LOSSES_OF_TOKENS)}"
        )
    if trl["scale_rewards"] not in ("group", "none"):
        raise UsageError(
            f"--scale-rewards {trl['scale_rewards']}: advantages are scaled by their group's"
            " standard deviation (group) or not at all (none)"
        )
    if not 0 < float(trl.get("temperature", 1.0)) < math.inf:
        raise UsageError(
            "--temperature must be a number above 0: rollouts that are all the same teach nothing"
        )


def _check_rollouts(config: RlOptions) -> None:
    """What a rollout server needs is given, and nothing that only it reads is given without."""
    if config.rollouts == "vllm":
        if config.vllm_url is None:
            raise UsageError(
                "--rollouts vllm asks a vLLM server for completions: give its address by"
                " --vllm-url, such as http://127.0.0.1:8000 (docs/guides/vllm_rollouts.md)"
            )
        other, names = "inprocess", ["groups_at_once", "merge_adapters"]
    else:
        other, names = "vllm", ["vllm_url", "trainer_host", "rollouts_ahead", "importance_cap"]
    for name in names:
        if getattr(config, name) != RlOptions.model_fields[name].default:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} needs --rollouts {other}")


def _check_ratio(trl: Mapping[str, Any], given: Mapping[str, Any], algo: AlgoSpec) -> None:
    """The importance ratio is one that the algorithm and the loss can be computed with."""
    level = trl.get("importance_sampling_level", "token")
    if level not in _RATIO_LEVELS:
        raise UsageError(
            f"--importance-sampling-level {level}: expected one of {', '.join(_RATIO_LEVELS)}"
        )
    if level != "token" and (algo.advantages != "group" or algo.weighting):
        raise UsageError(
            f"--importance-sampling-level {level} gives all tokens of a rollout the mean of its"
            f" advantages, but {algo.name} gives tokens different ones; leave it out, or give"
            " --algo grpo, dapo or dr-grpo"
        )
    if trl["loss_type"] != "cispo":
        return
    if given.get("epsilon_high") is None:
        raise UsageError(
            "--loss-type cispo reads --epsilon-high as the largest importance ratio itself, and"
            f" {algo.name}'s {algo.epsilon_high:g} would cut every ratio to that; give"
            " --epsilon-high, for example 5 (ScaleRL)"
        )
    if float(given["epsilon_high"]) < 1:
        raise UsageError(
            f"--epsilon-high {given['epsilon_high']:g} with --loss-type cispo is the largest"
            " importance ratio, and an unchanged policy's is 1; give a larger number, for example"
            " 5 (ScaleRL)"
        )


def _check_boundaries(trl: Mapping[str, Any]) -> None:
    """Checkpoints are written only at generation boundaries, so no rollout is half used."""
    strategy = str(getattr(trl.get("save_strategy"), "value", trl.get("save_strategy", "steps")))
    if strategy == "best":
        raise UsageError("--save-strategy best needs evaluation; train.evaluate scores checkpoints")
    accumulation = int(trl.get("gradient_accumulation_steps", 1))
    steps = trl.get("steps_per_generation")
    if steps is None and trl.get("generation_batch_size") is not None:
        steps = int(trl["generation_batch_size"]) // (
            int(trl["per_device_train_batch_size"]) * num_processes()
        )
    micro_steps = int(steps or accumulation) * int(trl.get("num_iterations", 1))
    if micro_steps % accumulation and accumulation % micro_steps:
        raise UsageError(
            f"a generation lasts {micro_steps} micro-batches and an optimizer step {accumulation},"
            " so that generations would begin inside of optimizer steps; make one a multiple of the"
            " other (--steps-per-generation, --num-iterations, --gradient-accumulation-steps)"
        )
    if strategy != "steps":
        return
    every = trl["save_steps"]
    if float(every) != int(every) or int(every) < 1:
        raise UsageError(f"--save-steps {every}: give a whole number of optimizer steps")
    if int(every) * accumulation % micro_steps:
        raise UsageError(
            f"--save-steps {every} falls inside a generation, whose completions are learned from in"
            f" {micro_steps / accumulation:g} optimizer steps; give a multiple of"
            f" {_least_multiple(micro_steps, accumulation)}"
        )


def _check_passes(config: RlOptions, trl: Mapping[str, Any]) -> None:
    """The optimizer waits for the gradients of all passes of a step."""
    optimizer = str(getattr(trl.get("optim"), "value", trl.get("optim", "")))
    if config.completions_per_pass is not None and optimizer in _UPDATE_IN_EVERY_BACKWARD:
        raise UsageError(
            f"--optim {optimizer} changes weights in every backward pass, and"
            f" --completions-per-pass {config.completions_per_pass} makes several for one step;"
            " leave one of them out"
        )


def _least_multiple(micro_steps: int, accumulation: int) -> int:
    steps = 1
    while steps * accumulation % micro_steps:
        steps += 1
    return steps


def _check_rewards(config: RlOptions, settings: Settings) -> None:
    """Each segment that the algorithm reads is rewarded, and each reward has what it needs."""
    plan = settings.rewards
    has_perception = any(s.role == "perception" for s in settings.template.segments)
    has_judge = config.judge is not None
    without_one = f"--template {config.template} has no observation"
    readers = _readers(config, settings)
    if "perception" in readers and not has_perception:
        raise UsageError(
            f"{readers['perception']} rewards perception, but {without_one}; use --template p2r"
            + (", or --algo grpo" if ADVANTAGES[settings.algo.advantages].reads_perception else "")
        )
    if (named := plan.of("perception")) and not has_perception:
        raise UsageError(
            f"--reward perception:{named[0].reward.name} rewards perception, but {without_one};"
            " use --template p2r"
        )
    for role, reader in readers.items():
        _check_is_rewarded(role, reader, plan, has_judge=has_judge)
    if not has_judge and (needing := plan.needing("verdict")):
        raise UsageError(
            f"--reward {needing[0]} needs the judge's verdict: give --judge (claude:MODEL,"
            " openai:MODEL@URL or local:PATH), or leave it out"
        )
    _check_perception_is_read(settings, readers)
    if has_judge and not has_perception:
        raise UsageError(
            f"--judge reads observations, but --template {config.template} has none; leave it out,"
            " or use --template p2r"
        )


def _check_silence(config: RlOptions, trl: Mapping[str, Any], num_processes: int) -> None:
    """A judge that hangs in one process is given up before the others give that process up."""
    if config.judge is None or num_processes == 1 or takes_no_money(config.judge):
        return
    longest = call_limits(config).seconds_of_silence(config.timeout_seconds)
    patience = float(trl.get("ddp_timeout", _DDP_TIMEOUT_SECONDS))
    if longest >= patience:
        raise UsageError(
            f"--timeout-seconds {config.timeout_seconds:g} and --concurrency {config.concurrency}"
            f" let a judge that hangs hold a process for {longest:.0f} s, but the other processes"
            f" end the run after {patience:.0f} s (--ddp-timeout); give a shorter timeout, or"
            f" --ddp-timeout {math.ceil(longest) + 60}"
        )


def _check_perception_is_read(settings: Settings, readers: Mapping[Role, str]) -> None:
    """A reward of perception enters learning, unless its weight is 0."""
    named = [each for each in settings.rewards.of("perception") if each.weight]
    if not named or "perception" in readers or _weighting_reads_perception(settings):
        return
    raise UsageError(
        f"--reward perception:{named[0].reward.name} rewards perception, but {readers['reasoning']}"
        " learns from reasoning alone; use --algo pa-grpo, --group-reward sum, or"
        f" perception:{named[0].reward.name}=0, which only logs it"
    )


def _weighting_reads_perception(settings: Settings) -> bool:
    if settings.weighting is None:
        return False
    try:
        settings.weighting.check(settings.template, rewards_perception=False)
    except ValueError:
        return True
    return False


def _readers(config: RlOptions, settings: Settings) -> dict[Role, str]:
    """The segments whose rewards advantages are made of, each with the option that reads them."""
    algo = f"--algo {settings.algo.name}"
    if ADVANTAGES[settings.algo.advantages].reads_perception:
        return dict.fromkeys(ROLES, algo)
    if config.group_reward == "sum":
        return dict.fromkeys(ROLES, "--group-reward sum")
    return {"reasoning": algo}


def _check_is_rewarded(role: Role, reader: str, plan: RewardPlan, *, has_judge: bool) -> None:
    if not plan.rewards(role):
        add = "perception:sufficient (with --judge)" if role == "perception" else "accuracy"
        raise UsageError(
            f"{reader} learns from the rewards of {role}, but --reward gives {role} none: add"
            f" {add}, {role}:default, or one of weight 0 to switch its learning off"
        )
    if role == "perception" and not plan.of(role) and not has_judge:
        raise UsageError(
            f"{reader} rewards perception, which a judge does: give --judge (claude:MODEL,"
            " openai:MODEL@URL or local:PATH), or a --reward perception:... of your own"
        )


def _check_weighting(config: RlOptions, settings: Settings) -> None:
    if settings.weighting is None:
        return
    plan, has_judge = settings.rewards, config.judge is not None
    rewards_perception = bool(plan.of("perception")) or ("perception" in plan.default and has_judge)
    try:
        settings.weighting.check(settings.template, rewards_perception=rewards_perception)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _check_lengths(config: RlOptions, settings: Settings) -> None:
    """A completion must be able to hold the lengths that earn the bonus."""
    for name in ("perception_tokens", "reasoning_tokens"):
        low, high = getattr(config, name)
        if not 0 <= low <= high:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} {low} {high}: give the least and the most number of tokens")
    if config.length_weight == 0 or config.length_bonus == 0:
        return
    plan = settings.rewards
    paid = plan.default | {n.segment for n in plan.named if "token_range" in n.reward.needs}
    parts = {"reasoning": config.reasoning_tokens} if "reasoning" in paid else {}
    if "perception" in paid and config.judge is not None:
        parts["perception"] = config.perception_tokens
    longest = sum(high for _, high in parts.values()) + _TAG_TOKENS * bool(parts)
    given = int(settings.trl["max_completion_length"])
    if given < longest:
        ranges = " and ".join(f"{high} of {name}" for name, (_, high) in parts.items())
        raise UsageError(
            f"--max-completion-length {given} cuts off completions that the length reward still"
            f" pays for ({ranges}, and tags): give at least {longest}, shorter --perception-tokens"
            " and --reasoning-tokens, or --length-weight 0"
        )
