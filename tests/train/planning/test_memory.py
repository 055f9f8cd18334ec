"""Planned weights, gradients, optimizer states, references and KV caches against real tensors."""

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.live_bytes import LiveBytes
from helpers.measured_passes import PATCHES, Setting
from helpers.tiny_models import prompt
from torch import Tensor

from train.modeling.lora import adapters_in_weights
from train.planning.job import Job, Prompt
from train.planning.memory import BUCKET, FLOOR_SHARE, Memory, kv_cache, memory
from train.rollouts.kv_cache import SharedCache
from train.rollouts.sampler import Sampling, sample_completions

SETTINGS = [
    Setting("qwen2.5-vl"),
    Setting("qwen2.5-vl", tied=False, trains_tower=True),
    Setting("qwen2.5-vl", lora_rank=4),
    Setting("qwen3-vl", tied=False),
    Setting("qwen3-vl", trains_tower=True),
    Setting("qwen3-vl", tied=False, lora_rank=4, autocast=True, bfloat16=True),
]


def job_of(setting: Setting, *, groups: int = 1, tokens: int = 65) -> Job:
    """A group of 4 completions of a tiny model."""
    return Job(
        sizes=setting.sizes(),
        prompt=Prompt(98, PATCHES),
        group_size=4,
        tokens=tokens,
        groups=groups,
        groups_drawn=groups,
        needs_reference=True,
        trains_tower=setting.trains_tower,
        checkpoints=setting.checkpoints,
        is_mixed=setting.autocast,
        weight_bytes=2 if setting.bfloat16 else 4,
        lora_rank=setting.lora_rank,
    )


def num_bytes(tensors: Any) -> int:
    """Of storages, each once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def name(setting: Setting) -> str:
    given = [key for key, value in vars(setting).items() if value is True]
    return "-".join([setting.family, *given, f"lora{setting.lora_rank}"])


@pytest.mark.parametrize("setting", SETTINGS, ids=name)
def test_what_stays_between_steps(setting: Setting) -> None:
    """One process: weights, gradients, and AdamW's states after a step; a reference is a copy of
    the model, and an adapter's is the model without it."""
    model = setting.model()
    planned = memory(job_of(setting), "ddp", 1).parts
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    optimizer.step()
    states = [s for one in optimizer.state.values() for s in one.values() if s.ndim]
    assert planned.weights == pytest.approx(num_bytes(model.parameters()), rel=0.01)
    assert planned.gradients == pytest.approx(num_bytes(p.grad for p in trained), rel=0.01)
    assert planned.optimizer == pytest.approx(num_bytes(states), rel=0.01)
    expected = 0 if setting.lora_rank else num_bytes(setting.model().parameters())
    assert planned.reference == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl"])
def test_the_cache_of_keys_and_values(family: str, autocast: bool) -> None:
    """Two groups of three completions of 65 tokens, as the sampler holds them at its last look."""
    setting = Setting(family, autocast=autocast)
    prompts = [prompt(family, 0, words=80), prompt(family, 1, words=80)]
    seen: list[int] = []

    def look(tokens: Tensor, first_row: int) -> None:
        if tokens.shape[1] < 80:  # looking through all objects takes its time
            return
        (cache,) = [each for each in gc.get_objects() if type(each) is SharedCache]
        lists = (cache._prompt_keys, cache._prompt_values, cache._own_keys, cache._own_values)
        seen.append(num_bytes(tensor for one in lists for tensor in one))

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        sample_completions(
            setting.model(),
            prompts,
            group_size=3,
            sampling=Sampling(82),
            end_ids=[],
            seeds=[0, 1],
            progress=look,
        )
    job = replace(
        job_of(setting, groups=2, tokens=82),
        group_size=3,
        prompt=Prompt(prompts[0]["input_ids"].shape[1], PATCHES),
    )
    assert kv_cache(job.sizes.text, job, setting.precision) == pytest.approx(seen[-1], rel=0.05)


def whole(wrapping: str, processes: int) -> Memory:
    job = replace(job_of(Setting("qwen2.5-vl", tied=False)), is_mixed=True)
    return memory(job, wrapping, processes)


def test_ddp_keeps_gradients_twice_and_shares_nothing() -> None:
    one, eight = whole("ddp", 1).parts, whole("ddp", 8).parts
    assert eight.gradients == 2 * one.gradients
    assert (eight.weights, eight.optimizer) == (one.weights, one.optimizer)
    assert eight.copies > 0  # bfloat16 of every weight that trains


def test_fsdp_divides_what_stays_and_gathers_all_to_draw() -> None:
    """In bfloat16: two bytes of each weight, whatever the number of processes."""
    alone, eight = whole("ddp", 1).parts, whole("fsdp2", 8).parts
    for part in ("weights", "gradients", "optimizer", "reference"):
        assert getattr(eight, part) == getattr(alone, part) / 8
    sizes = Setting("qwen2.5-vl", tied=False).sizes()
    assert eight.gathered == 2 * sizes.num_weights
    assert eight.copies == 0


def test_zero_as_deepspeed_estimates_it() -> None:
    """Its states without a reference, all weights training, and buckets left out: 16 n / N beside n
    numbers of bfloat16, and 18 n / N with a whole tower beside its parts."""
    job = replace(job_of(Setting(trains_tower=True)), needs_reference=False, is_mixed=True)
    n = job.sizes.num_weights
    two, three = (memory(job, wrapping, 4).parts for wrapping in ("zero2", "zero3"))
    assert two.weights + two.gradients + two.optimizer - 2 * BUCKET == 2 * n + 16 * n / 4
    states = three.weights + three.gradients + three.optimizer - 4 * BUCKET
    assert states == pytest.approx(18 * n / 4 + 2 * job.sizes.num_tower)


def test_under_zero_weights_are_copied_where_passes_compute_in_float32() -> None:
    job = replace(job_of(Setting()), is_mixed=False)
    for wrapping in ("zero2", "zero3"):
        narrow, wide = (
            memory(replace(job, is_mixed=mixed), wrapping, 4).parts for mixed in (True, False)
        )
        masters = job.sizes.num_text  # a quarter of 4 bytes
        assert wide.weights - masters == 2 * (narrow.weights - masters)
        assert wide.reference == 2 * narrow.reference
        assert wide.gathered == 2 * narrow.gathered


def test_a_frozen_base_is_in_bfloat16_under_an_adapter_unless_a_format_is_given() -> None:
    job = replace(job_of(Setting(lora_rank=4)), is_mixed=True)
    n, adapter = job.sizes.num_weights, 4 * job.sizes.lora_widths
    for given, size in ((None, 2), (4, 4), (2, 2)):
        parts = memory(replace(job, weight_bytes=given), "ddp", 1).parts
        assert parts.weights == size * n + 4 * adapter
        assert (parts.copies == 0) == (size == 2)


def test_gradients_of_earlier_passes_are_there() -> None:
    """The forward of a single micro-batch of whole groups has none beside it; in passes the later
    ones have those of the earlier, as micro-batches that are accumulated have. Rows are short, so
    that autocast's copies of the weights make the forward's end the peak."""
    job = replace(job_of(Setting("qwen2.5-vl", tied=False, checkpoints=True)), is_mixed=True)
    job = replace(job, group_size=2, tokens=5, prompt=Prompt(10, PATCHES))
    one = replace(job, group_size=1)
    alone, accumulated, parts = (
        memory(each, "ddp", 1).learning
        for each in (one, replace(one, groups_drawn=2), replace(job, per_pass=1))
    )
    assert parts == accumulated > alone


def test_drawing_and_learning_are_phases() -> None:
    """A peak of drawing holds the cache and all weights, no gradients and no activations."""
    job = replace(job_of(Setting("qwen2.5-vl", tied=False)), is_mixed=True)
    little, much = (memory(replace(job, groups_drawn=n), "fsdp2", 8) for n in (1, 9))
    caches = much.parts.kv_cache - little.parts.kv_cache
    assert caches == 8 * little.parts.kv_cache > 0
    assert much.learning - little.learning == 0 < much.drawing - little.drawing
    parts = little.parts
    resident = parts.weights + parts.optimizer + parts.reference
    assert little.drawing > 1.05 * (resident + parts.gathered + parts.kv_cache) + 2e9
    assert little.learning > 1.05 * (resident + parts.gradients + parts.activations) + 2e9


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_copies_with_adapters_are_there_while_drawing(half: bool) -> None:
    """As many bytes as the sampler's copies have; none without them or without an adapter."""
    setting = Setting("qwen3-vl", lora_rank=4, bfloat16=half)
    model, drawing = setting.model(), {}
    with LiveBytes(*model.parameters()) as live, adapters_in_weights(model):
        copies = live.now()
    for merges in (True, False):
        job = replace(job_of(setting), merges_adapters=merges)
        drawing[merges] = memory(job, "ddp", 1).drawing
    planned = (drawing[True] - drawing[False]) / (1 + FLOOR_SHARE)
    assert planned == pytest.approx(copies, rel=0.01)
    plain = job_of(Setting("qwen3-vl"))
    assert memory(plain, "ddp", 1) == memory(replace(plain, merges_adapters=False), "ddp", 1)


def test_groups_that_are_drawn_one_after_another_share_the_room() -> None:
    job = replace(job_of(Setting("qwen2.5-vl")), groups_drawn=6)
    two = memory(replace(job, groups_at_once=2), "ddp", 1)
    assert two.drawing == memory(replace(job, groups_drawn=2), "ddp", 1).drawing
    assert two.learning == memory(job, "ddp", 1).learning
    assert 3 * two.parts.kv_cache == memory(job, "ddp", 1).parts.kv_cache
    assert memory(replace(job, groups_at_once=9), "ddp", 1) == memory(job, "ddp", 1)
