"""`python -m sandbox.warm_up --model DIR --out DIR`: supervised warm-up of a vision tower.

A small model learns to see far faster from a label per vision token than from answers alone. Four
linear probes classify the tower's output for every token: its colour and shape (or none), second
and place. The probes are discarded; the saved model has a trained tower and an unchanged language
model.
"""

import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import field_validator

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
    BatchSizeOptions,
    LearningRateOptions,
    ModelOptions,
    OutputOptions,
    SeedOptions,
)
from cli.output_folder import check_folder, claim_folder, full_disk_is_told
from sandbox.option_groups import TrainingStepsOptions
from sandbox.world.balanced_draw import draw_question
from sandbox.world.clips import COLOURS, NOTICE, PLACES, PRESETS, SHAPES, Clip
from train.early_checks import EVALUATION_PACKAGES, refuse_missing_folder

if TYPE_CHECKING:
    from torch import Tensor

PROG = "sandbox.warm_up"
_WORLD = PRESETS["tiny"]
_TOKENS_PER_CELL = len(PLACES)  # one vision token covers one place for one second
_CLASSES = {
    "colour": 1 + len(COLOURS),
    "shape": 1 + len(SHAPES),
    "second": _WORLD.cells,
    "place": len(PLACES),
}
_BETAS, _WEIGHT_DECAY = (0.9, 0.95), 0.01
_WARMUP_STEPS, _LAST_RATE = 20, 0.05
_REPORT_STEPS = 50
_HELD_OUT_CLIPS = 100


class WarmUpConfig(
    ModelOptions[Path],
    OutputOptions[Path],
    TrainingStepsOptions,
    BatchSizeOptions[int],
    LearningRateOptions,
    SeedOptions,
    defaults={"batch_size": 16, "learning_rate": 2e-3},
    notes={
        "model": "Here: as `sandbox.tiny_model --model-preset learner` saves it.",
        "batch_size": "A row is a new clip of the `tiny` world.",
    },
    groups={"batch_size": "training"},
    example="--model out/tiny --output-dir out/warm --steps 250",
):
    """Options of `sandbox.warm_up`."""

    @field_validator("learning_rate")
    @classmethod
    def _is_positive(cls, learning_rate: float) -> float:
        if learning_rate <= 0:
            raise ValueError("a warm-up needs a learning rate above 0")
        return learning_rate


class ProbeAccuracy(NamedTuple):
    """Accuracy of the probes on new clips, over tokens that show something; `none` is the accuracy
    over tokens that show nothing.
    """

    colour: float
    shape: float
    second: float
    place: float
    none: float


def main(argv: Sequence[str] | None = None) -> int:
    """Load, train, save, print the accuracy of the probes."""
    config = parse_command(
        WarmUpConfig,
        argv,
        prog=PROG,
        description="Train the vision tower of a small model on the sandbox's tiny world.",
    )
    check_folder(config.output_dir, PROG)
    require_packages(*EVALUATION_PACKAGES)
    refuse_missing_folder(config.model, "--model", "of the model")
    print(NOTICE, file=sys.stderr)
    print_config(config)
    from train.modeling.loading import load_policy, load_processor

    quieten_libraries()
    processor = load_processor(config.model)
    model = load_policy(config.model, dtype="float32", device="cpu")
    accuracy = warm_up(model, processor, config)
    claim_folder(config.output_dir, PROG)
    with full_disk_is_told(config.output_dir):
        model.save_pretrained(config.output_dir)
        processor.save_pretrained(config.output_dir)
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in accuracy._asdict().items())
    print(f"accuracy of linear probes on {_HELD_OUT_CLIPS} new clips: {shares}")
    print(f"the model with this tower is in {config.output_dir}")
    return EXIT_OK


def warm_up(model: Any, processor: Any, config: WarmUpConfig) -> ProbeAccuracy:
    """Train `model`'s tower in place. Returns the accuracy of the probes on new clips."""
    import torch

    from train.modeling.vision_cache import vision_tower

    tower = vision_tower(model)
    width = model.config.text_config.hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        probes = torch.nn.ModuleDict({k: torch.nn.Linear(width, n) for k, n in _CLASSES.items()})
    parameters = [*tower.parameters(), *probes.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=_BETAS, weight_decay=_WEIGHT_DECAY
    )
    rng = random.Random(f"sandbox/warm-up/{config.seed}")
    tower.train()
    started = time.monotonic()
    for step in range(1, config.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(step, config.steps)
        clips = [draw_question(_WORLD, rng).clip for _ in range(config.batch_size)]
        losses = _losses(model, processor, probes, clips)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % _REPORT_STEPS == 0 or step == config.steps:
            shown = ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            seconds = time.monotonic() - started
            print(f"step {step} of {config.steps}, {seconds:.0f} s: loss of {shown}", flush=True)
    model.eval()
    return _probe_accuracy(model, processor, probes, config.seed)


def _rate(step: int, steps: int) -> float:
    """Linear warm-up over `_WARMUP_STEPS`, times a cosine from 1 to `_LAST_RATE`."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, step / _WARMUP_STEPS) * (_LAST_RATE + (1 - _LAST_RATE) * cosine)


def _losses(model: Any, processor: Any, probes: Any, clips: Sequence[Clip]) -> "dict[str, Tensor]":
    """The cross-entropy of each probe."""
    from torch.nn.functional import cross_entropy

    output, labels = _tower_output(model, processor, clips), _labels(clips)
    return {name: cross_entropy(probes[name](output), labels[name]) for name in _CLASSES}


def _tower_output(model: Any, processor: Any, clips: Sequence[Clip]) -> "Tensor":
    """The tower's output [clips * seconds * places, width] for each token, in that order."""
    import torch

    from sandbox.world.render import render

    # Frames are resized to whole tokens and not otherwise changed.
    videos = processor.video_processor
    side = videos.patch_size * videos.merge_size
    inputs = videos(
        videos=[render(clip, _WORLD) for clip in clips],
        do_sample_frames=False,
        input_data_format="channels_last",
        size={"shortest_edge": side**2, "longest_edge": _WORLD.frames * (2 * side) ** 2},
        cap_pixels_per_frame=False,
        return_tensors="pt",
    )
    output = model.model.get_video_features(
        inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=True
    )
    tokens = torch.cat(output.pooler_output)
    if len(tokens) != len(clips) * _WORLD.cells * _TOKENS_PER_CELL:
        raise UsageError(
            f"the model makes {len(tokens) / len(clips):g} vision tokens of a clip of the tiny"
            f" world, expected {_WORLD.cells * _TOKENS_PER_CELL}: give a model with two frames per"
            " cell and tokens of 28 or 32 pixels"
        )
    return tokens


def _labels(clips: Sequence[Clip]) -> "dict[str, Tensor]":
    """The classes of each token, in the order of `_tower_output`; 0 stands for nothing there."""
    import torch

    shape = (len(clips), _WORLD.cells, _TOKENS_PER_CELL)
    labels = {name: torch.zeros(shape, dtype=torch.long) for name in _CLASSES}
    labels["second"] += torch.arange(_WORLD.cells)[None, :, None]
    labels["place"] += torch.arange(_TOKENS_PER_CELL)
    for i, clip in enumerate(clips):
        for thing in clip.things:
            at = (i, slice(thing.enters, thing.leaves), PLACES.index(thing.place))
            labels["colour"][at] = 1 + COLOURS.index(thing.colour)
            labels["shape"][at] = 1 + SHAPES.index(thing.shape)
    return {name: each.flatten() for name, each in labels.items()}


def _probe_accuracy(model: Any, processor: Any, probes: Any, seed: int) -> ProbeAccuracy:
    import torch

    rng = random.Random(f"sandbox/warm-up/held-out/{seed}")
    clips = [draw_question(_WORLD, rng).clip for _ in range(_HELD_OUT_CLIPS)]
    with torch.inference_mode():
        output, labels = _tower_output(model, processor, clips), _labels(clips)
        is_correct = {name: probes[name](output).argmax(-1) == labels[name] for name in _CLASSES}
    shows = labels["colour"] > 0
    shares = {name: is_correct[name][shows].float().mean().item() for name in _CLASSES}
    return ProbeAccuracy(**shares, none=is_correct["colour"][~shows].float().mean().item())


if __name__ == "__main__":
    run_command(PROG, main)
