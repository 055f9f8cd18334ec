"""Layers that keep a state: a completion behind a shared prompt reads what it would read alone."""

import copy
from typing import Any

import pytest
import torch
from helpers.tiny_models import build_model
from torch import Tensor

from train.modeling.attention import PackedGroup, PackedLayout
from train.modeling.recurrent_layers import LayerStates, RecurrentStates, share_recurrent_layers

WIDTH = 64


@pytest.fixture(scope="module")
def layers() -> tuple[Any, Any]:
    """A gated delta net as transformers has it, and one that reads packed rows."""
    plain = build_model("qwen3.5")
    packed = copy.deepcopy(plain)
    share_recurrent_layers(packed)
    one, other = (m.model.language_model.layers[1].linear_attn for m in (plain, packed))
    return one, other


def row_of(*groups: tuple[int, tuple[int, ...]]) -> tuple[PackedLayout, int]:
    """Prompts' and completions' lengths -> their columns, and the width of the row."""
    place, made = 0, []

    def take(length: int) -> slice:
        nonlocal place
        place += length
        return slice(place - length, place)

    for prompt, completions in groups:
        made.append(PackedGroup(take(prompt), tuple(take(length) for length in completions)))
    return PackedLayout(tuple(made)), place


# A prompt shorter than the convolution's four tokens; one longer than a chunk of 64; one alone.
GROUPS = ((2, (5, 1, 70)), (90, (3, 9)), (4, ()))


def test_a_packed_row_is_its_sequences_one_by_one(layers: tuple[Any, Any]) -> None:
    """Outputs, and the gradient of a prompt, which is the sum over its completions."""
    plain, packed = layers
    layout, width = row_of(*GROUPS)
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, width, WIDTH, generator=draw, requires_grad=True)
    factors = torch.randn(1, width, WIDTH, generator=draw)
    row = packed(hidden, packed_layout=layout)
    (gradient,) = torch.autograd.grad((row * factors).sum(), hidden)
    expected = torch.zeros_like(row)
    for group in layout.groups:
        expected[:, group.prompt] = plain(hidden[:, group.prompt])
        for own in group.completions:
            whole = plain(torch.cat([hidden[:, group.prompt], hidden[:, own]], dim=1))
            expected[:, own] = whole[:, -(own.stop - own.start) :]
    total = (expected * factors).sum()
    (expected_gradient,) = torch.autograd.grad(total, hidden)
    # float32; the rule reads 64 tokens at a time, and its cuts lie elsewhere
    torch.testing.assert_close(row, expected, rtol=0, atol=2e-5)
    largest = expected_gradient.abs().max()
    assert (gradient - expected_gradient).abs().max() < 1e-4 * largest
    forgetful = plain(hidden)
    assert (forgetful - expected).abs().max() > 0.01, "neighbours would be seen otherwise"


def test_a_cache_gets_each_prompts_state_and_rows_go_on_from_it(layers: tuple[Any, Any]) -> None:
    """Two prompts; three rows of them, one of which leaves; then token by token."""
    plain, packed = layers
    layout, width = row_of((70, ()), (3, ()))
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(1, width, WIDTH, generator=draw)
    tokens = torch.randn(3, 4, WIDTH, generator=draw)
    states = RecurrentStates()
    with torch.no_grad():
        packed(hidden, states, packed_layout=layout)
        states.take_rows(torch.tensor([0, 0, 1]))
        outputs = [packed(tokens[:, :1], states, row_cache=object())]
        states.take_rows(torch.tensor([0, 2]))
        outputs += [packed(tokens[[0, 2], step, None], states) for step in (1, 2, 3)]
        for place, (row, prompt) in enumerate([(0, slice(0, 70)), (2, slice(70, 73))]):
            whole = plain(torch.cat([hidden[:, prompt], tokens[row, None]], dim=1))[0, -4:]
            own = [outputs[0][row, 0], *(output[place, 0] for output in outputs[1:])]
            torch.testing.assert_close(torch.stack(own), whole, rtol=0, atol=2e-5)


def test_rows_are_added_and_taken_by_number() -> None:
    def states(*numbers: float) -> RecurrentStates:
        made = RecurrentStates()
        column = torch.tensor(numbers)[:, None, None]
        made.layers[1] = LayerStates(column, column[..., None] * 10)
        return made

    def rows(made: RecurrentStates) -> tuple[list[float], list[float]]:
        conv, recurrent = made.layers[1].both
        return conv.flatten().tolist(), recurrent.flatten().tolist()

    made = RecurrentStates()
    assert not made.has_previous_state(1)
    assert made.get_conv_state(1) is made.get_recurrent_state(1) is None
    made.add_rows([states(1.0), states(2.0, 3.0)])
    assert rows(made) == ([1, 2, 3], [10, 20, 30])
    made.take_rows(torch.tensor([2, 0, 0]))
    assert rows(made) == ([3, 1, 1], [30, 10, 10])
    assert made.has_previous_state(1)
    assert made.get_recurrent_state(1) is made.layers[1].recurrent_states[0]


def test_a_packed_row_takes_no_mask(layers: tuple[Any, Any]) -> None:
    layout, width = row_of((4, (2,)))
    hidden, mask = torch.zeros(1, width, WIDTH), torch.ones(1, width)
    with pytest.raises(ValueError, match="takes no attention mask"):
        layers[1](hidden, None, mask, packed_layout=layout)


def test_a_plain_forward_stays_as_it_was(layers: tuple[Any, Any]) -> None:
    plain, packed = layers
    hidden: Tensor = torch.randn(2, 9, WIDTH)
    assert plain(hidden).equal(packed(hidden))
