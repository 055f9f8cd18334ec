"""Layers that keep a state instead of keys and values (Qwen3.5's gated delta nets), prompts shared.

Such a layer reads a row from left to right; what it knows of the past is a state of fixed size, and
the last inputs of its short convolution. A completion therefore goes on from copies of both as they
stood behind its prompt, and gets the numbers that it would get alone. In a packed row

    [prompt][completion]...[completion][prompt]...

(`train.modeling.attention.PackedLayout`) each prompt is read once, then all of its completions side
by side, padded behind. Gradients flow through the copies, so the prompt gets the sum of its
completions' gradients. The layer's own code computes all of it; here it is only called in parts.
"""

from collections.abc import Iterable, Sequence
from types import MethodType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from train.modeling.families import family_of


class _Group(Protocol):
    """Columns of a packed row, see `train.modeling.attention.PackedGroup`."""

    @property
    def prompt(self) -> slice:
        """Of the prompt."""

    @property
    def completions(self) -> Sequence[slice]:
        """Of its completions, in the order of the row."""


class _Layout(Protocol):
    """See `train.modeling.attention.PackedLayout`."""

    @property
    def groups(self) -> Sequence[_Group]:
        """In the order of the row."""


class LayerStates:
    """The state of one layer in rows [R], under the names that transformers' layers look for."""

    record_past = False

    def __init__(self, conv: Tensor, recurrent: Tensor | None = None) -> None:
        self.conv_states = {0: conv}
        self.recurrent_states = {0: recurrent}

    @property
    def both(self) -> tuple[Tensor, Tensor]:
        """Inputs of the convolution, and the state that a forward left."""
        recurrent = self.recurrent_states[0]
        assert recurrent is not None, "a layer leaves its state when its forward ends"
        return self.conv_states[0], recurrent


class RecurrentStates:
    """What transformers calls a cache, as far as recurrent layers use one."""

    def __init__(self) -> None:
        self.layers: dict[int, LayerStates] = {}

    def has_previous_state(self, layer_idx: int, state_idx: int = 0) -> bool:
        """Whether the layer goes on from a state."""
        return layer_idx in self.layers

    # transformers 5.24 asks by these three instead of through `layers`.

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The last inputs of a layer's convolution, None at the beginning."""
        return self.layers[layer_idx].conv_states[0] if layer_idx in self.layers else None

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """A layer's state, None at the beginning."""
        return self.layers[layer_idx].recurrent_states[0] if layer_idx in self.layers else None

    def is_recording_past(self, layer_idx: int) -> bool:
        """Whether earlier states can be gone back to: no."""
        return LayerStates.record_past

    def update_conv_state(
        self, conv_states: Tensor, layer_idx: int, *, conv_kernel_size: int, **_: object
    ) -> Tensor:
        """Inputs of the convolution [R, C, L] with those before them; keeps the last of them."""
        before = self.layers.get(layer_idx)
        whole = conv_states
        if before is not None:
            whole = torch.cat([before.conv_states[0], conv_states], dim=-1)
        missing = max(0, conv_kernel_size - whole.shape[-1])
        last = torch.nn.functional.pad(whole, (missing, 0))[..., -conv_kernel_size:]
        self.layers[layer_idx] = LayerStates(
            last, None if before is None else before.recurrent_states[0]
        )
        return whole

    def update_recurrent_state(self, recurrent_states: Tensor, layer_idx: int, **_: object) -> None:
        """Keep the state behind the last token [R, heads, D, D]."""
        self.layers[layer_idx].recurrent_states[0] = recurrent_states

    def take_rows(self, rows: Tensor) -> None:
        """Go on with these rows, by number; a number may come several times."""
        self.layers = {
            number: LayerStates(*(state.index_select(0, rows) for state in states.both))
            for number, states in self.layers.items()
        }

    def add_rows(self, others: Iterable["RecurrentStates"]) -> None:
        """Take over the rows of `others`, behind those that are here."""
        for other in others:
            for number, theirs in other.layers.items():
                mine = self.layers.get(number)
                if mine is not None:
                    pairs = zip(mine.both, theirs.both, strict=True)
                    theirs = LayerStates(*(torch.cat(pair) for pair in pairs))
                self.layers[number] = theirs


def share_recurrent_layers(model: Any) -> None:
    """Let the recurrent layers of `model` (without wrappers) read packed rows from now on.

    Other forwards give the same numbers as before.
    """
    for layer in family_of(model.config).recurrent_layers(model):
        if not isinstance(vars(layer).get("forward"), MethodType):
            layer.forward = MethodType(_forward, layer)


def _forward(
    layer: Any,
    hidden_states: Tensor,
    cache_params: Any = None,
    attention_mask: Tensor | None = None,
    *,
    cache: Any = None,
    packed_layout: _Layout | None = None,
    row_cache: object = None,
    **options: Any,
) -> Tensor:
    """Stands in for the forward of a recurrent layer: [B, L, H] -> [B, L, H].

    A cache that comes with a packed row is given each prompt's state (`add_rows`). transformers
    5.17 hands it on as `cache_params`, 5.24 as `cache`.
    """
    read = type(layer).forward
    past = cache_params if cache is None else cache
    if packed_layout is None:
        output: Tensor = read(layer, hidden_states, past, attention_mask, **options)
        return output
    if attention_mask is not None:
        raise ValueError("a packed row takes no attention mask")
    pieces = []
    for group in packed_layout.groups:
        states = RecurrentStates()
        pieces.append(read(layer, hidden_states[:, group.prompt], states, **options))
        if past is not None:
            past.add_rows([states])
        if not group.completions:
            continue
        own = [hidden_states[0, columns] for columns in group.completions]
        states.take_rows(torch.zeros(len(own), dtype=torch.long, device=hidden_states.device))
        rows = read(layer, pad_sequence(own, batch_first=True), states, **options)
        pieces += [row[None, : len(each)] for row, each in zip(rows, own, strict=True)]
    return torch.cat(pieces, dim=1)
