"""`python -m sandbox.crucial_frames`: do the frames that APPO selects show the answer?

In the sandbox it is known which temporal cells a question depends on. A model samples a group of
completions for each question, its attention selects frames as in training, and the selection is
compared with the truth: recall (crucial cells that were selected) and precision (selected cells
that are crucial), each beside chance, which selects as many cells at random.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from cli.config import (
    EXIT_OK,
    UsageError,
    parse_command,
    print_config,
    require_packages,
    run_command,
)
from cli.console import quieten_libraries
from cli.option_groups import (
    FrameCacheOptions,
    MediaRootOptions,
    ModelOptions,
    NewTokensOptions,
    SeedOptions,
)
from cli.output_folder import make_room_for
from sandbox.lessons.observation_measures import percent
from sandbox.option_groups import OUTPUT_FILE_ALIASES, OutputFileOptions, QuestionCountOptions
from sandbox.world.questions import crucial_cells, parse_query
from sandbox.world.rendered import RenderedWorld
from train.early_checks import EVALUATION_PACKAGES, refuse_missing_folder

if TYPE_CHECKING:
    from torch import Tensor

PROG = "sandbox.crucial_frames"
_STRATEGIES = ("soft", "hard", "soft-or-all", "all")
_FRAMES_PER_ROLLOUT = (1, 2, 3)


class CrucialFramesConfig(
    ModelOptions[Path],
    MediaRootOptions[Path],
    OutputFileOptions[Path],
    QuestionCountOptions,
    NewTokensOptions,
    FrameCacheOptions,
    SeedOptions,
    defaults={"num_questions": 200, "max_new_tokens": 96},
    notes={"media_root": "Here: the folder of a rendered world, whose questions are asked."},
    group="model",
    example="--model out/sft --media-root world --output-file out/frames.json",
):
    """Options of `sandbox.crucial_frames`."""

    group_size: int = Field(8, ge=2)
    """Completions per question, at temperature 1."""
    score_tokens: int = Field(15, ge=1)
    """K1 of APPO: a completion's score for a cell is the mean of its K1 highest attentions."""


class AttendedGroup(NamedTuple):
    """A group's attention to each cell [G, N, F], its accuracies [G], the crucial cells."""

    attention: "Tensor"
    accuracy: "Tensor"
    crucial: frozenset[int]


def main(argv: Sequence[str] | None = None) -> int:
    """Sample, compare the selections with the truth, print and save."""
    config = parse_command(
        CrucialFramesConfig,
        argv,
        prog=PROG,
        description="Compare the frames that APPO selects with those that show the answer.",
        aliases=OUTPUT_FILE_ALIASES,
    )
    require_packages(*EVALUATION_PACKAGES)
    refuse_missing_folder(config.model, "--model", "of the model")
    RenderedWorld(config.media_root)
    make_room_for(config.output_file)
    print_config(config)
    groups = list(_groups(config))
    strategies = [
        compared(groups, strategy, frames, config.score_tokens)
        for strategy in _STRATEGIES
        for frames in _FRAMES_PER_ROLLOUT
    ]
    found = {
        "groups": len(groups),
        "rollouts": config.group_size,
        "frames": groups[0].attention.shape[2],
        "crucial": sum(len(group.crucial) for group in groups) / len(groups),
        "strategies": strategies,
    }
    for one in strategies:
        print(
            f"{one['strategy']:12} K2={one['frames_per_rollout']}"
            f"  recall {percent(one['recall'])} (chance {percent(one['recall_by_chance'])})"
            f"  precision {percent(one['precision'])}"
            f" (chance {percent(one['precision_by_chance'])})  in {one['groups']} groups"
        )
    config.output_file.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return EXIT_OK


def compared(
    groups: Sequence[AttendedGroup], strategy: Any, frames_per_rollout: int, score_tokens: int
) -> dict[str, Any]:
    """Recall and precision of a strategy, averaged over the groups in which it selects a cell."""
    from train.algorithms.appo import AppoConfig, select_frames

    config = AppoConfig(
        strategy=strategy, frames_per_rollout=frames_per_rollout, score_tokens=score_tokens
    )
    rows = []
    for group in groups:
        chosen = select_frames(group.attention, group.accuracy, config)
        selected = set(chosen.nonzero().flatten().tolist())
        if selected:
            hits, cells = len(selected & group.crucial), group.attention.shape[2]
            rows.append(
                (
                    hits / len(group.crucial),
                    len(selected) / cells,
                    hits / len(selected),
                    len(group.crucial) / cells,
                    len(selected),
                )
            )
    names = ("recall", "recall_by_chance", "precision", "precision_by_chance", "selected")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    means = [sum(column) / len(rows) if rows else None for column in columns]
    return {
        "strategy": strategy,
        "frames_per_rollout": frames_per_rollout,
        "groups": len(rows),
        **dict(zip(names, means, strict=True)),
    }


def _groups(config: CrucialFramesConfig) -> Iterator[AttendedGroup]:
    """Sample and score the questions one by one."""
    import torch

    from judges.scoring.answer_score import score_answer
    from judges.scoring.text import extract_strict
    from media.cache import default_cache_dir
    from media.sampling import FrameSpec
    from schemas.traces import TEMPLATES
    from train.data.frame_loader import FrameLoader
    from train.data.model_inputs import VideoInputs
    from train.modeling.families import attention_layers
    from train.modeling.frame_attention import DEFAULT_LAYERS
    from train.modeling.loading import load_policy, load_processor
    from train.modeling.packed_forward import PromptGroup, group_logprobs
    from train.rollouts.sampler import Sampling, sample_completions
    from train.rollouts.segments import TokenBytes

    world = RenderedWorld(config.media_root)
    questions = world.clip_questions(config.num_questions)
    quieten_libraries()
    processor = load_processor(config.model)
    model = load_policy(config.model, dtype="float32", device="cpu")
    num_layers = len(attention_layers(model.config))
    if num_layers < DEFAULT_LAYERS:
        raise UsageError(
            f"--model {config.model} has {num_layers} layers that attend, and frame attention is"
            f" that of the last {DEFAULT_LAYERS}; give a model with as many"
        )
    token_bytes = TokenBytes(processor.tokenizer)
    sampling = Sampling(max_new_tokens=config.max_new_tokens)
    ends = [processor.tokenizer.eos_token_id]
    cache = config.frame_cache or default_cache_dir()
    with FrameLoader(config.media_root, spec=FrameSpec(), cache_dir=cache) as loader:
        inputs = VideoInputs(processor, loader, TEMPLATES["p2r"])
        for number, question in enumerate(questions):
            prompt = inputs.prompt(question)
            (drawn,) = sample_completions(
                model,
                [prompt],
                group_size=config.group_size,
                sampling=sampling,
                end_ids=ends,
                seeds=[config.seed * 1_000_003 + number],
            )
            with torch.no_grad():
                (scores,) = group_logprobs(
                    model, [PromptGroup(prompt, drawn)], frame_layers=DEFAULT_LAYERS
                )
            assert scores.frame_attention is not None
            answers = [extract_strict(token_bytes.text(ids.tolist())) for ids in drawn]
            accuracy = [score_answer(question, text) if text else 0.0 for text in answers]
            query, path = parse_query(question.problem), question.media[0].path
            assert query is not None
            cells = crucial_cells(query, world.clip(path), world.facts(path))
            yield AttendedGroup(scores.frame_attention, torch.tensor(accuracy), frozenset(cells))
            if (number + 1) % 50 == 0:
                print(f"{number + 1} of {len(questions)} questions", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(PROG, main)
