"""The end of a reinforcement learning run: the trained model, its adapter, and their card."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cli.config import changed_options, say
from cli.index_page import write_index_page
from cli.output_folder import full_disk_is_told
from media.sampling import FrameSpec
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.serialization import content_id
from train.algorithms.registry import AlgoSpec
from train.modeling.families import ModelFamily
from train.modeling.loading import save_dtype
from train.modeling.lora import save_merged, save_ordinary
from train.monitoring.model_card import (
    APPO,
    DAPO,
    DR_GRPO,
    GRPO,
    VIDEO_P2R,
    ModelCard,
    Paper,
)
from train.monitoring.rl_report import write_rl_report
from train.rewards.plan import ROLES, RewardPlan
from train.rl_checks import Settings
from train.rl_options import RlOptions
from train.trainers.distributed import is_first_process
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.sharded import is_spread, merged_again, save_whole_model

MODEL_FOLDER = "model"


def model_card(
    config: RlOptions,
    settings: Settings,
    questions: Sequence[VideoQuestion],
    family: ModelFamily,
    run: Mapping[str, Any],
) -> ModelCard:
    """The card of the models that a run saves."""
    name = settings.template.name
    prompt = task_prompt(questions[0], name, duration_seconds=1, num_frames=1)
    trl = settings.trl
    return ModelCard(
        command="train.rl",
        method=f"reinforcement learning ({settings.algo.name})",
        base_model=config.model,
        family=family,
        facts={
            "questions": content_id("questions", [one.question_id for one in questions]),
            "question file": f"{config.questions}, {len(questions):,} questions",
            "algorithm": f"{settings.algo.name}, groups of {settings.group_size},"
            f" loss {trl['loss_type']}, beta {trl['beta']:g}",
            "rewards": _rewards(settings.rewards),
            "judge": config.judge or "none",
        },
        template=name,
        prompt_id=prompt.prompt_id,
        frames=FrameSpec(config.frames, config.max_pixels),
        options=changed_options(config) | trl,
        run=run,
        papers=_papers(settings.algo, str(trl["loss_type"])),
        max_new_tokens=int(trl["max_completion_length"]),
    )


def save_model(
    trainer: VideoGRPOTrainer, config: RlOptions, processor: Any, card: ModelCard
) -> None:
    """The trained model as an ordinary one; with LoRA its adapter beside it. All processes call
    it."""
    folder, adapter = config.output_dir / MODEL_FOLDER, config.output_dir / "adapter"
    is_merged = bool(config.lora_rank)
    model = trainer.accelerator.unwrap_model(trainer.model)
    dtype = save_dtype(config.model, config.save_dtype)
    saved = adapter if is_merged else folder
    if is_spread(trainer):
        save_whole_model(trainer, saved, None if is_merged else dtype)
    else:
        if dtype is not None and not config.lora_rank:
            model.to(dtype)
        trainer.save_model(str(saved))
    if is_first_process() and is_merged:
        with full_disk_is_told(folder):
            if is_spread(trainer):
                merged = merged_again(model, config.model, config.dtype, adapter)
                save_ordinary(merged, processor, folder, dtype)
            else:
                save_merged(model, processor, folder, dtype)
        card.write(folder)


def report_end(config: RlOptions, card: ModelCard) -> None:
    """Write the run's report, and print where everything is, what the judge cost, what is next."""
    out = config.output_dir
    totals = write_rl_report(out, card)
    write_index_page(out)
    where = [f"the model is in {out / MODEL_FOLDER}", f"the report in {out / 'report.md'}"]
    if (index := out / "pages" / "index.html").exists():
        where.append(f"pages of rollouts in {index}")
    say(", ".join(where), sys.stdout)
    if config.judge is not None:
        price = f"${totals.judge_cost_usd:,.2f} where the price is known"
        say(f"the judge {config.judge}: {totals.judge_calls:,} calls, {price}", sys.stdout)
    options = {
        "--model": out / MODEL_FOLDER,
        "--questions": "HELD_OUT.json",
        "--media-root": config.media_root,
        "--frames": config.frames,
        "--output-dir": out / "evaluation",
    }
    words = [str(word) for option in options.items() for word in option]
    command = shlex.join(["python", "-m", "train.evaluate", *words])
    say(f"next, on questions that are not among these: {command}", sys.stdout)


def _rewards(plan: RewardPlan) -> str:
    """The terms of each segment's reward, such as `reasoning: default + 0.5 brevity`."""
    segments = []
    for role in ROLES:
        terms = ["default"] if role in plan.default else []
        terms += [f"{each.weight:g} {each.label}" for each in plan.of(role)]
        segments += [f"{role}: {' + '.join(terms)}"] if terms else []
    return "; ".join(segments)


def _papers(algo: AlgoSpec, loss_type: str) -> tuple[Paper, ...]:
    """Those whose methods a run used."""
    used = {
        GRPO: True,
        DAPO: loss_type == "dapo",
        DR_GRPO: loss_type == "dr_grpo",
        VIDEO_P2R: algo.advantages == "segment",
        APPO: algo.weighting == "appo",
    }
    return tuple(paper for paper, is_used in used.items() if is_used)
