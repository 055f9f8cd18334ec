"""What bfloat16 changes in log-probs and frame attention, and what sharing the prompt changes.

    python benchmarks/gpu/precision.py [--device cuda --shape 3b]

One group through the learner's pass without gradients: in float32 with the prompt copied, which all
others are compared with; in float32 with the prompt shared; and both ways with products in bfloat16
(autocast, as training on a GPU does by default) and with all weights in bfloat16. Printed as JSON:
mean and largest difference of log-probs in nats, mean difference of frame attention over its mean,
and of the tokens that look most at each frame the share that stays the same. Random weights.
"""

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.shapes import add_shape_options, random_group, random_model

FRAME_LAYERS = 3


def scored(model: Any, group: Any, options: argparse.Namespace, *, share: bool, cast: bool) -> Any:
    """(log-probs [G, N], frame attention [G, N, F]) on the CPU."""
    import torch

    from train.modeling.packed_forward import group_logprobs

    with torch.no_grad(), torch.autocast(options.device, torch.bfloat16) if cast else nullcontext():
        (score,) = group_logprobs(model, [group], share_prompts=share, frame_layers=FRAME_LAYERS)
    return score.logprobs.double().cpu(), score.frame_attention.double().cpu()


def compared(one: Any, reference: Any, tokens_per_frame: int) -> dict[str, float]:
    """How far a pass is from the reference."""
    difference = (one[0] - reference[0]).abs()
    attention = (one[1] - reference[1]).abs().mean() / reference[1].mean()
    kept = min(tokens_per_frame, one[1].shape[1])
    chosen, expected = (
        each.topk(kept, dim=1).indices.transpose(1, 2).reshape(-1, kept)  # [G F, K]
        for each in (one[1], reference[1])
    )
    same = (chosen[:, :, None] == expected[:, None, :]).any(dim=2).double().mean()
    return {
        "mean |difference| of log-probs": float(difference.mean()),
        "largest |difference| of log-probs": float(difference.max()),
        "mean |difference| of frame attention, relative": float(attention),
        "share of chosen tokens that are the same": float(same),
    }


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All ways to compute the same."""
    import torch

    options.dtype = "float32"
    torch.backends.cudnn.allow_tf32 = False  # the tower's first layer is a convolution
    model, group = random_model(options), random_group(options)
    reference = scored(model, group, options, share=False, cast=False)
    ways = {
        "float32, shared": scored(model, group, options, share=True, cast=False),
        "autocast, plain": scored(model, group, options, share=False, cast=True),
        "autocast, shared": scored(model, group, options, share=True, cast=True),
    }
    model.to(torch.bfloat16)
    ways["bfloat16 weights, plain"] = scored(model, group, options, share=False, cast=False)
    ways["bfloat16 weights, shared"] = scored(model, group, options, share=True, cast=False)
    return {
        "settings": vars(options),
        "against float32, plain": {
            name: {
                figure: float(f"{value:.3g}")
                for figure, value in compared(way, reference, options.tokens_per_frame).items()
            }
            for name, way in ways.items()
        },
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_shape_options(parser)
    parser.add_argument("--tokens-per-frame", type=int, default=128, help="APPO's K3")
    print(json.dumps(benchmark(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
