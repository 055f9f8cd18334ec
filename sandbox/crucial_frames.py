"""`python -m sandbox.crucial_frames`: are the frames that APPO selects those that hold the answer?

In the sandbox the temporal cells without which a question cannot be answered are known. A model
draws a group of completions for each question, its attention selects frames as in training, and
the selection is compared with the truth: recall (crucial cells that were selected), precision
(selected cells that are crucial), each beside chance, which draws as many cells blindly.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from sandbox.observations import World, percent
from sandbox.questions import crucial_cells, parse_query
from schemas.annotations import read_questions
from schemas.config import EXIT_OK, Config, UsageError, parse_command, print_config, run_command
from schemas.questions import VideoQuestion

if TYPE_CHECKING:
    from torch import Tensor

PROG = "sandbox.crucial_frames"
_STRATEGIES = ("soft", "hard", "soft-or-all", "all")
_FRAMES_PER_ROLLOUT = (1, 2, 3)


class CrucialFramesConfig(Config):
    """Options of `sandbox.crucial_frames`."""

    model: Path
    """Model folder."""
    media_root: Path
    """Folder of a rendered world; its questions are asked."""
    output_file: Path
    """JSON file for the numbers."""
    questions: int = Field(200, ge=1)
    """How many of the world's questions to ask."""
    group_size: int = Field(8, ge=2)
    """Completions per question, at temperature 1."""
    max_new_tokens: int = Field(96, ge=1)
    """Longest completion, in tokens."""
    score_tokens: int = Field(15, ge=1)
    """K1 of APPO: a completion's interest in a cell is the mean of so many highest attentions."""
    frame_cache: Path | None = None
    """Folder for decoded frames; default ~/.cache/p2r/frames."""
    seed: int = Field(0, ge=0)
    """Seed of the draws."""


class Looked(NamedTuple):
    """A group's attention to each cell [G, N, F], which completions are right, crucial cells."""

    attention: "Tensor"
    accuracy: "Tensor"
    crucial: frozenset[int]


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, look, compare, print and save."""
    config = parse_command(
        CrucialFramesConfig,
        argv,
        prog=PROG,
        description="Compare the frames that APPO selects with those that hold the answer.",
        aliases={"output_file": ("--out",)},
    )
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
    config.output_file.parent.mkdir(parents=True, exist_ok=True)
    config.output_file.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return EXIT_OK


def compared(
    groups: Sequence[Looked], strategy: Any, frames_per_rollout: int, score_tokens: int
) -> dict[str, Any]:
    """Recall and precision of a strategy, averaged over the groups for which it selects a cell."""
    from train.appo import AppoConfig, select_frames

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


def _groups(config: CrucialFramesConfig) -> Iterator[Looked]:
    """Sample and score one question after the other."""
    import torch

    from judges.answers import extract_strict, score_answer
    from media.cache import default_cache_dir
    from media.sampling import FrameSpec
    from schemas.traces import TEMPLATES
    from train.frame_attention import DEFAULT_LAYERS
    from train.frame_loader import FrameLoader
    from train.grouped_forward import PromptGroup, score_groups
    from train.models import load_policy, load_processor
    from train.rollouts import Sampling, sample_completions
    from train.segments import TokenBytes
    from train.video_inputs import VideoInputs

    world = World(config.media_root)
    processor = load_processor(config.model)
    model = load_policy(config.model, dtype="float32", device="cpu")
    token_bytes = TokenBytes(processor.tokenizer)
    sampling = Sampling(max_new_tokens=config.max_new_tokens)
    ends = [processor.tokenizer.eos_token_id]
    cache = config.frame_cache or default_cache_dir()
    with FrameLoader(config.media_root, spec=FrameSpec(), cache_dir=cache) as loader:
        inputs = VideoInputs(processor, loader, TEMPLATES["p2r"])
        for number, question in enumerate(_questions(config)):
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
                (scores,) = score_groups(
                    model, [PromptGroup(prompt, drawn)], frame_layers=DEFAULT_LAYERS
                )
            assert scores.frame_attention is not None
            answers = [extract_strict(token_bytes.text(ids.tolist())) for ids in drawn]
            right = [score_answer(question, answer) if answer else 0.0 for answer in answers]
            query, path = parse_query(question.problem), question.media[0].path
            assert query is not None
            cells = crucial_cells(query, world.clip(path), world.facts(path))
            yield Looked(scores.frame_attention, torch.tensor(right), frozenset(cells))
            if (number + 1) % 50 == 0:
                print(f"{number + 1} of {config.questions} questions", file=sys.stderr, flush=True)


def _questions(config: CrucialFramesConfig) -> list[VideoQuestion]:
    rows = read_questions(config.media_root / "questions.json", format="video-r1")
    found = [row for row in rows if isinstance(row, VideoQuestion) and row.data_type == "video"]
    if not found:
        raise UsageError(f"{config.media_root} has no questions about clips")
    return found[: config.questions]


if __name__ == "__main__":
    run_command(PROG, main)
