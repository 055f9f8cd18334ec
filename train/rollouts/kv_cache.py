"""Keys and values during sampling: those of a prompt are kept once, whatever its group's size.

A row (one completion) attends to its group's prompt and to its own tokens. The prompt part takes
the queries of all rows of a group in one product, so its keys are read once per step and not once
per row; the own part is a product per row. Each part gives its largest score, its sum of
exponentials and its sum of values, and the two are one softmax together.

Both classes are what transformers calls a cache: of the past they tell nothing (no mask is wanted),
and they are handed to `train.modeling.attention` beside the forward that fills them.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from train.modeling.numerics import at_least_float32

_FIRST_CAPACITY = 64


class _Unmasked:
    """For transformers every forward looks like the first one: it makes no mask."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0


class PromptCache(_Unmasked):
    """Takes the keys and values of prompts that are forwarded in packed rows."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._row: list[int] = []
        self._keys: dict[int, list[Tensor]] = {}
        self._values: dict[int, list[Tensor]] = {}

    def begin_row(self, lengths: Sequence[int]) -> None:
        """The next forward is a row of prompts of these lengths."""
        self._row = list(lengths)
        self.lengths += lengths

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Keep what a layer made of the row; [1, kv heads, L, D]."""
        for kept, states in ((self._keys, key), (self._values, value)):
            parts = torch.split(states[0].transpose(0, 1), self._row)
            kept.setdefault(layer_idx, []).extend(parts)
        return key, value

    def take_layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [prompts, kv heads, longest, D] of a layer; the cache forgets them.

        Keys are float32: scores are taken in float32 as SDPA does it, also where the model is
        bfloat16, and must not be converted again at every step.
        """
        keys = pad_sequence(self._keys.pop(layer), batch_first=True)
        values = pad_sequence(self._values.pop(layer), batch_first=True)
        return (
            at_least_float32(keys).transpose(1, 2).contiguous(),
            values.transpose(1, 2).contiguous(),
        )


class SharedCache(_Unmasked):
    """Prompts, and completions that grow by one token in each forward of their rows [R, 1]."""

    def __init__(self, prompts: PromptCache, num_layers: int, group_size: int) -> None:
        layers = [prompts.take_layer(layer) for layer in range(num_layers)]
        self._prompt_keys = [keys for keys, _ in layers]
        self._prompt_values = [values for _, values in layers]
        device = self._prompt_keys[0].device
        lengths = torch.tensor(prompts.lengths, device=device)
        columns = torch.arange(max(prompts.lengths), device=device)
        self._is_padding = (
            None if len(set(prompts.lengths)) == 1 else (columns >= lengths[:, None])[:, None, None]
        )
        self._own_keys: list[Tensor] = []
        self._own_values: list[Tensor] = []
        self._num_tokens = 0
        self._lay_out([group for group in range(len(lengths)) for _ in range(group_size)])

    def _lay_out(self, group_of_row: list[int]) -> None:
        """Where the rows stand among the slots of their groups; all groups have as many slots."""
        self._group_of_row = group_of_row
        sizes = Counter(group_of_row)
        self._slots = max(sizes.values())
        self._row_of_slot: Tensor | None = None
        if len(set(sizes.values())) > 1:
            firsts = [0, *accumulate(sizes[group] for group in sorted(sizes))]
            device = self._prompt_keys[0].device
            # A free slot repeats the first row of its group; nobody reads what comes of it.
            rows = [
                first + (slot if first + slot < stop else 0)
                for first, stop in pairwise(firsts)
                for slot in range(self._slots)
            ]
            slots = [
                number * self._slots + row - first
                for number, (first, stop) in enumerate(pairwise(firsts))
                for row in range(first, stop)
            ]
            self._row_of_slot = torch.tensor(rows, device=device)
            self._slot_of_row = torch.tensor(slots, device=device)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, ascending; a prompt that no row needs is dropped."""
        groups = [self._group_of_row[row] for row in rows]
        still = sorted(set(groups))
        device = self._prompt_keys[0].device
        kept_rows = torch.tensor(rows, device=device)
        for layer, (keys, values) in enumerate(zip(self._own_keys, self._own_values, strict=True)):
            self._own_keys[layer] = keys[kept_rows]
            self._own_values[layer] = values[kept_rows]
        if len(still) < len(self._prompt_keys[0]):
            kept_groups = torch.tensor(still, device=device)
            for layer, keys in enumerate(self._prompt_keys):
                self._prompt_keys[layer] = keys[kept_groups]
                self._prompt_values[layer] = self._prompt_values[layer][kept_groups]
            if self._is_padding is not None:
                self._is_padding = self._is_padding[kept_groups]
        number = {group: new for new, group in enumerate(still)}
        self._lay_out([number[group] for group in groups])

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Append one token of each row; [R, kv heads, 1, D]."""
        if layer_idx == 0:
            self._num_tokens += 1
        if layer_idx == len(self._own_keys):
            self._own_keys.append(_room_for(at_least_float32(key), _FIRST_CAPACITY))
            self._own_values.append(_room_for(value, _FIRST_CAPACITY))
        elif self._num_tokens > self._own_keys[layer_idx].shape[2]:
            for own in (self._own_keys, self._own_values):
                full = own[layer_idx]
                own[layer_idx] = _room_for(full, 2 * full.shape[2])
                own[layer_idx][:, :, : full.shape[2]] = full
        last = self._num_tokens - 1
        self._own_keys[layer_idx][:, :, last] = key[:, :, 0]
        self._own_values[layer_idx][:, :, last] = value[:, :, 0]
        return key, value

    def attend(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """Attention of each row's newest token: [R, heads, 1, D] -> [R, 1, heads, D]."""
        with torch.autocast(query.device.type, enabled=False):
            return self._attend(layer, query, scaling)

    def _attend(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        num_rows, heads, _, width = query.shape
        prompt_keys, prompt_values = self._prompt_keys[layer], self._prompt_values[layer]
        num_groups, kv_heads = prompt_keys.shape[:2]
        queries = at_least_float32(query).view(num_rows, kv_heads, heads // kv_heads, width)
        queries = queries * scaling

        own_keys = self._own_keys[layer][:, :, : self._num_tokens]
        own = _part(queries, own_keys, self._own_values[layer][:, :, : self._num_tokens], None)

        in_slots = queries if self._row_of_slot is None else queries[self._row_of_slot]
        folded = in_slots.view(num_groups, self._slots, *queries.shape[1:]).transpose(1, 2)
        of_prompts = _part(folded.flatten(2, 3), prompt_keys, prompt_values, self._is_padding)

        def of_rows(states: Tensor) -> Tensor:
            by_slot = states.view(num_groups, kv_heads, self._slots, -1, states.shape[-1])
            flat = by_slot.transpose(1, 2).flatten(0, 1)
            return flat if self._row_of_slot is None else flat[self._slot_of_row]

        prompt_largest, prompt_total, prompt_sum = map(of_rows, of_prompts)
        own_largest, own_total, own_sum = own
        largest = torch.maximum(prompt_largest, own_largest)
        of_prompt, of_own = (prompt_largest - largest).exp(), (own_largest - largest).exp()
        output = (of_prompt * prompt_sum + of_own * own_sum) / (
            of_prompt * prompt_total + of_own * own_total
        )
        return output.to(query.dtype).reshape(num_rows, 1, heads, width)


def _room_for(states: Tensor, capacity: int) -> Tensor:
    rows, heads, _, width = states.shape
    return states.new_empty(rows, heads, capacity, width)


def _part(
    queries: Tensor, keys: Tensor, values: Tensor, is_hidden: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Largest score, sum of exponentials [B, kv heads, Q, 1] and sum of values [B, kv heads, Q, D].

    `queries` (scaled) and `keys` float32; products with the values are taken in the values' dtype.
    """
    scores = queries @ keys.transpose(2, 3)
    if is_hidden is not None:
        scores = scores.masked_fill_(is_hidden, -torch.inf)
    largest = scores.amax(dim=-1, keepdim=True)
    weights = scores.sub_(largest).exp_()
    summed = at_least_float32(weights.to(values.dtype) @ values)
    return largest, weights.sum(dim=-1, keepdim=True), summed
