"""`python -m sandbox.warm_up --model DIR --out DIR`: teach the vision tower of a learner to see.

A small model learns to see far faster from being told what each vision token shows than from
answers alone. Four linear readers look at the tower's output for every token: which colour and
which shape is there (or none), in which second, at which place. The readers are thrown away; what
is saved is the model with a tower whose output tells these things, the language model untouched.
"""

import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from sandbox.deck import draw_question
from sandbox.world import COLOURS, NOTICE, PLACES, PRESETS, SHAPES, Clip
from schemas.config import EXIT_OK, Config, UsageError, parse_command, print_config, run_command

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
_RISING_STEPS, _LAST_RATE = 20, 0.05
_REPORT_STEPS = 50
_HELD_OUT_CLIPS = 100


class WarmUpConfig(Config):
    """Options of `sandbox.warm_up`."""

    model: Path
    """Model folder to start from, as `sandbox.tiny_model --preset learner` saves it."""
    output_dir: Path
    """Folder to save the model in."""
    steps: int = Field(250, ge=1)
    """Training steps."""
    batch_size: int = Field(16, ge=1)
    """Clips of the `tiny` world per step, new ones each time."""
    learning_rate: float = Field(2e-3, gt=0)
    """Highest learning rate."""
    seed: int = Field(0, ge=0)
    """Seed of the readers and of the clips."""


class Sight(NamedTuple):
    """What the readers tell of new clips: right shares of the tokens that show something, and in
    `none` of those that show nothing.
    """

    colour: float
    shape: float
    second: float
    place: float
    none: float


def main(argv: Sequence[str] | None = None) -> int:
    """Load, teach, say how well the tower sees, save."""
    config = parse_command(
        WarmUpConfig,
        argv,
        prog=PROG,
        description="Teach the vision tower of a small model to see the sandbox's tiny world.",
    )
    print(NOTICE, file=sys.stderr)
    print_config(config)
    from train.models import load_policy, load_processor

    processor = load_processor(config.model)
    model = load_policy(config.model, dtype="float32", device="cpu")
    sight = warm_up(model, processor, config)
    model.save_pretrained(config.output_dir)
    processor.save_pretrained(config.output_dir)
    told = ", ".join(f"{name} {100 * share:.1f} %" for name, share in sight._asdict().items())
    print(f"the vision tower tells, on {_HELD_OUT_CLIPS} new clips: {told}")
    print(f"the model with this tower is in {config.output_dir}")
    return EXIT_OK


def warm_up(model: Any, processor: Any, config: WarmUpConfig) -> Sight:
    """Train `model`'s tower in place; what its output tells in the end, on new clips."""
    import torch

    width = model.config.text_config.hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        readers = torch.nn.ModuleDict({k: torch.nn.Linear(width, n) for k, n in _CLASSES.items()})
    parameters = [*model.model.visual.parameters(), *readers.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=_BETAS, weight_decay=_WEIGHT_DECAY
    )
    rng = random.Random(f"sandbox/warm-up/{config.seed}")
    model.model.visual.train()
    started = time.monotonic()
    for step in range(1, config.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(step, config.steps)
        clips = [draw_question(_WORLD, rng).clip for _ in range(config.batch_size)]
        losses = _losses(model, processor, readers, clips)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % _REPORT_STEPS == 0 or step == config.steps:
            told = ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            seconds = time.monotonic() - started
            print(f"step {step} of {config.steps}, {seconds:.0f} s: loss of {told}", flush=True)
    model.eval()
    return _sight(model, processor, readers, config.seed)


def _rate(step: int, steps: int) -> float:
    """Up in `_RISING_STEPS`, then a cosine from 1 to `_LAST_RATE`."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, step / _RISING_STEPS) * (_LAST_RATE + (1 - _LAST_RATE) * cosine)


def _losses(model: Any, processor: Any, readers: Any, clips: Sequence[Clip]) -> "dict[str, Tensor]":
    """The cross-entropy of each reader."""
    from torch.nn.functional import cross_entropy

    seen, labels = _seen(model, processor, clips), _labels(clips)
    return {name: cross_entropy(readers[name](seen), labels[name]) for name in _CLASSES}


def _seen(model: Any, processor: Any, clips: Sequence[Clip]) -> "Tensor":
    """The tower's output for each token: clip by clip, second by second, place by place."""
    import torch

    from sandbox.pixels import render

    # A frame's pixels are rounded to whole tokens, and nothing else is done to them.
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
    seen = torch.cat(output.pooler_output)
    if len(seen) != len(clips) * _WORLD.cells * _TOKENS_PER_CELL:
        raise UsageError(
            f"the model makes {len(seen) / len(clips):g} vision tokens of a clip of the tiny world,"
            f" where {_WORLD.cells * _TOKENS_PER_CELL} are expected: give a model with two frames"
            " per cell and tokens of 28 or 32 pixels"
        )
    return seen


def _labels(clips: Sequence[Clip]) -> "dict[str, Tensor]":
    """What each token shows, in the order of `_seen`; 0 where nothing is to be seen."""
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


def _sight(model: Any, processor: Any, readers: Any, seed: int) -> Sight:
    import torch

    rng = random.Random(f"sandbox/warm-up/held-out/{seed}")
    clips = [draw_question(_WORLD, rng).clip for _ in range(_HELD_OUT_CLIPS)]
    with torch.inference_mode():
        seen, labels = _seen(model, processor, clips), _labels(clips)
        is_right = {name: readers[name](seen).argmax(-1) == labels[name] for name in _CLASSES}
    shows = labels["colour"] > 0
    shares = {name: is_right[name][shows].float().mean().item() for name in _CLASSES}
    return Sight(**shares, none=is_right["colour"][~shows].float().mean().item())


if __name__ == "__main__":
    run_command(PROG, main)
