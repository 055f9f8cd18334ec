"""The learner's pass (log-probs and backward): one prompt shared by its completions, or copied.

    python benchmarks/learner_pass.py [--family qwen2.5-vl] [--repeats 5] [--device cuda --shape 3b]

Forms take turns on one model and the same tokens: TRL's way (a row [prompt][completion] for each
completion, the fused head that TRL 1.16 gives its models), our plain pass, and our shared one, also
with APPO's frame attention of the last 3 layers, and with all of APPO. Each form runs in a process
of its own; medians, ratios, peak memory above the model and the arithmetic ceiling are printed as
JSON. One torch thread on a CPU, random weights.
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

FORMS = ("trl", "plain", "shared", "shared with frame attention", "shared with appo")


def trl_pass(model: Any) -> Callable[[Any], Any]:
    """TRL's log-probs of a batch of rows; prompts and pixels come repeated."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    from train.modeling.prompt_tensors import repeated_media

    add_fused_lm_head(model)

    def run(group: Any) -> Any:
        times, prompt = len(group.completions), group.inputs["input_ids"]
        ids = torch.cat([prompt.repeat(times, 1), torch.stack(list(group.completions))], dim=1)
        kinds = torch.zeros_like(ids)
        kinds[:, : prompt.shape[1]] = group.inputs["mm_token_type_ids"]
        labels = ids.clone()
        labels[:, : prompt.shape[1]] = -100
        output = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=kinds,
            labels=labels,
            fused_lm_head=True,
            use_cache=False,
            **repeated_media(group.inputs, times),
        )
        return output.log_probs[:, -group.completions[0].shape[0] :]

    return run


def learner_pass(form: str, model: Any) -> Callable[[Any], Any]:
    """group -> log-probs with gradient."""
    from train.modeling.packed_forward import group_logprobs

    if form == "trl":
        return trl_pass(model)
    if form == "shared with appo":
        return lambda group: appo_pass(model, group)
    layers = 3 if form == "shared with frame attention" else None
    share = form != "plain"
    return lambda group: (
        group_logprobs(model, [group], share_prompts=share, frame_layers=layers)[0].logprobs
    )


def appo_pass(model: Any, group: Any) -> Any:
    """Log-probs under APPO's weights: frame attention, choice of frames and tokens, divergence."""
    import torch

    from train.algorithms.appo import AppoConfig, token_weights_from_hidden
    from train.modeling.packed_forward import group_logprobs

    (score,) = group_logprobs(model, [group], frame_layers=3)
    rewards = torch.arange(len(group.completions)) % 2  # every second completion is right
    weights = token_weights_from_hidden(
        score.frame_attention,
        score.hidden_states,
        model.lm_head.weight.detach(),
        score.mask,
        rewards.to(score.logprobs),
        AppoConfig(),
        log_normalisers=score.log_normalisers,
        all_logprobs=score.all_logprobs,
    )
    # Weighted in the backward pass only, so that all forms name the same log-probs.
    return score.logprobs + (weights - 1) * (score.logprobs - score.logprobs.detach())


def worker(options: argparse.Namespace) -> None:
    """One form of the pass, on request."""
    import torch

    model = random_model(options).train()
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    group = random_group(options)
    score = learner_pass(options.form, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def run() -> float:
        model.zero_grad(set_to_none=False)
        logprobs = score(group)
        (-logprobs.mean()).backward()
        return float(logprobs.detach().mean())

    serve(run, options.device)


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All forms, and what they come to."""
    forms = options.forms or FORMS
    commands = {form: [sys.executable, __file__, "--form", form, *sys.argv[1:]] for form in forms}
    report = alternate(commands, options.repeats)
    del report["ends"]
    shape = shape_of(options)
    prompt = shape.vision_tokens + shape.text_tokens
    plain = shape.completions * (prompt + shape.tokens)
    peaks = report["peak MB above the model"]
    return {
        "settings": vars(options),
        **report,
        **{
            f"times faster than trl, {unit}": {
                form: median_ratio(report, "trl", form, unit) for form in forms
            }
            for unit in UNITS
            if "trl" in forms
        },
        "ceiling (tokens of the language model)": round(
            plain / (prompt + shape.completions * shape.tokens), 2
        ),
        **{
            f"over shared, {unit}": {
                form: median_ratio(report, form, "shared", unit) for form in forms
            }
            for unit in UNITS
            if "shared" in forms
        },
        "memory over trl's": {
            form: round(peaks[form] / peaks["trl"], 3) for form in forms if "trl" in forms
        },
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_shape_options(parser)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    parser.add_argument("--forms", nargs="+", choices=FORMS, help="which forms; all of them")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        worker(options)
    else:
        print(json.dumps(benchmark(options), indent=1))


if __name__ == "__main__":
    main()
