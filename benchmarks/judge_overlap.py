"""What a slow judge adds to a step that calls it in the background.

    python benchmarks/judge_overlap.py [--step-seconds 20] [--groups 4] [--repeats 3]

Steps of 4 groups, a group per micro-batch, half of the time drawing completions and half learning,
with a judge behind HTTP that answers at once and one that takes a tenth of the step for each call:
2 s of 20. Trainer, rewards, call layer and calls are the real ones; the time that a GPU would take
is slept through, as the processor then does: half of the step in the rollouts, which grow by 16
tokens at a time, and in the learner one unit for each forward (reference, policy) and two for each
backward. An observation is a third of its completion, as the lengths that VideoP2R rewards have it
(arXiv 2511.11113: 128 to 320 tokens of perception, 320 to 512 of reasoning). PA-GRPO has a
reference pass, PA-DAPO has none. The judge is asked as soon as an observation is there, and, beside
it, only about whole completions. All take turns; the share of a step that training
stood still for verdicts is printed as JSON, beside the ratio of whole steps.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.rl_step import add_step_options
from benchmarks.turns import alternate, median_ratio

ALGOS = ("pa-grpo", "pa-dapo")
FORMS = {
    "at once": ("--latency", "0"),
    "slow": (),
    "slow, asked about the whole": ("--no-ahead",),
}


def worker(options: argparse.Namespace) -> None:
    """Steps with a judge that takes `options.latency` seconds."""
    import torch

    from benchmarks.phases import Phases
    from benchmarks.step_world import StepWorld, judged

    half = options.step_seconds / 2

    class PacedWorld(StepWorld):
        observation_share = 1 / 3

        def draw(
            self, model: Any, prompts: Sequence[Mapping[str, Any]], *, group_size: int, **given: Any
        ) -> list[list[Any]]:
            group = [self.completion(number) for number in range(group_size)]
            tokens = torch.stack(group).repeat(len(prompts), 1)
            for length in range(16, self.shape.tokens + 1, 16):
                time.sleep(half * 16 / self.shape.tokens)
                given["progress"](tokens[:, :length])
            return [group] * len(prompts)

    with tempfile.TemporaryDirectory() as folder:
        world = PacedWorld(options, Path(folder), kind="video")
        phases = Phases(options.device)
        with judged(world, latency_seconds=options.latency, asks_ahead=options.ahead) as rewarder:
            trainer = world.ours(options.algo, rewarder, phases)
            units = 3 if trainer.ref_model is None else 4
            unit = half / (options.groups * units)
            for model in (trainer.model, trainer.ref_model):
                if model is not None:
                    model.register_forward_pre_hook(lambda *_: time.sleep(unit))
            backward = trainer.accelerator.backward
            trainer.accelerator.backward = lambda loss: (time.sleep(2 * unit), backward(loss))
            trainer.train()
        world.loader.close()
    phases.end()


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Both judges with both algorithms, and what the slow one adds."""

    latency = options.share * options.step_seconds
    asked = [sys.executable, __file__, *sys.argv[1:], "--latency", str(latency)]
    commands = {
        f"{algo}, {name}": [*asked, "--algo", algo, *more]
        for algo in ALGOS
        for name, more in FORMS.items()
    }
    report = alternate(commands, options.repeats)
    ends = report.pop("ends")

    def share_waited(form: str) -> float:
        pairs = zip(ends[form]["waited"], report["seconds"][form], strict=True)
        return round(statistics.median(waited / step for waited, step in pairs), 4)

    return {
        "settings": vars(options),
        **report,
        "judge's seconds per call": latency,
        "seconds waited": {form: [round(w, 3) for w in ends[form]["waited"]] for form in commands},
        "share of a step waited": {form: share_waited(form) for form in commands},
        "whole step, slow over at once": {
            f"{algo}, {form}": median_ratio(report, f"{algo}, {form}", f"{algo}, at once")
            for algo in ALGOS
            for form in list(FORMS)[1:]
        },
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_step_options(parser)
    parser.set_defaults(shape="tiny", groups=4, tokens=192, completions=8)
    parser.add_argument("--step-seconds", type=float, default=20.0)
    parser.add_argument("--share", type=float, default=0.1, help="of a step, for each call")
    parser.add_argument("--algo", default=ALGOS[0], choices=ALGOS, help=argparse.SUPPRESS)
    parser.add_argument("--latency", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--no-ahead", dest="ahead", action="store_false", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.latency is not None:
        worker(options)
    else:
        print(json.dumps(benchmark(options), indent=1))


if __name__ == "__main__":
    main()
