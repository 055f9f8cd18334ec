"""Attention per frame beside SDPA is that of eager attention."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tensor_memory import TensorMemory
from helpers.tiny_models import FAMILIES, VIDEO, batch_of, group, tiny_model
from torch import Tensor

from train.modeling.frame_attention import capture_frame_attention, frame_columns
from train.modeling.numerics import attention_mass

families = pytest.mark.parametrize("family", FAMILIES)


def ragged_groups(family: str) -> list[Any]:
    """Video and image; two videos; one cell: prompts and completions of different lengths."""
    return [
        group(family, 0, (5,), image=(1, 4, 6)),
        group(family, 1, (9,), videos=((2, 4, 4), (2, 4, 8)), words=11),
        group(family, 2, (2,), videos=((1, 4, 4),)),
    ]


def eager_attention(
    model: Any, inputs: dict[str, Tensor], firsts: Tensor, num_tokens: int, layers: int
) -> list[Tensor]:
    """[N_i, F_i] of each row, token by token and frame by frame from eager's own weights."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        weights = eager.model(**inputs, output_attentions=True, use_cache=False).attentions
    mean = torch.stack(weights[-layers:]).mean(dim=(0, 2))
    grids, rows = inputs["video_grid_thw"].tolist(), []
    for row, first in enumerate(firsts.tolist()):
        columns = (inputs["input_ids"][row] == VIDEO).nonzero()[:, 0].tolist()
        frames = []
        while columns:
            cells, height, width = grids.pop(0)
            for _ in range(cells):
                frames.append([columns.pop(0) for _ in range(height * width // 4)])
        stop = int(inputs["attention_mask"][row].nonzero().max()) + 1
        tokens = range(first, min(first + num_tokens, stop))
        rows.append(
            torch.tensor(
                [[float(mean[row, n - 1, frame].mean()) for frame in frames] for n in tokens]
            )
        )
    return rows


@families
@pytest.mark.parametrize("align_prompts", [True, False], ids=["left and right", "right"])
def test_it_equals_eager_attention_in_padded_batches(family: str, align_prompts: bool) -> None:
    model = tiny_model(family)
    inputs, firsts = batch_of(ragged_groups(family), align_prompts=align_prompts)
    with (
        torch.no_grad(),
        capture_frame_attention(
            model,
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            video_grid_thw=inputs["video_grid_thw"],
            first_token=int(firsts[0]) if align_prompts else firsts,
            num_tokens=9,
            num_layers=2,
            query_chunk=4,
        ) as frames,
    ):
        model(**inputs, use_cache=False)
    result = frames.result()
    assert result.shape == (3, 9, 4)
    for row, expected in enumerate(eager_attention(model, inputs, firsts, 9, 2)):
        tokens, num_frames = expected.shape
        assert expected.std() > 1e-4, "frames that nobody tells apart would prove nothing"
        # 1e-6: float32 sums in another order; weights here are near 0.05
        torch.testing.assert_close(result[row, :tokens, :num_frames], expected, rtol=0, atol=1e-6)
        assert (result[row, tokens:] == 0).all()
        assert (result[row, :, num_frames:] == 0).all()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("query_chunk", [1, 3, 64])
def test_mass_of_grouped_heads_equals_repeated_keys(kv_heads: int, query_chunk: int) -> None:
    draw = torch.Generator().manual_seed(kv_heads)
    query = torch.randn(4, 7, 8, generator=draw, dtype=torch.float64)
    key = torch.randn(kv_heads, 20, 8, generator=draw, dtype=torch.float64)
    frames = torch.rand(11, 3, generator=draw, dtype=torch.float64)
    expected = []
    for n in range(7):
        seen = key.repeat_interleave(4 // kv_heads, dim=0)[:, : 13 + n]
        weights = (0.3 * query[:, n, None] @ seen.transpose(1, 2)).softmax(-1)[:, 0]
        expected.append(weights.mean(0)[:11] @ frames)
    result = attention_mass(query, key, 13, frames, 0.3, query_chunk=query_chunk)
    torch.testing.assert_close(result, torch.stack(expected), rtol=0, atol=1e-12)


def test_no_matrix_of_all_queries_and_keys_exists() -> None:
    query, key = torch.randn(4, 256, 8), torch.randn(2, 1024, 8)
    frames = torch.rand(700, 3)
    with TensorMemory(query, key, frames) as memory:
        attention_mass(query, key, 769, frames, 0.3, query_chunk=16)
    assert memory.largest_bytes <= 4 * 16 * 1024 * 4


@families
def test_capture_changes_no_output_and_no_saved_file(family: str, tmp_path: Path) -> None:
    plain = copy.deepcopy(tiny_model(family))
    plain.set_attn_implementation("sdpa")
    inputs, firsts = batch_of(ragged_groups(family))
    model = copy.deepcopy(plain)
    arguments: Any = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    arguments |= {"video_grid_thw": inputs["video_grid_thw"], "num_tokens": 3, "num_layers": 2}
    with torch.no_grad():
        expected = plain(**inputs).logits
        with capture_frame_attention(model, first_token=int(firsts[0]), **arguments):
            assert model(**inputs).logits.equal(expected)
        assert model(**inputs).logits.equal(expected)
    model.save_pretrained(tmp_path)
    assert "p2r" not in json.dumps(json.loads((tmp_path / "config.json").read_text("utf-8")))


def test_frames_of_tokens_by_hand() -> None:
    """Two rows; in the first a video of 2 cells and one of 1, in the second one of 1."""
    ids = torch.tensor([[9, 2, 2, 2, 2, 9, 2, 1, 9], [0, 0, 9, 9, 2, 2, 9, 1, 1]])
    grids = torch.tensor([[2, 2, 4], [1, 2, 2], [1, 2, 4]])
    frames, counts = frame_columns(ids, grids, video_token_id=2, merge_size=2)
    assert frames.tolist() == [
        [-1, 0, 0, 1, 1, -1, 2, -1, -1],
        [-1, -1, -1, -1, 0, 0, -1, -1, -1],
    ]
    assert counts == [3, 1]


@pytest.mark.parametrize(
    ("grids", "sentence"),
    [
        ([[2, 2, 4]], "row 1 has 2 video tokens"),
        ([[3, 2, 4], [1, 2, 4]], "row 0 has 4 video tokens"),
        ([[2, 2, 4], [1, 2, 4], [1, 2, 2]], "names 3 videos"),
    ],
)
def test_grids_that_do_not_fit_the_tokens_are_refused(grids: Any, sentence: str) -> None:
    ids = torch.tensor([[9, 2, 2, 2, 2, 9], [9, 9, 2, 2, 9, 9]])
    with pytest.raises(ValueError, match=sentence):
        frame_columns(ids, torch.tensor(grids), video_token_id=2, merge_size=2)


def capture_of(model: Any, inputs: dict[str, Tensor], **changes: Any) -> Any:
    options: Any = {
        "input_ids": inputs["input_ids"],
        "attention_mask": inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])),
        "video_grid_thw": inputs["video_grid_thw"],
        "first_token": 20,
        "num_tokens": 2,
        **changes,
    }
    return capture_frame_attention(model, **options)


def test_wrong_use_is_refused_with_the_reason() -> None:
    model = tiny_model("qwen2.5-vl")
    inputs = group("qwen2.5-vl", 0, (3,)).inputs
    with capture_of(model, inputs) as frames:
        with pytest.raises(RuntimeError, match="call the model inside"):
            frames.result()
        with torch.no_grad():
            cache = model(**inputs).past_key_values
            with pytest.raises(RuntimeError, match="a second one"):
                model(**inputs)
    with capture_of(model, inputs), pytest.raises(RuntimeError, match="no key-value cache"):
        model(input_ids=inputs["input_ids"][:, -1:], past_key_values=cache)
    with (
        pytest.raises(ValueError, match="last 1 to 3 layers that attend, not 4"),
        capture_of(model, inputs, num_layers=4),
    ):
        pass
    with (
        pytest.raises(ValueError, match="need one token before"),
        capture_of(model, inputs, first_token=0),
    ):
        pass
    holes = torch.ones_like(inputs["input_ids"])
    holes[0, 22] = 0
    with (
        pytest.raises(ValueError, match="padding between"),
        capture_of(model, inputs, attention_mask=holes),
    ):
        pass
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="load the model with attn_implementation='sdpa'"):
        capture_of(eager, inputs).__enter__()
