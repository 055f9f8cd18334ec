"""What a slow judge adds to a step that calls it in the background.

    python benchmarks/judge_overlap.py [--groups 4] [--share 0.1] [--repeats 3]

Steps of PA-GRPO with several groups, one group per micro-batch, against a judge behind HTTP that
answers at once and one that takes a tenth of a step for each call, as a judge that takes 2 s does
in a step of 20 s. The step is measured first, and the judge's time follows from it; `--vision-
tokens` sets how the step divides between rollouts and learning. The two take turns; the share of
a step that training stood still for verdicts is printed as JSON, beside the ratio of whole steps.
One torch thread, random weights.
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

from benchmarks.rl_step import add_step_options
from benchmarks.turns import alternate, median_ratio

FORMS = ("at once", "slow")


def worker(options: argparse.Namespace) -> None:
    """Steps with a judge that takes `options.latency` seconds."""
    from benchmarks.step_world import Phases, StepWorld, judged

    with tempfile.TemporaryDirectory() as folder:
        world = StepWorld(options, Path(folder), kind="video")
        phases = Phases(options.device)
        with judged(world, latency_seconds=options.latency) as rewarder:
            world.ours(options.algo, rewarder, phases).train()
        world.loader.close()
    phases.end()


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Both judges, and what the slow one adds."""

    def command(latency: float) -> list[str]:
        return [sys.executable, __file__, "--latency", str(latency), *sys.argv[1:]]

    alone = alternate({"step": command(0.0)}, 1)
    latency = options.share * alone["median seconds"]["step"]
    report = alternate(
        dict(zip(FORMS, (command(0.0), command(latency)), strict=True)), options.repeats
    )
    ends = report.pop("ends")
    slow = ends["slow"]
    rollouts = statistics.mean(slow["seconds"]["rollouts"])
    pairs = zip(slow["waited"], report["seconds"]["slow"], strict=True)
    return {
        "settings": vars(options),
        **report,
        "judge's seconds per call": round(latency, 3),
        "judge's time over a step": round(latency / report["median seconds"]["slow"], 3),
        "share of rollouts in a step": round(rollouts / report["median seconds"]["slow"], 3),
        "seconds waited": {form: [round(w, 3) for w in ends[form]["waited"]] for form in FORMS},
        "share of a step waited": round(statistics.median(w / s for w, s in pairs), 4),
        "whole step, slow over at once": median_ratio(report, "slow", "at once"),
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_step_options(parser)
    parser.set_defaults(groups=4, vision_tokens=128)
    parser.add_argument("--algo", default="pa-grpo")
    parser.add_argument("--share", type=float, default=0.1, help="of a step, for each call")
    parser.add_argument("--latency", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.latency is not None:
        worker(options)
    else:
        print(json.dumps(benchmark(options), indent=1))


if __name__ == "__main__":
    main()
