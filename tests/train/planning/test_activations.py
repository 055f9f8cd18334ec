"""Planned activations and logits lie within a tenth of the tensors that real passes hold."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.live_bytes import LiveBytes
from helpers.measured_passes import (
    PATCHES,
    Setting,
    converted_bytes,
    measured_group,
    measured_rows,
)

from train.modeling.logprobs import token_logprobs
from train.planning.activations import Precision, RowShape, Training, learner_pass, tuning_pass

QWEN2_5, QWEN3, QWEN3_5 = Setting("qwen2.5-vl"), Setting("qwen3-vl"), Setting("qwen3.5")
QUICK_GROUPS = (
    QWEN2_5,
    replace(QWEN2_5, lora_rank=4, checkpoints=True, autocast=True, bfloat16=True),
    replace(QWEN3, trains_tower=True, autocast=True, checkpoints=True),
    replace(QWEN3_5, checkpoints=True),
)
OTHER_GROUPS = (
    replace(QWEN2_5, checkpoints=True, tied=False),
    replace(QWEN2_5, lora_rank=4),
    replace(QWEN2_5, checkpoints=True, autocast=True),
    replace(QWEN2_5, autocast=True),
    replace(QWEN2_5, trains_tower=True, checkpoints=True),
    replace(QWEN3, tied=False),
    replace(QWEN3, checkpoints=True, autocast=True, bfloat16=True),
    replace(QWEN3, lora_rank=4, checkpoints=True),
    QWEN3_5,
    replace(QWEN3_5, autocast=True),
    replace(QWEN3_5, checkpoints=True, autocast=True),
)
QUICK_ROWS = (replace(QWEN3, lora_rank=4, autocast=True, bfloat16=True, checkpoints=True),)
OTHER_ROWS = (
    QWEN2_5,
    replace(QWEN2_5, checkpoints=True, trains_tower=True),
    replace(QWEN3, autocast=True, checkpoints=True),
    QWEN3_5,
)


def name(setting: Setting) -> str:
    """The fields that are not the default."""
    given = [key for key, value in vars(setting).items() if value is True]
    return "-".join([setting.family, *given, f"lora{setting.lora_rank}"])


def cases(quick: Sequence[Setting], others: Sequence[Setting]) -> list[Any]:
    """Others are long tests."""
    slow = [pytest.param(each, id=name(each), marks=pytest.mark.slow) for each in others]
    return [pytest.param(each, id=name(each)) for each in quick] + slow


@pytest.mark.parametrize("setting", cases(QUICK_GROUPS, OTHER_GROUPS))
def test_a_group_holds_what_is_planned(setting: Setting) -> None:
    """Four completions of 65 tokens, three layers; the head's logits are as good as nothing."""
    measured = measured_group(setting, completions=4, tokens=65)
    row = RowShape(groups=1, prompt=measured.prompt, completions=4, tokens=65)
    planned = learner_pass(
        setting.sizes(), row, PATCHES, setting.precision, setting.training, logits_at_once=0
    )
    assert planned.activations + converted_bytes(setting) == pytest.approx(measured.peak, rel=0.1)


@pytest.mark.parametrize("completions", [1, 2])
@pytest.mark.parametrize("setting", cases(QUICK_GROUPS, ()))
def test_a_part_of_a_group_holds_what_is_planned(setting: Setting, completions: int) -> None:
    """What --completions-per-pass forwards at a time."""
    measured = measured_group(setting, completions=completions, tokens=65)
    row = RowShape(groups=1, prompt=measured.prompt, completions=completions, tokens=65)
    planned = learner_pass(
        setting.sizes(), row, PATCHES, setting.precision, setting.training, logits_at_once=0
    )
    assert planned.activations + converted_bytes(setting) == pytest.approx(measured.peak, rel=0.1)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("setting", cases(QUICK_ROWS, OTHER_ROWS))
def test_rows_of_fine_tuning_hold_what_is_planned(setting: Setting, rows: int) -> None:
    """Two rows of different length are padded: attention then holds a mask and repeated keys."""
    measured = measured_rows(setting, rows=rows, tokens=257)
    row = RowShape(groups=rows, prompt=measured.prompt, completions=0, tokens=0)
    planned = tuning_pass(
        setting.sizes(), row, 0, rows * PATCHES, setting.precision, setting.training
    )
    assert planned.activations + converted_bytes(setting) == pytest.approx(measured.peak, rel=0.1)


def test_what_is_kept_between_the_passes() -> None:
    """Without checkpointing all is kept from the forward on: the plan's `kept` and `ends`."""
    measured = measured_group(QWEN2_5, completions=4, tokens=65)
    row = RowShape(groups=1, prompt=measured.prompt, completions=4, tokens=65)
    planned = learner_pass(QWEN2_5.sizes(), row, 0, QWEN2_5.precision, QWEN2_5.training)
    assert planned.kept + planned.ends == pytest.approx(measured.kept, rel=0.05)


@pytest.mark.parametrize("at_once", [2**26, 100_000], ids=["whole", "chunks"])
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_logits_of_the_head(at_once: int, compute: torch.dtype) -> None:
    """400 tokens over 1,000 words: at once, or 100 tokens at a time."""
    head = torch.nn.Linear(8, 1000, bias=False)
    head.weight.grad = torch.zeros_like(head.weight)
    hidden = torch.randn(400, 8, requires_grad=True)
    tokens = torch.randint(1000, (400,))
    with LiveBytes(head.weight, head.weight.grad, hidden, tokens) as live:
        with torch.autocast("cpu", compute, enabled=compute != torch.float32):
            scores = token_logprobs(head, hidden, tokens, logits_at_once=at_once)
        forward = live.peak
        scores.logprobs.sum().backward()
    sizes = replace(QWEN2_5.sizes(), text=replace(QWEN2_5.sizes().text, vocabulary=1000))
    planned = learner_pass(
        sizes,
        RowShape(groups=4, prompt=1, completions=10, tokens=10),
        0,
        Precision(4, 2 if compute == torch.bfloat16 else 4, 4),
        Training(),
        logits_at_once=at_once,
    )
    assert planned.logits == pytest.approx(max(forward, live.peak), rel=0.1)
