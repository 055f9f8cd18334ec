"""What fits on which GPUs, and how it is shown."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from train.planning.job import Job, prompt_of, rl_job, sft_job
from train.planning.memory import memory
from train.planning.model_sizes import ModelSizes, model_sizes
from train.planning.plan import Cluster, Plan, plan
from train.planning.plan_table import plan_text
from train.trainers.micro_batches import passes_of

OPTIONS = SimpleNamespace(
    dtype="float32",
    frames="uniform:16",
    max_pixels=128 * 28 * 28,
    freeze_vision=True,
    lora_rank=0,
    completions_per_pass=None,
    groups_at_once=None,
    merge_adapters=True,
)
GPU = 80e9


@pytest.fixture(scope="module")
def sizes() -> dict[str, ModelSizes]:
    folder = Path(__file__).parents[2] / "reference" / "configurations"
    return {each.name: replace(model_sizes(each), name=each.name) for each in folder.iterdir()}


def job(sizes: ModelSizes, **trl: Any) -> Job:
    return rl_job(sizes, OPTIONS, trl, beta=0.04, text_tokens=330, processes=8)


def fitting(made: Plan) -> dict[str, int]:
    """The largest batch of each way that fits."""
    return {
        f"{way.wrapping}{'-lora' * (way.lora_rank > 0)}": way.largest_batch for way in made.ways
    }


def test_seven_billion_weights_need_sharding_on_eight_gpus(sizes: dict[str, ModelSizes]) -> None:
    made = fitting(plan(job(sizes["qwen2.5-vl-7b"]), Cluster(8, GPU)))
    assert made["ddp"] == 0 < 8 <= made["fsdp2"]
    assert made["ddp-lora"] >= 8
    assert fitting(plan(job(sizes["qwen2.5-vl-3b"]), Cluster(8, GPU)))["ddp"] == 0


def test_thirty_two_billion_fit_where_others_draw(sizes: dict[str, ModelSizes]) -> None:
    """All weights in bfloat16 are 67 GB: nothing is left to draw with beside them."""
    big = job(sizes["qwen2.5-vl-32b"])
    ways = {way.wrapping: way for way in plan(big, Cluster(32, GPU)).ways if not way.lora_rank}
    assert ways["fsdp2"].fits_with_vllm
    assert not ways["fsdp2"].fits
    assert not any(way.fits for way in plan(big, Cluster(8, GPU)).ways)


def test_the_largest_batch_is_the_last_that_fits(sizes: dict[str, ModelSizes]) -> None:
    """Against trying one after the other; a batch is whole groups, and is drawn at once."""
    one = job(sizes["qwen3-vl-8b"], num_generations=4, per_device_train_batch_size=4)
    for way in plan(one, Cluster(8, GPU), ["fsdp2"]).ways:
        fits = [
            memory(one.with_rank(way.lora_rank).with_groups(n), "fsdp2", 8).peak <= GPU
            for n in range(1, 100)
        ]
        assert way.largest_batch == 4 * fits.count(True)
        assert fits == sorted(fits, reverse=True)


def test_parts_of_a_group_are_proposed_where_a_group_does_not_fit(
    sizes: dict[str, ModelSizes],
) -> None:
    """8B under ZeRO-2 needs 67 GB for a group of eight. Against trying one after the other."""
    one, gpu = job(sizes["qwen3-vl-8b"]), 65e9
    made = plan(one, Cluster(8, gpu), ["ddp", "zero2", "fsdp2"])
    ways = {way.wrapping: way for way in made.ways if not way.lora_rank}
    fits = [memory(one.with_per_pass(n), "zero2", 8).peak <= gpu for n in range(1, 9)]
    assert fits == [True] * 7 + [False]
    # seven at a time are two passes of four
    assert ways["zero2"].per_pass == 4
    assert ways["ddp"].per_pass == 0  # weights and gradients alone are too many
    assert ways["fsdp2"].per_pass is None
    rows = {line[:20].strip(): line[20:].split() for line in plan_text(made).splitlines()}
    assert rows["per pass"][:3] == ["no", "4", "-"]
    assert plan_text(made).count("with --completions-per-pass of at most that") == 1
    (found,) = [
        w for w in made.as_json()["ways"] if w["wrapping"] == "zero2" and not w["lora_rank"]
    ]
    assert found["completions_per_pass"] == 4


def test_with_passes_of_few_completions_the_batch_grows(sizes: dict[str, ModelSizes]) -> None:
    """The learner's peak is that of a pass; in process the KV cache still grows with the batch."""
    whole = job(sizes["qwen2.5-vl-7b"], num_generations=8)
    parts = replace(whole, per_pass=2)
    before, after = (plan(each, Cluster(8, GPU), ["fsdp2"]).ways[1] for each in (whole, parts))
    assert before.lora_rank == after.lora_rank > 0
    assert after.memory.learning < before.memory.learning
    assert after.memory.drawing == before.memory.drawing
    assert after.largest_batch > before.largest_batch
    few, many = (memory(parts.with_groups(n), "fsdp2", 8) for n in (1, 40))
    assert few.learning == many.learning
    assert "any" in plan_text(plan(parts, Cluster(8, GPU), ["fsdp2"])).split()
    assert "any" not in plan_text(plan(whole, Cluster(8, GPU), ["fsdp2"])).split()
    assert few.drawing < many.drawing


@pytest.mark.parametrize("per_pass", [None, *range(1, 17)])
def test_a_planned_pass_is_the_largest_that_the_trainer_makes(
    sizes: dict[str, ModelSizes], per_pass: int | None
) -> None:
    """Two groups of six."""
    one = job(sizes["qwen2.5-vl-3b"], num_generations=6, per_device_train_batch_size=12)
    row = replace(one, per_pass=per_pass).row
    largest = max(
        passes_of([6, 6], per_pass), key=lambda own: (own.rows.stop - own.rows.start, own.parts)
    )
    sizes_of_parts = {part.stop - part.start for _, part in largest.parts}
    assert (row.groups, {row.completions}) == (len(largest.parts), sizes_of_parts)


def test_more_gpus_never_need_more_of_each(sizes: dict[str, ModelSizes]) -> None:
    one = job(sizes["qwen2.5-vl-7b"])
    for wrapping in ("zero2", "zero3", "fsdp2"):
        peaks = [memory(one, wrapping, n).peak for n in (2, 4, 8, 16)]
        assert peaks == sorted(peaks, reverse=True)


def test_a_single_gpu_spreads_nothing(sizes: dict[str, ModelSizes]) -> None:
    made = plan(job(sizes["qwen2.5-vl-3b"]), Cluster(1, GPU))
    assert [(way.wrapping, way.lora_rank) for way in made.ways] == [("ddp", 0), ("ddp", 64)]
    assert made.ways[1].fits


def test_options_of_trl_decide_the_sizes(sizes: dict[str, ModelSizes]) -> None:
    """Two groups of 4 at a time, of 3 micro-batches; no reference without --beta."""
    made = job(
        sizes["qwen2.5-vl-3b"],
        num_generations=4,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=3,
        max_completion_length=100,
        gradient_checkpointing=False,
        beta=0.0,
        bf16=False,
    )
    assert (made.group_size, made.groups, made.groups_drawn, made.tokens) == (4, 2, 6, 100)
    assert not made.needs_reference
    assert not made.checkpoints
    assert not made.is_mixed
    by_size = job(sizes["qwen2.5-vl-3b"], generation_batch_size=128)
    assert by_size.groups_drawn == 2  # 128 completions over 8 processes, 8 of a group


def test_a_prompt_is_as_long_as_frames_and_pixels_allow(sizes: dict[str, ModelSizes]) -> None:
    """16 frames are 8 cells of two; 128 tokens of 28 x 28 pixels, or 98 of 32 x 32 and a time."""
    older = prompt_of(sizes["qwen2.5-vl-7b"], OPTIONS, 330)
    newer = prompt_of(sizes["qwen3-vl-8b"], OPTIONS, 330)
    assert (older.tokens, older.patches) == (330 + 8 * 128, 8 * 128 * 4)
    assert (newer.tokens, newer.patches) == (330 + 8 * (98 + 12), 8 * 98 * 4)


def test_the_table_has_80_columns_and_says_what_fits(sizes: dict[str, ModelSizes]) -> None:
    for name in sizes:
        text = plan_text(plan(job(sizes[name]), Cluster(8, GPU, 2)))
        assert max(map(len, text.splitlines())) <= 80
        assert "8 GPUs of 80 GB learn, 2 beside them draw" in text
    rows = {line[:20].strip(): line[20:].split() for line in text.splitlines()}
    assert set(rows["fits"]) <= {"yes", "no"}
    assert len(rows["weights"]) == len(rows["fits"]) == 8


def test_fine_tuning_has_neither_reference_nor_cache(sizes: dict[str, ModelSizes]) -> None:
    one = sft_job(
        sizes["qwen2.5-vl-7b"], OPTIONS, {}, rows=2, longest=4096, checkpoints=True, text_tokens=330
    )
    made = plan(one, Cluster(8, GPU))
    text = plan_text(made)
    assert "2 x 4,096 tokens at a time" in text
    assert "KV cache" not in text
    parts = made.as_json()["ways"][0]["parts"]
    assert parts["reference"] == parts["kv_cache"] == 0 < parts["activations"]
