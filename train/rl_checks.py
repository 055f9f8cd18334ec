"""What is wrong with the options of `train.rl`, told before a model is loaded.

Each check raises UsageError with one sentence: what was given, what was expected, what to do. What
needs no file is in `settle`, which also gives TRL's settings; `check_questions` looks at the
questions. Neither imports torch.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.config import UsageError
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES, TraceTemplate
from train.algorithms import AlgoSpec, parse_algo
from train.rl_options import TRL_DEFAULTS, RlConfig

# Tags, white space and the end token of a completion, in tokens, at most.
_TAG_TOKENS = 32
_LOSSES_OF_TOKENS = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")


@dataclass(frozen=True)
class Settings:
    """Options that belong together, resolved."""

    algo: AlgoSpec
    template: TraceTemplate
    scale: bool
    published: dict[str, float]
    group_size: int
    prompts_per_generation: int
    """Questions of a generation batch, over all processes."""
    trl: dict[str, Any]
    """Arguments for TRL's GRPOConfig, `output_dir` and precision apart."""


def settle(config: RlConfig, given: Mapping[str, Any], *, num_processes: int) -> Settings:
    """Resolve options; `given` are TRL's fields that the user gave."""
    try:
        algo = parse_algo(config.algo)
    except ValueError as error:
        raise UsageError(f"--algo: {error}") from None
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
    group_size = int(trl.setdefault("num_generations", 8))
    trl.setdefault("per_device_train_batch_size", group_size)
    settings = Settings(
        algo=algo,
        template=TEMPLATES[config.template],
        scale=trl["scale_rewards"] == "group",
        published=_published(config),
        group_size=group_size,
        prompts_per_generation=_prompts_per_generation(trl, num_processes),
        trl=trl,
    )
    _check_loss(trl)
    _check_boundaries(trl)
    _check_perception(config, settings)
    _check_lengths(config, settings)
    if not config.appo_detach:
        raise UsageError(
            "--no-appo-detach cannot be given: gradient through the weights exists in"
            " train.appo.token_weights only, and would need every token's whole distribution"
        )
    if not config.lora_rank and (config.lora_alpha or config.lora_targets or config.lora_dropout):
        raise UsageError("--lora-alpha, --lora-dropout and --lora-targets need --lora-rank")
    return settings


def check_questions(questions: Sequence[VideoQuestion], config: RlConfig, to: Settings) -> None:
    """Whether these questions can be trained on with these options."""
    if len(questions) < to.prompts_per_generation:
        raise UsageError(
            f"{config.questions} gives {len(questions)} usable questions, but completions are drawn"
            f" for {to.prompts_per_generation} at a time; give more questions, or a smaller"
            " --per-device-train-batch-size or --gradient-accumulation-steps"
        )
    has_video = [any(ref.kind == "video" for ref in question.media) for question in questions]
    if to.algo.uses_appo and not any(has_video):
        raise UsageError(
            f"{to.algo.name} weights tokens by their look at a video's frames, but none of the"
            f" {len(questions)} questions of {config.questions} has a video; give questions about"
            f" videos, or --algo {to.algo.name.removesuffix('+appo')}"
        )
    if config.template == "grounding" and not all(has_video):
        raise UsageError(
            f"--template grounding asks for times, but {has_video.count(False)} of"
            f" {len(questions)} questions have no video"
        )
    if "iou" in " ".join(to.published) and not any(q.time_clues for q in questions):
        raise UsageError(
            f"times are rewarded ({', '.join(name for name in to.published if 'iou' in name)}), but"
            f" none of the questions of {config.questions} says when; give questions with time"
            " clues (NExT-GQA)"
        )


def num_processes() -> int:
    """How many processes train together, as their launcher tells."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def _published(config: RlConfig) -> dict[str, float]:
    """Names and weights; of the grounding template APPO's, in real seconds unless told."""
    weights = {}
    if config.template == "grounding" and not config.published_rewards:
        tiou = "next-gqa-tiou" if config.integer_seconds else "time-iou"
        weights = {"next-gqa-accuracy": 1.0, "next-gqa-format": 0.1, tiou: 1.0}
    for word in config.published_rewards:
        name, _, weight = word.partition("=")
        try:
            weights[name] = float(weight)
        except ValueError:
            raise UsageError(
                f"--published-rewards {word!r}: write NAME=WEIGHT, for example"
                " video-r1-accuracy=0.9"
            ) from None
    if weights:
        from train.rewards import PUBLISHED

        if unknown := sorted(set(weights) - set(PUBLISHED)):
            raise UsageError(
                f"--published-rewards: no reward {', '.join(unknown)}; there are"
                f" {', '.join(PUBLISHED)}"
            )
    return weights


def _prompts_per_generation(trl: Mapping[str, Any], num_processes: int) -> int:
    size, batch = int(trl["num_generations"]), int(trl["per_device_train_batch_size"])
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
    if float(trl.get("temperature", 1.0)) <= 0:
        raise UsageError(
            "--temperature must be above 0: rollouts that are all the same teach nothing"
        )


def _check_boundaries(trl: Mapping[str, Any]) -> None:
    """Checkpoints fall where all that was sampled has been learned from."""
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


def _least_multiple(micro_steps: int, accumulation: int) -> int:
    steps = 1
    while steps * accumulation % micro_steps:
        steps += 1
    return steps


def _check_perception(config: RlConfig, settings: Settings) -> None:
    reader = {
        f"--algo {settings.algo.name}": settings.algo.advantages == "segment",
        "--group-reward sum": config.group_reward == "sum",
        f"--appo-right-by {config.appo_right_by}": settings.algo.uses_appo
        and config.appo_right_by != "accuracy",
    }
    wanting = [name for name, reads in reader.items() if reads]
    has_perception = any(s.role == "perception" for s in settings.template.segments)
    if wanting and not has_perception:
        raise UsageError(
            f"{wanting[0]} rewards perception, but --template {config.template} has no observation;"
            " use --template p2r"
            + (", or --algo grpo" if settings.algo.advantages == "segment" else "")
        )
    if wanting and config.judge is None:
        raise UsageError(
            f"{wanting[0]} rewards perception, which a judge does: give --judge (claude:MODEL,"
            " openai:MODEL@URL or local:PATH)"
        )
    if config.judge is not None and not has_perception:
        raise UsageError(
            f"--judge reads observations, but --template {config.template} has none; leave it out,"
            " or use --template p2r"
        )
    if settings.algo.uses_appo and config.appo_tokens == "observation" and not has_perception:
        raise UsageError(
            f"--appo-tokens observation: --template {config.template} has no observation"
        )


def _check_lengths(config: RlConfig, settings: Settings) -> None:
    """A completion must be able to hold what the length reward pays for."""
    for name in ("perception_tokens", "reasoning_tokens"):
        low, high = getattr(config, name)
        if not 0 <= low <= high:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} {low} {high}: give the least and the most number of tokens")
    if config.length_weight == 0 or config.length_bonus == 0:
        return
    parts = {} if settings.published else {"reasoning": config.reasoning_tokens}
    if config.judge is not None:
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
