"""A whole step of reinforcement learning: stock TRL on a picture, ours on a video.

    python benchmarks/rl_step.py [--groups 1] [--repeats 3] [--device cuda --shape 3b]

An optimizer step with everything in it: prompts from cached frames, rollouts of full length,
rewards from a judge that answers at once (behind HTTP, or in this process with `--judge here`), the
passes, backward and AdamW. Stock TRL 1.16 trains DAPO on a picture, since it cannot see videos;
ours trains on a video of as many tokens. Forms take turns on one shape, each in a process of its
own; medians, ratios, peak memory above the model, where the time goes and the arithmetic ceiling
are printed as JSON. `--beta 0` leaves out PA-GRPO's reference pass, which DAPO does not have. One
torch thread on a CPU, random weights.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.shapes import add_shape_options, shape_of
from benchmarks.turns import UNITS, alternate, median_ratio

FORMS = {
    "trl dapo": None,
    "dapo": ("dapo", True),
    "pa-grpo": ("pa-grpo", True),
    "pa-grpo+appo": ("pa-grpo+appo", True),
    "pa-grpo+appo, nothing shared": ("pa-grpo+appo", False),
}
LEARNER = ("reference pass", "policy forward", "rewards and weights", "backward")


def worker(options: argparse.Namespace) -> None:
    """One form of the step, on request."""
    from benchmarks.phases import Phases
    from benchmarks.step_world import StepWorld, judged, judged_here

    form = FORMS[options.form]
    with tempfile.TemporaryDirectory() as folder:
        world = StepWorld(options, Path(folder), kind="image" if form is None else "video")
        phases = Phases(options.device)
        if form is None:
            world.stock(phases).train()
        else:
            algo, share = form
            judging = judged if options.judge == "http" else judged_here
            with judging(world) as rewarder:
                world.ours(algo, rewarder, phases, share_prompts=share).train()
        world.loader.close()
    phases.end()


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All forms, and what they come to."""
    forms = options.forms or list(FORMS)
    commands = {form: [sys.executable, __file__, "--form", form, *sys.argv[1:]] for form in forms}
    report = alternate(commands, options.repeats)
    ends = report.pop("ends")
    shape = shape_of(options)
    prompt = shape.vision_tokens + shape.text_tokens
    plain = shape.completions * (prompt + shape.tokens)
    result = {
        "settings": vars(options),
        **report,
        **{
            f"mean {unit} of each phase": {
                form: {name: round(statistics.mean(s), 3) for name, s in end[unit].items()}
                for form, end in ends.items()
            }
            for unit in UNITS
        },
        "ceiling (tokens of the language model)": round(
            plain / (prompt + shape.completions * shape.tokens), 2
        ),
    }
    for unit in UNITS:
        if "trl dapo" in forms:
            result[f"times faster than trl, {unit}"] = {
                form: median_ratio(report, "trl dapo", form, unit) for form in forms
            }
        if {"pa-grpo", "pa-grpo+appo"} <= set(forms):
            ratio = median_ratio(report, "pa-grpo+appo", "pa-grpo", unit)
            result[f"appo over none, whole step, {unit}"] = ratio
            result[f"appo over none, learner, {unit}"] = _learner_ratio(
                ends["pa-grpo+appo"][unit], ends["pa-grpo"][unit]
            )
    return result


def _learner_ratio(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    """Median over turns of the learner's seconds with and without APPO."""
    sums = [
        [sum(values) for values in zip(*(phases[name] for name in LEARNER), strict=True)]
        for phases in (one, other)
    ]
    return round(statistics.median(a / b for a, b in zip(*sums, strict=True)), 3)


def add_step_options(parser: argparse.ArgumentParser) -> None:
    """What both benchmarks of a step take."""
    add_shape_options(parser)
    parser.add_argument("--groups", type=int, default=1, help="groups of a step")
    parser.add_argument("--beta", type=float, help="weight of the KL term of all forms")
    parser.add_argument("--tokens-per-frame", type=int, default=128, help="APPO's K3")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--repeats", type=int, default=3, help="turns that count")


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_step_options(parser)
    parser.add_argument("--judge", default="http", choices=("http", "here"), help="where it is")
    parser.add_argument("--forms", nargs="+", choices=FORMS, help="which forms; all of them")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        worker(options)
    else:
        print(json.dumps(benchmark(options), indent=1))


if __name__ == "__main__":
    main()
