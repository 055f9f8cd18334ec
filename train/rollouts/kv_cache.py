"""Keys and values during sampling: those of a prompt are kept once, whatever its group's size.

A row (one completion) attends to its group's prompt and to its own tokens, by one kernel each
(`train.modeling.partial_attention`). The prompt part takes the queries of all rows of a group
together, so its keys are read once per step and not once per row. Tokens are written into buffers
that have room for the following ones.

Both classes are what transformers calls a cache: of the past they tell nothing (no mask is wanted),
and they are handed to `train.modeling.attention` beside the forward that fills them. Layers that
keep a state instead (`train.modeling.recurrent_layers`) begin each row with a copy of its prompt's.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from train.modeling.partial_attention import attention_of_part, bias_of_hidden, join_parts
from train.modeling.recurrent_layers import RecurrentStates

_FIRST_CAPACITY = 64


class _Unmasked:
    """For transformers every forward looks like the first one: it makes no mask."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0


class PromptCache(_Unmasked, RecurrentStates):
    """Takes the keys and values of prompts that are forwarded in packed rows."""

    def __init__(self) -> None:
        super().__init__()
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

        Both have the values' dtype. Under autocast keys come as float32, and are rounded to what
        the learner's attention rounds them to.
        """
        keys = pad_sequence(self._keys.pop(layer), batch_first=True)
        values = pad_sequence(self._values.pop(layer), batch_first=True)
        return (
            keys.to(values.dtype).transpose(1, 2).contiguous(),
            values.transpose(1, 2).contiguous(),
        )


class SharedCache(_Unmasked, RecurrentStates):
    """Prompts, and completions that grow by one token in each forward of their rows [R, 1]."""

    def __init__(self, prompts: PromptCache, attending: Sequence[int], group_size: int) -> None:
        """`attending`: numbers of the layers that attend."""
        super().__init__()
        layers = [prompts.take_layer(layer) for layer in attending]
        self._place = {layer: place for place, layer in enumerate(attending)}
        self._prompt_keys = [keys for keys, _ in layers]
        self._prompt_values = [values for _, values in layers]
        device = self._prompt_keys[0].device
        self.add_rows([prompts])
        groups = torch.arange(len(prompts.lengths), device=device)
        self.take_rows(groups.repeat_interleave(group_size))
        lengths = torch.tensor(prompts.lengths, device=device)
        columns = torch.arange(max(prompts.lengths), device=device)
        self._bias = None
        if len(set(prompts.lengths)) > 1:
            is_padding = (columns >= lengths[:, None])[:, None, None]
            self._bias = bias_of_hidden(is_padding, self._prompt_keys[0].dtype)
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
        self.take_rows(kept_rows)
        for layer, (keys, values) in enumerate(zip(self._own_keys, self._own_values, strict=True)):
            self._own_keys[layer] = keys[kept_rows]
            self._own_values[layer] = values[kept_rows]
        if len(still) < len(self._prompt_keys[0]):
            kept_groups = torch.tensor(still, device=device)
            for layer, keys in enumerate(self._prompt_keys):
                self._prompt_keys[layer] = keys[kept_groups]
                self._prompt_values[layer] = self._prompt_values[layer][kept_groups]
            if self._bias is not None:
                self._bias = bias_of_hidden(self._bias[kept_groups].isneginf(), self._bias.dtype)
        number = {group: new for new, group in enumerate(still)}
        self._lay_out([number[group] for group in groups])

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Append one token of each row; [R, kv heads, 1, D]."""
        place = self._place[layer_idx]
        if place == 0:
            self._num_tokens += 1
        if place == len(self._own_keys):
            self._own_keys.append(_room_for(value, _FIRST_CAPACITY))
            self._own_values.append(_room_for(value, _FIRST_CAPACITY))
        elif self._num_tokens > self._own_keys[place].shape[2]:
            for own in (self._own_keys, self._own_values):
                full = own[place]
                own[place] = _room_for(full, 2 * full.shape[2])
                own[place][:, :, : full.shape[2]] = full
        last = self._num_tokens - 1
        self._own_keys[place][:, :, last] = key[:, :, 0]
        self._own_values[place][:, :, last] = value[:, :, 0]
        return key, value

    def attend(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """Attention of each row's newest token: [R, heads, 1, D] -> [R, 1, heads, D]."""
        with torch.autocast(query.device.type, enabled=False):
            return self._attend(self._place[layer], query, scaling)

    def _attend(self, place: int, query: Tensor, scaling: float) -> Tensor:
        num_rows, heads, _, width = query.shape
        prompt_keys, prompt_values = self._prompt_keys[place], self._prompt_values[place]
        num_groups, kv_heads = prompt_keys.shape[:2]
        queries = query.to(prompt_keys.dtype)
        # Heads that share keys stand as further queries of one head.
        queries = queries.view(num_rows, kv_heads, heads // kv_heads, width)
        own_keys = self._own_keys[place][:, :, : self._num_tokens]
        own_values = self._own_values[place][:, :, : self._num_tokens]
        of_own = attention_of_part(queries, own_keys, own_values, scaling)

        in_slots = queries if self._row_of_slot is None else queries[self._row_of_slot]
        folded = in_slots.view(num_groups, self._slots, *queries.shape[1:]).transpose(1, 2)
        of_prompts = attention_of_part(
            folded.flatten(2, 3), prompt_keys, prompt_values, scaling, self._bias
        )

        outputs, normalisers = (
            states.reshape(*states.shape[:2], self._slots, -1, *states.shape[3:])
            .transpose(1, 2)
            .flatten(0, 1)
            for states in of_prompts
        )
        if self._row_of_slot is not None:
            outputs, normalisers = outputs[self._slot_of_row], normalisers[self._slot_of_row]
        output = join_parts(of_own, (outputs, normalisers))
        return output.to(query.dtype).reshape(num_rows, 1, heads, width)


def _room_for(states: Tensor, capacity: int) -> Tensor:
    rows, heads, _, width = states.shape
    return states.new_empty(rows, heads, capacity, width)
