"""Memory of a training process, part by part, against what `train.plan` says.

    python benchmarks/gpu/memory.py [--device cuda --shape 3b]

One process, all of the language model's weights training, the tower frozen, a group per pass,
gradient checkpointing: weights, gradients and AdamW's states as they come, then the peaks of a
learner's pass and of drawing a group. On a GPU products are in bfloat16, and the allocator is
asked; on a CPU each tensor is counted. The plan's floor (CUDA's context, what the allocator cannot
use) is left out on both sides, and shown beside the memory that the allocator had reserved. JSON.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.shapes import add_shape_options, dtype_of, random_group, random_model, shape_of

GB = 1e9


class _OfGPU:
    """Bytes that the allocator has given out."""

    def now(self) -> int:
        import torch

        return int(torch.cuda.memory_allocated())

    @property
    def peak(self) -> int:
        import torch

        return int(torch.cuda.max_memory_allocated())

    @property
    def reserved(self) -> int | None:
        import torch

        return int(torch.cuda.max_memory_reserved())

    def forget_peak(self) -> None:
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def _counted(device: str) -> Iterator[Any]:
    """What counts bytes while the block runs."""
    if device != "cpu":
        yield _OfGPU()
        return
    from helpers.live_bytes import LiveBytes

    with LiveBytes() as live:
        yield live


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Bytes of each part, and the sizes that the plan needs."""
    import torch

    from train.modeling.packed_forward import group_logprobs
    from train.planning.model_sizes import sizes_of
    from train.rollouts.sampler import Sampling, sample_completions

    shape, on_gpu = shape_of(options), options.device != "cpu"
    group = random_group(options)
    with _counted(options.device) as memory:
        before = memory.now()
        model = random_model(options).train()
        weights = memory.now() - before
        model.model.visual.requires_grad_(False)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)

        def learn() -> None:
            with torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext():
                (score,) = group_logprobs(model, [group])
                loss = -score.logprobs.mean()
            del score
            loss.backward()

        learn()
        gradients = memory.now() - before - weights
        optimizer.step()
        states = memory.now() - before - weights - gradients
        optimizer.zero_grad()
        memory.forget_peak()
        learn()
        learning = memory.peak - before
        reserved = memory.reserved if on_gpu else None
        optimizer.zero_grad()
        memory.forget_peak()
        with torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext():
            sample_completions(
                model,
                [group.inputs],
                group_size=shape.completions,
                sampling=Sampling(shape.tokens),
                end_ids=(),
                seeds=[0],
            )
        drawing = memory.peak - before
    return {
        "weights": weights,
        "gradients": gradients,
        "optimizer": states,
        "learning": learning,
        "drawing": drawing,
        "reserved": reserved,
        "sizes": sizes_of(model),
        "prompt": group.inputs,
    }


def planned(options: argparse.Namespace, sizes: Any, prompt: Any) -> dict[str, float]:
    """Bytes of the same parts by the plan, without and with its floor."""
    from train.planning.job import Job, Prompt
    from train.planning.memory import FLOOR_BYTES, FLOOR_SHARE, memory

    shape = shape_of(options)
    job = Job(
        sizes=sizes,
        prompt=Prompt(prompt["input_ids"].shape[1], len(prompt["pixel_values_videos"])),
        group_size=shape.completions,
        tokens=shape.tokens,
        groups=1,
        groups_drawn=1,
        needs_reference=False,
        trains_tower=False,
        checkpoints=True,
        is_mixed=options.device != "cpu",
        weight_bytes=dtype_of(options).itemsize,
        lora_rank=0,
    )
    plan = memory(job, "ddp", 1)
    return {
        "weights": plan.parts.weights,
        "gradients": plan.parts.gradients,
        "optimizer": plan.parts.optimizer,
        "learning": (plan.learning - FLOOR_BYTES) / (1 + FLOOR_SHARE),
        "drawing": (plan.drawing - FLOOR_BYTES) / (1 + FLOOR_SHARE),
        "learning with floor": plan.learning,
    }


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Both, part by part, and what was measured over what was planned."""
    real = measured(options)
    plan = planned(options, real.pop("sizes"), real.pop("prompt"))
    reserved = real.pop("reserved")
    return {
        "settings": vars(options),
        "GB": {
            part: {
                "measured": round(size / GB, 4),
                "planned": round(plan[part] / GB, 4),
                "measured over planned": round(size / plan[part], 3),
            }
            for part, size in real.items()
        },
        "GB reserved while learning": None if reserved is None else round(reserved / GB, 2),
        "GB planned with floor": round(plan["learning with floor"] / GB, 2),
    }


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_shape_options(parser)
    print(json.dumps(benchmark(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
