"""A step of sampling over buffers of fixed size, plain and compiled, beside the sampler's own step.

    python benchmarks/compiled_step.py [--layers 4] [--width 64 --mlp-width 96] [--repeats 5]

The sampler reads a slice of each buffer that grows by a token. Here room for all tokens is there
from the beginning, the place of the newest token is a tensor, and a mask hides places without a
token: every step has the same shapes, as torch.compile and CUDA graphs want them. Greedy
completions of a tiny model of random weights; processor milliseconds of a step (medians), those of
compiling apart, as JSON. A measurement of what such a step would bring, not a part of the sampler.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


@cache
def fixed_cache() -> Any:
    """The class of a `SharedCache` of one group whose buffers never change their shape."""
    import torch
    from torch import Tensor

    from train.modeling.partial_attention import attention_of_part, join_parts
    from train.rollouts.kv_cache import SharedCache

    class FixedCache(SharedCache):
        def __init__(self, prompts: Any, layers: list[int], rows: int, capacity: int) -> None:
            super().__init__(prompts, layers, rows)
            for keys in self._prompt_keys:
                shape = (rows, keys.shape[1], capacity, keys.shape[3])
                self._own_keys.append(keys.new_zeros(shape))
                self._own_values.append(keys.new_zeros(shape))
            self.last = torch.full((1,), -1)
            self.hidden = keys.new_full((1, 1, 1, capacity), -torch.inf)

        def advance(self) -> None:
            """One more token of each row."""
            self.last += 1
            self.hidden.index_fill_(3, self.last, 0.0)

        def update(
            self, key: Tensor, value: Tensor, layer_idx: int, *_: object, **__: object
        ) -> tuple[Tensor, Tensor]:
            place = self._place[layer_idx]
            self._own_keys[place].index_copy_(2, self.last, key.to(value.dtype))
            self._own_values[place].index_copy_(2, self.last, value)
            return key, value

        def attend(self, layer: int, query: Tensor, scaling: float) -> Tensor:
            place, (rows, heads, _, width) = self._place[layer], query.shape
            keys, values = self._prompt_keys[place], self._prompt_values[place]
            queries = query.to(keys.dtype).view(rows, keys.shape[1], -1, width)
            of_own = attention_of_part(
                queries, self._own_keys[place], self._own_values[place], scaling, self.hidden
            )
            folded = queries.transpose(0, 1).flatten(1, 2)[None]
            outputs, normalisers = attention_of_part(folded, keys, values, scaling)
            of_prompt = (
                outputs[0].unflatten(1, (rows, -1)).transpose(0, 1),
                normalisers[0].unflatten(1, (rows, -1)).transpose(0, 1),
            )
            return join_parts(of_own, of_prompt).to(query.dtype).reshape(rows, 1, heads, width)

    return FixedCache


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of the three ways, and whether they take the same tokens."""
    import torch
    from helpers.tiny_models import build_model, prompt

    from train.modeling.attention import use_our_attention
    from train.modeling.families import attention_layers
    from train.modeling.prompt_tensors import prompt_positions
    from train.rollouts.kv_cache import SharedCache
    from train.rollouts.sampler import _prefill

    torch.set_num_threads(1)
    model = build_model(
        options.family, layers=options.layers, width=options.width, mlp_width=options.mlp_width
    )
    use_our_attention(model)
    inputs, layers = prompt(options.family, 5), attention_layers(model.config)
    positions = [prompt_positions(model, inputs)]

    def plain(ids: Any, places: Any, kept: Any) -> Any:
        return model(
            input_ids=ids,
            position_ids=places,
            past_key_values=kept,
            row_cache=kept,
            use_cache=True,
        ).logits[:, -1]

    def draw(step: Callable[..., Any], *, is_fixed: bool) -> tuple[Any, float]:
        logits, prompts = _prefill(model, [inputs], positions, None)
        kept: Any = None
        if is_fixed:
            kept = fixed_cache()(prompts, layers, options.rows, options.tokens)
        else:
            kept = SharedCache(prompts, layers, options.rows)
        logits = logits.repeat_interleave(options.rows, dim=0)
        last = positions[0][:, -1:].repeat(1, options.rows)[:, :, None]
        tokens, began = [], time.process_time()
        for number in range(options.tokens):
            tokens.append(logits.argmax(dim=-1))
            if is_fixed:
                kept.advance()
            logits = step(tokens[-1][:, None], last + number + 1, kept)
        took = 1000 * (time.process_time() - began) / options.tokens
        return torch.stack(tokens, dim=1), took

    compiled = torch.compile(plain, dynamic=False)
    ways: dict[str, tuple[Callable[..., Any], bool]] = {
        "the sampler's": (plain, False),
        "fixed": (plain, True),
        "fixed, compiled": (compiled, True),
    }
    with torch.no_grad():
        first = {name: draw(step, is_fixed=fixed) for name, (step, fixed) in ways.items()}
        turns = [
            {name: draw(step, is_fixed=fixed)[1] for name, (step, fixed) in ways.items()}
            for _ in range(options.repeats)
        ]
    medians = {name: statistics.median(turn[name] for turn in turns) for name in ways}
    reference = first["the sampler's"][0]
    compiling = first["fixed, compiled"][1] - medians["fixed, compiled"]
    return {
        "settings": vars(options),
        "ms of a step": {name: round(value, 2) for name, value in medians.items()},
        "s of compiling": round(compiling * options.tokens / 1000, 1),
        "same tokens": all(bool((tokens == reference).all()) for tokens, _ in first.values()),
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", default="qwen2.5-vl", choices=("qwen2.5-vl", "qwen3-vl"))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--mlp-width", type=int, default=96)
    parser.add_argument("--rows", type=int, default=8, help="completions of the group")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    print(json.dumps(measured(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
