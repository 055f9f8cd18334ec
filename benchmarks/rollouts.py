"""Rollouts of one prompt group: TRL's way against the prompt computed once.

    python benchmarks/rollouts.py [--family qwen2.5-vl] [--repeats 5] [--device cuda --shape 3b]
    python benchmarks/rollouts.py --groups 4 --forms shared apart

Greedy completions of full length, so that all forms draw the same tokens: transformers' `generate`
on the prompt and its pixels repeated for each completion, which is what TRL 1.16 calls; our plain
path, which does the same; ours with the prompt shared, and (`apart`) so with one group after
another instead of all together. Each form runs in a process of its own; medians, ratios, peak
memory above the model and the arithmetic ceiling are printed as JSON. One torch thread on a CPU,
random weights.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.shapes import add_shape_options, random_group, random_model, shape_of
from benchmarks.turns import UNITS, alternate, median_ratio, serve

FORMS = ("trl", "plain", "shared", "apart")


def trl_rollouts(model: Any, inputs: Any, completions: int, tokens: int) -> Callable[[], Any]:
    """What `GRPOTrainer._generate_single_turn` does with prompts that come repeated."""
    import torch

    from train.modeling.prompt_tensors import repeated_media

    repeated = repeated_media(inputs, completions)
    for name in ("input_ids", "mm_token_type_ids"):
        repeated[name] = inputs[name].repeat(completions, 1)
    repeated["attention_mask"] = torch.ones_like(repeated["input_ids"])
    config = type(model.generation_config)(
        max_new_tokens=tokens, do_sample=False, pad_token_id=0, eos_token_id=None
    )

    def run() -> Any:
        with torch.no_grad():
            output = model.generate(**repeated, generation_config=config)
        return output[:, repeated["input_ids"].shape[1] :]

    return run


def worker(options: argparse.Namespace) -> None:
    """One form of drawing, on request; its value is the tokens' mean, weighted by their places."""
    import torch

    from train.rollouts.sampler import Sampling, sample_completions

    model, shape = random_model(options), shape_of(options)
    prompts = [random_group(options, seed=number).inputs for number in range(options.groups)]

    def ours() -> Any:
        groups = sample_completions(
            model,
            prompts,
            group_size=shape.completions,
            sampling=Sampling(shape.tokens, temperature=0.0),
            end_ids=(),
            share_prompts=options.form != "plain",
            **({"groups_at_once": 1} if options.form == "apart" else {}),
        )
        return torch.stack([row for group in groups for row in group])

    run = ours
    if options.form == "trl":
        each = [trl_rollouts(model, one, shape.completions, shape.tokens) for one in prompts]

        def theirs() -> Any:
            return torch.cat([draw() for draw in each])

        run = theirs
    places = torch.arange(1, shape.tokens + 1, dtype=torch.float64)
    serve(lambda: float((run().double().cpu() * places).mean()), options.device)


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All forms, and what they come to."""
    forms = list(dict.fromkeys(options.forms))
    commands = {form: [sys.executable, __file__, "--form", form, *sys.argv[1:]] for form in forms}
    report = alternate(commands, options.repeats)
    del report["ends"]
    shape = shape_of(options)
    prompt = shape.vision_tokens + shape.text_tokens
    drawn = shape.completions * shape.tokens
    peaks = report["peak MB above the model"]
    return {
        "settings": vars(options),
        **report,
        **{
            f"times faster than {forms[0]}, {unit}": {
                form: median_ratio(report, forms[0], form, unit) for form in forms
            }
            for unit in UNITS
        },
        "ceiling (tokens of the language model)": round(
            (shape.completions * prompt + drawn) / (prompt + drawn), 2
        ),
        f"memory over {forms[0]}'s": {
            form: round(peaks[form] / max(1, peaks[forms[0]]), 3) for form in forms
        },
        "same tokens": len(set(report["value"].values())) == 1,
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_shape_options(parser)
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    parser.add_argument("--groups", type=int, default=1, help="prompts, each with its completions")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS[:3])
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        worker(options)
    else:
        print(json.dumps(benchmark(options), indent=1))


if __name__ == "__main__":
    main()
