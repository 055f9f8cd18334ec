"""Attention per frame of every layer, beside SDPA, against a plain SDPA forward and eager.

    python benchmarks/attention_mass.py [--width 2048] [--layers 4] [--repeats 5] [--device cuda]

One forward over a long video prompt and one completion, without gradients: plain SDPA, SDPA with
our frame attention of all layers, and eager attention with `output_attentions`. They take turns on
the same tokens, each in a process of its own; medians, ratios, peak memory above the model and the
arithmetic share of the extra work are printed as JSON. One torch thread and float32 on a CPU,
bfloat16 on a GPU; random weights.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.turns import UNITS, alternate, median_ratio, serve

FORMS = ("sdpa", "with frame attention", "eager with output_attentions")
CELLS = 8


def worker(options: argparse.Namespace) -> None:
    """One form of the forward, on request; its value is the mean hidden state."""
    import torch
    from helpers.tiny_models import VOCABULARY, build_model, prompt

    from train.modeling.frame_attention import capture_frame_attention

    torch.set_num_threads(1)
    if options.device != "cpu":
        torch.set_default_dtype(torch.bfloat16)
    with torch.device(options.device):
        model = build_model(
            options.family,
            layers=options.layers,
            width=options.width,
            mlp_width=options.mlp_width,
            heads=options.heads,
            kv_heads=options.kv_heads,
            weight_std=0.02,
        )
    if options.form == FORMS[2]:
        model.set_attn_implementation({"text_config": "eager"})
    grid = (CELLS, 2 * 8, 2 * (options.vision_tokens // CELLS // 8))
    inputs = prompt(options.family, 0, videos=(grid,), words=1)
    first = inputs["input_ids"].shape[1]
    completion = 10 + torch.arange(options.tokens)[None] * 7 % (VOCABULARY - 10)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], completion], dim=1)
    kinds = inputs["mm_token_type_ids"]
    inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(completion)], dim=1)
    inputs = {name: value.to(options.device) for name, value in inputs.items()}

    @torch.no_grad()
    def run() -> float:
        if options.form == FORMS[2]:
            output = model.model(**inputs, use_cache=False, output_attentions=True)
            assert len(output.attentions) == options.layers
        elif options.form == FORMS[0]:
            output = model.model(**inputs, use_cache=False)
        else:
            with capture_frame_attention(
                model,
                input_ids=inputs["input_ids"],
                attention_mask=torch.ones_like(inputs["input_ids"]),
                video_grid_thw=inputs["video_grid_thw"],
                first_token=first,
                num_tokens=options.tokens,
                num_layers=options.layers,
            ) as frames:
                output = model.model(**inputs, use_cache=False)
            assert frames.result().shape == (1, options.tokens, CELLS)
        return float(output.last_hidden_state.abs().mean())

    serve(run, options.device)


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All forms, and what they come to."""
    commands = {form: [sys.executable, __file__, "--form", form, *sys.argv[1:]] for form in FORMS}
    report = alternate(commands, options.repeats)
    del report["ends"]
    length = options.vision_tokens + options.tokens
    head_width = options.width // options.heads
    kv_width = options.kv_heads * head_width
    linear = length * options.width * (2 * options.width + 2 * kv_width + 3 * options.mlp_width)
    attention = options.width * length**2
    extra = options.width * options.tokens * (length - options.tokens / 2)
    return {
        "settings": vars(options),
        **report,
        **{
            f"times sdpa, {unit}": {
                form: median_ratio(report, form, "sdpa", unit) for form in FORMS
            }
            for unit in UNITS
        },
        "arithmetic share of frame attention": round(extra / (linear + attention), 4),
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", default="qwen2.5-vl", choices=("qwen2.5-vl", "qwen3-vl"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=2048, help="hidden size (3B: 2048)")
    parser.add_argument("--mlp-width", type=int, default=11008)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--vision-tokens", type=int, default=2048, help="a multiple of 64")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of the completion")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        worker(options)
    else:
        print(json.dumps(benchmark(options), indent=1))


if __name__ == "__main__":
    main()
