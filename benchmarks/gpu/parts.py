"""The parts of the GPU page: which benchmark measures each, on which shape, for how long at most.

Parts run in this order, so what matters most comes first. A dry run has the same benchmarks on the
CPU with tiny shapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_DRY_MINUTES = 5.0


@dataclass(frozen=True)
class Part:
    """One measurement: a command that prints a JSON object."""

    name: str
    title: str
    """Of its section of the page."""
    command: tuple[str, ...]
    """Behind the interpreter, from the repository's root."""
    minutes: float
    """It is stopped after them."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: what it is asked for on a GPU, behind shape and device, and in a dry run."""

    title: str
    script: str
    on_gpu: tuple[str, ...]
    dry: tuple[str, ...]
    has_shapes: bool = True
    """It takes --shape; the others are given their widths."""

    def part(self, name: str, shape: str, minutes: float, more: Sequence[str]) -> Part:
        """On a GPU."""
        of_shape = ("--shape", shape) if self.has_shapes else ()
        command = (self.script, *of_shape, "--device", "cuda", *self.on_gpu, *more)
        return Part(f"{name}_{shape}", f"{self.title}, {shape.upper()}", command, minutes)

    def dry_part(self, name: str) -> Part:
        """On the CPU."""
        of_shape = ("--shape", "tiny") if self.has_shapes else ()
        command = (self.script, *of_shape, "--device", "cpu", *self.dry)
        return Part(name, self.title, command, _DRY_MINUTES)


BENCHMARKS = {
    "learner_pass": Benchmark(
        "Learner's pass: one prompt shared by its completions, or copied",
        "benchmarks/learner_pass.py",
        ("--gradient-checkpointing",),
        ("--gradient-checkpointing", "--repeats", "1", "--forms", "trl", "shared with appo"),
    ),
    "rl_step": Benchmark(
        "Whole step of RL: stock TRL on a picture, ours on a video of as many tokens",
        "benchmarks/rl_step.py",
        ("--judge", "here", "--beta", "0", "--gradient-checkpointing"),
        (
            *("--judge", "here", "--beta", "0", "--gradient-checkpointing", "--repeats", "1"),
            *("--tokens", "40", "--text-tokens", "40", "--tokens-per-frame", "4"),
            *("--forms", "trl dapo", "pa-grpo+appo"),
        ),
    ),
    "rollouts": Benchmark(
        "Rollouts in process: ours against transformers' generate",
        "benchmarks/rollouts.py",
        (),
        ("--repeats", "1"),
    ),
    "memory": Benchmark(
        "Memory against train.plan",
        "benchmarks/gpu/memory.py",
        (),
        (),
    ),
    "precision": Benchmark(
        "Log-probs and frame attention in bfloat16 against float32",
        "benchmarks/gpu/precision.py",
        (),
        ("--tokens-per-frame", "4"),
    ),
    "frame_attention": Benchmark(
        "Frame attention of all layers beside a plain forward",
        "benchmarks/attention_mass.py",
        (),
        (
            *("--width", "64", "--mlp-width", "128", "--heads", "4", "--layers", "2"),
            *("--vision-tokens", "64", "--tokens", "8", "--repeats", "1"),
        ),
        has_shapes=False,
    ),
    "sft": Benchmark(
        "Step of SFT: stock TRL on a picture, ours on a video of as many tokens",
        "benchmarks/gpu/sft.py",
        ("--gradient-checkpointing",),
        ("--gradient-checkpointing", "--rows", "2", "--repeats", "1"),
    ),
}
# Name, shape, minutes at most, and what else is asked for. Where completions are drawn they are
# shorter: drawing takes most of the time. Forms of 7B are fewer: all that take turns hold their
# model, gradients and (in a whole step) AdamW's states on the one GPU.
_ON_GPU: tuple[tuple[str, str, float, tuple[str, ...]], ...] = (
    ("learner_pass", "3b", 3, ("--forms", "trl", "plain", "shared", "shared with appo")),
    (
        "rl_step",
        "3b",
        5,
        ("--tokens", "256", "--repeats", "2", "--forms", "trl dapo", "dapo", "pa-grpo+appo"),
    ),
    ("rollouts", "3b", 3, ("--tokens", "256", "--repeats", "2")),
    ("memory", "3b", 2, ("--dtype", "float32")),
    ("precision", "3b", 2, ()),
    ("frame_attention", "3b", 2, ("--layers", "36")),
    ("sft", "3b", 2, ()),
    ("learner_pass", "7b", 3, ("--repeats", "3", "--forms", "trl", "shared", "shared with appo")),
    ("memory", "7b", 2, ("--dtype", "bfloat16")),
    ("precision", "7b", 2, ()),
    (
        "frame_attention",
        "7b",
        2,
        (
            *("--layers", "28", "--width", "3584", "--mlp-width", "18944"),
            *("--heads", "28", "--kv-heads", "4", "--repeats", "3"),
        ),
    ),
    ("rollouts", "7b", 3, ("--tokens", "256", "--repeats", "2")),
)


def parts_of(*, dry: bool) -> list[Part]:
    """All parts in their order."""
    if dry:
        return [benchmark.dry_part(name) for name, benchmark in BENCHMARKS.items()]
    return [
        BENCHMARKS[name].part(name, shape, minutes, more) for name, shape, minutes, more in _ON_GPU
    ]
