"""Operations of one step of sampling: how many a device is asked for, whatever they take.

    python benchmarks/sampling_operations.py [--before ../before]

A tiny model with 4 and with 8 layers, 8 completions, top-p 0.95: dispatched operations that compute
(views and allocations are left out) of 8 steps, by layer and outside of the layers. Each is at
least one kernel on a GPU. `generate` is transformers' own on copies of the prompt. With `--before`
another checkout is counted too. Printed as JSON; nothing here depends on the machine's load.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_NO_WORK = (
    *("view", "reshape", "transpose", "slice", "select", "expand", "unsqueeze", "squeeze", "split"),
    *("_unsafe_view", "alias", "detach", "t.default", "permute", "unbind", "as_strided", "narrow"),
    *("empty", "size", "stride", "sym_", "is_", "_local_scalar", "lift"),
)
_FORMATS = ("float32", "bfloat16")


def counted(model: Any, prompts: list[Any], tokens: int, **options: Any) -> int:
    """Operations of sampling so many tokens."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from train.rollouts.sampler import Sampling, sample_completions

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.count += not any(word in str(function) for word in _NO_WORK)
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Counter() as counter:
        sample_completions(
            model,
            prompts,
            group_size=8,
            sampling=Sampling(tokens, top_p=0.95),
            end_ids=(),
            seeds=list(range(len(prompts))),
            **options,
        )
    return counter.count


def operations() -> dict[str, Any]:
    """By family, number format and way."""
    import torch
    from helpers.tiny_models import build_model, prompt

    found = {}
    for family in ("qwen2.5-vl", "qwen3-vl"):
        for dtype in _FORMATS:
            one = [prompt(family, 5)]
            ways: dict[str, tuple[list[Any], dict[str, Any]]] = {
                "generate": (one, {"share_prompts": False}),
                "shared": (one, {}),
                "shared, two groups of different length": ([*one, prompt(family, 6, words=9)], {}),
            }
            for way, (prompts, options) in ways.items():
                steps = {}
                for layers in (4, 8):
                    model = build_model(family, layers=layers).to(getattr(torch, dtype))
                    few, many = (counted(model, prompts, n, **options) for n in (3, 11))
                    steps[layers] = (many - few) / 8
                layer = (steps[8] - steps[4]) / 4
                found[f"{family}, {dtype}, {way}"] = {
                    "a layer": layer,
                    "else": steps[4] - 4 * layer,
                }
    return found


def main() -> None:
    """Count, and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.before is not None:
        report = {}
        for side, root in (("before", options.before.resolve()), ("after", ROOT)):
            command = [sys.executable, __file__, "--root", str(root)]
            own = os.environ | {"PYTHONPATH": str(root)}
            report[side] = json.loads(subprocess.check_output(command, text=True, env=own))
        print(json.dumps(report, indent=1))
        return
    sys.path[:0] = [str(options.root), str(options.root / "tests")]
    print(json.dumps(operations(), indent=1))


if __name__ == "__main__":
    main()
