"""The finished model has the number format of the one that it began as, or the one asked for."""

from pathlib import Path

import pytest
import torch
from helpers.training_world import small_world, tiny_model_folder
from safetensors.torch import load_file

from train import sft
from train.modeling.loading import load_policy, load_processor

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dataset, and in `model` a tiny model in bfloat16."""
    folder = tmp_path_factory.mktemp("world")
    small_world(folder, num_rows=4)
    base = tiny_model_folder("qwen2.5-vl")
    load_policy(base, dtype="bfloat16", device="cpu").save_pretrained(folder / "model")
    load_processor(base).save_pretrained(folder / "model")
    return folder


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), torch.bfloat16),
        (("--save-dtype", "float32"), torch.float32),
        (("--lora-rank", "2"), torch.bfloat16),
    ],
    ids=["as it began", "asked for", "merged"],
)
def test_what_is_saved_is_no_larger_than_what_was_loaded(
    world: Path, tmp_path: Path, more: tuple[str, ...], expected: torch.dtype
) -> None:
    """Training itself, and what it resumes from, are in float32."""
    out = tmp_path / "out"
    words = [
        *("--model", str(world / "model"), "--dataset", str(world / "cot")),
        *("--media-root", str(world / "media"), "--output-dir", str(out)),
        *("--frame-cache", str(world / "cache"), "--held-out-rows", "0", "--batch-size", "2"),
        *("--max-steps", "1", "--save-steps", "1", *more),
    ]
    assert sft.main(words) == 0
    saved = load_file(out / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {expected}
    assert load_policy(out, device="cpu").dtype == expected
    (weights,) = (out / "checkpoint-1").glob("*model.safetensors")
    assert {value.dtype for value in load_file(weights).values()} == {torch.float32}
