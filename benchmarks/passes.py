"""A group in passes of some of its completions: memory saved, and what that costs in time.

    python benchmarks/passes.py [--shape small] [--per-pass 8 4 2 1] [--repeats 5]

Each form is the learner's work on one group: forward and backward of each pass, gradients summed;
"ahead" forwards all passes once before without gradient, as APPO's weights need it. Bytes are those
of tensors alive at the peak, weights and gradients not counted. Forms take turns on one model and
the same tokens. One torch thread on a CPU, random weights. JSON.
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


def work_of(form: str, model: Any, group: Any) -> Callable[[], float]:
    """`form` is "N" or "N ahead": passes of at most N completions."""
    from dataclasses import replace

    import torch

    from train.modeling.packed_forward import group_logprobs
    from train.trainers.micro_batches import passes_of

    number, _, ahead = form.partition(" ")
    parts = [
        replace(group, completions=group.completions[each.rows])
        for each in passes_of([len(group.completions)], int(number))
    ]
    num_tokens = sum(len(completion) for completion in group.completions)

    def work() -> float:
        model.zero_grad(set_to_none=False)
        if ahead:
            with torch.no_grad():
                for part in parts:
                    group_logprobs(model, [part], frame_layers=3)
        total = 0.0
        for part in parts:
            loss = -group_logprobs(model, [part])[0].logprobs.sum() / num_tokens
            loss.backward()
            total += float(loss.detach())
        return total

    return work


def prepared(options: argparse.Namespace) -> tuple[Any, Any]:
    """A model that trains, with gradients that exist, and a group."""
    import torch

    model = random_model(options).train()
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return model, random_group(options)


def megabytes(form: str, model: Any, group: Any) -> float:
    """Of tensors at the peak."""
    from helpers.live_bytes import LiveBytes

    work = work_of(form, model, group)
    gradients = [parameter.grad for parameter in model.parameters()]
    with LiveBytes(*model.parameters(), *gradients) as live:
        work()
    return round(live.peak / 2**20, 1)


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All forms, and what they come to."""
    most = shape_of(options).completions
    forms = [f"{n}{how}" for how in ("", " ahead") for n in options.per_pass or (most, most // 2)]
    commands = {form: [sys.executable, __file__, "--form", form, *sys.argv[1:]] for form in forms}
    report = alternate(commands, options.repeats)
    del report["ends"]
    model, group = prepared(options)
    peaks = {form: megabytes(form, model, group) for form in forms}
    return {
        "settings": vars(options),
        **report,
        "MB of tensors at the peak": peaks,
        "memory over the whole group's": {
            form: round(peak / peaks[forms[0]], 3) for form, peak in peaks.items()
        },
        **{
            f"over the whole group, {unit}": {
                form: median_ratio(report, form, forms[0], unit) for form in forms
            }
            for unit in UNITS
        },
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_shape_options(parser)
    parser.add_argument("--per-pass", type=int, nargs="+", help="first the whole group, then less")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    parser.add_argument("--form", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        serve(work_of(options.form, *prepared(options)), options.device)
    else:
        print(json.dumps(benchmark(options), indent=1))


if __name__ == "__main__":
    main()
