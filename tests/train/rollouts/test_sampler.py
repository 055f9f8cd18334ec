"""Completions drawn from one copy of their prompt: transformers' tokens, rules and distribution."""

import copy
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.tensor_memory import TensorMemory
from helpers.tiny_models import FAMILIES, VOCABULARY, build_model, prompt, tiny_model
from torch import Tensor

from train.modeling.packed_forward import PromptGroup, group_logprobs
from train.modeling.vision_cache import encode_media
from train.rollouts.sampler import Sampling, sample_completions, sample_rollouts

pytestmark = pytest.mark.heavy

families = pytest.mark.parametrize("family", FAMILIES)
ENDS = tuple(range(10, 26))
GREEDY = Sampling(24, temperature=0)


def prompts_of(family: str) -> list[dict[str, Tensor]]:
    """A video, two videos with an image, an image, and text alone; of different lengths."""
    return [
        prompt(family, 0),
        prompt(family, 1, image=(1, 4, 6), videos=((2, 4, 4), (2, 4, 8))),
        prompt(family, 2, videos=(), image=(1, 4, 4), words=11),
        prompt(family, 3, videos=()),
    ]


def generated(model: Any, inputs: Mapping[str, Tensor], **options: Any) -> Tensor:
    """transformers' own completion of one prompt, its positions included."""
    mask = torch.ones_like(inputs["input_ids"])
    options = {"pad_token_id": 0, "eos_token_id": list(ENDS), "do_sample": False} | options
    output = model.generate(**inputs, attention_mask=mask, max_new_tokens=24, **options)
    return output[0, inputs["input_ids"].shape[1] :]


def assert_same_tokens(ours: list[list[Tensor]], others: list[list[Tensor]]) -> None:
    assert [[row.tolist() for row in group] for group in ours] == [
        [row.tolist() for row in group] for group in others
    ]


@pytest.fixture
def forwarded_rows(family: str) -> Iterator[list[int]]:
    """Rows of each forward of the text layers; the prefill is the first."""
    rows: list[int] = []
    layer = tiny_model(family).model.language_model.layers[0]
    hook = layer.register_forward_pre_hook(lambda _, arguments: rows.append(len(arguments[0])))
    yield rows
    hook.remove()


@families
@pytest.mark.parametrize("group_size", [1, 3])
def test_greedy_tokens_are_those_of_generate(
    family: str, group_size: int, forwarded_rows: list[int]
) -> None:
    model, prompts = tiny_model(family), prompts_of(family)
    expected = [generated(model, inputs) for inputs in prompts]
    lengths = [len(tokens) for tokens in expected]
    assert min(lengths) < max(lengths), "rows end apart, some leave the batch"
    forwarded_rows.clear()
    ours = sample_completions(model, prompts, group_size=group_size, sampling=GREEDY, end_ids=ENDS)
    assert_same_tokens(ours, [[tokens] * group_size for tokens in expected])
    # All prompts in one row, and no row is forwarded once its last token is known.
    wanted = [sum(step < length for length in lengths) for step in range(1, max(lengths))]
    assert forwarded_rows == [1, *[group_size * rows for rows in wanted]]
    for penalty in (1.4, 0.7):
        sampling = replace(GREEDY, repetition_penalty=penalty)
        ours = sample_completions(model, prompts, group_size=1, sampling=sampling, end_ids=ENDS)
        theirs = [[generated(model, one, repetition_penalty=penalty)] for one in prompts]
        assert_same_tokens(ours, theirs)


@families
def test_without_sharing_the_greedy_tokens_are_the_same(family: str) -> None:
    model, prompts = tiny_model(family), prompts_of(family)
    options: dict[str, Any] = {"group_size": 2, "sampling": GREEDY, "end_ids": ()}
    ours = sample_completions(model, prompts, **options)
    assert all(len(row) == 24 for group in ours for row in group)
    assert_same_tokens(ours, sample_completions(model, prompts, share_prompts=False, **options))


@families
def test_many_rows_in_several_rows_of_prompts(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefill in parts, as long batches have it."""
    model, prompts = tiny_model(family), prompts_of(family) * 2
    at_once = sample_completions(model, prompts, group_size=1, sampling=GREEDY, end_ids=ENDS)
    monkeypatch.setattr("train.rollouts.sampler._PREFILL_AT_ONCE", 60)
    in_parts = sample_completions(model, prompts, group_size=1, sampling=GREEDY, end_ids=ENDS)
    assert_same_tokens(at_once, in_parts)
    monkeypatch.setattr("train.rollouts.sampler._STEPS_BETWEEN_LOOKS", 5)
    monkeypatch.setattr("train.rollouts.kv_cache._FIRST_CAPACITY", 2)
    late = sample_completions(model, prompts, group_size=1, sampling=GREEDY, end_ids=ENDS)
    assert_same_tokens(at_once, late)


@families
def test_given_positions_are_used_and_continued(family: str) -> None:
    """Cells half a second apart, which the model's own positions cannot say."""
    model, inputs = tiny_model(family), prompt(family, 0)
    length = inputs["input_ids"].shape[1]
    times = torch.arange(length) // 4
    positions = torch.stack([times, times + 1, times + 2])
    positions[:, -7:] = 40 + torch.arange(7)
    given = {**inputs, "position_ids": positions[:, None]}
    ours, plain = (
        sample_completions(
            model, [given], group_size=1, sampling=GREEDY, end_ids=(), share_prompts=share
        )
        for share in (True, False)
    )
    assert_same_tokens(ours, plain)
    # The learner's pass, which has positions of its own, must agree with each choice.
    with torch.no_grad():
        (score,) = group_logprobs(model, [PromptGroup(given, ours[0])])
    logits = model.lm_head(score.hidden_states[0])
    assert logits.argmax(-1).equal(ours[0][0])


@families
def test_draws_depend_on_seed_row_and_index_only(family: str) -> None:
    model, prompts = tiny_model(family), prompts_of(family)
    sampling = Sampling(12, temperature=0.9, top_p=0.95)

    def drawn(numbers: list[int], **changes: Any) -> list[list[Tensor]]:
        options = {"group_size": 4, "sampling": sampling, "end_ids": ENDS} | changes
        return sample_completions(
            model,
            [prompts[number] for number in numbers],
            seeds=[80 + number for number in numbers],
            **options,
        )

    first = drawn([0, 1, 2, 3])
    assert_same_tokens(first, drawn([0, 1, 2, 3]))
    assert_same_tokens(first[2:], drawn([2, 3]))
    assert_same_tokens([group[:2] for group in first], drawn([0, 1, 2, 3], group_size=2))
    short = drawn([0, 1, 2, 3], sampling=replace(sampling, max_new_tokens=5))
    assert_same_tokens([[row[:5] for row in group] for group in first], short)
    texts = {tuple(row.tolist()) for group in first for row in group}
    assert len(texts) == 16, "rows of a group differ"
    # Without a seed, torch's own generator decides.
    options: dict[str, Any] = {"group_size": 4, "sampling": sampling, "end_ids": ENDS}
    unseeded = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        unseeded.append(sample_completions(model, prompts[:1], **options))
    assert_same_tokens(unseeded[0], unseeded[1])
    assert unseeded[0][0][0].tolist() != unseeded[2][0][0].tolist()


@families
def test_sampled_tokens_have_the_models_distribution(family: str) -> None:
    """First and second tokens of 4,000 rows against the model's probabilities, chi-squared."""
    model, inputs = tiny_model(family), prompt(family, 0)
    sampling = Sampling(2, temperature=0.6)
    (rows,) = sample_completions(
        model, [inputs], group_size=4000, sampling=sampling, end_ids=(), seeds=[5]
    )
    tokens = torch.stack(rows)

    def surprise(chosen: Tensor, given: list[int]) -> float:
        ids = torch.cat([inputs["input_ids"], torch.tensor([given], dtype=torch.long)], dim=1)
        kinds = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(given)))
        with torch.no_grad():
            logits = model(**inputs | {"input_ids": ids, "mm_token_type_ids": kinds}).logits[0, -1]
        expected = (logits / 0.6).softmax(-1) * len(chosen)
        likely = expected > 5
        counts = chosen.bincount(minlength=VOCABULARY).float()
        rest = [counts[~likely].sum()[None], expected[~likely].sum()[None]]
        counts, expected = (
            torch.cat([counts[likely], rest[0]]),
            torch.cat([expected[likely], rest[1]]),
        )
        statistic = ((counts - expected) ** 2 / expected).sum()
        freedom = torch.tensor(len(expected) - 1.0)
        return float((statistic - freedom) / (2 * freedom).sqrt())

    # 4 standard deviations of chi-squared; seeds are fixed, so this is no game of chance.
    assert surprise(tokens[:, 0], []) < 4
    commonest = int(tokens[:, 0].mode().values)
    assert surprise(tokens[tokens[:, 0] == commonest, 1], [commonest]) < 4


def test_no_prompt_is_copied_for_its_rows() -> None:
    """The largest tensor that drawing makes does not grow with the group."""
    model, inputs = tiny_model("qwen2.5-vl"), prompt("qwen2.5-vl", 0, videos=((8, 16, 16),))
    largest = []
    for group_size in (1, 16):
        with TensorMemory(*model.parameters(), *inputs.values()) as memory:
            sample_completions(
                model, [inputs], group_size=group_size, sampling=Sampling(3), end_ids=()
            )
        largest.append(memory.largest_bytes)
    assert largest[0] == largest[1]


@families
def test_the_model_is_left_as_it_was(family: str) -> None:
    model = copy.deepcopy(tiny_model(family)).train()
    model.gradient_checkpointing_enable()
    model.model.visual.eval()
    model.model.rope_deltas = torch.tensor([[5]])
    proposed = model.generation_config
    modes = {name: module.training for name, module in model.named_modules()}
    sampling = Sampling(4, temperature=0.0)
    expected = sample_completions(
        tiny_model(family), prompts_of(family), group_size=2, sampling=sampling, end_ids=()
    )
    state = torch.get_rng_state()
    for share_prompts in (True, False):
        ours = sample_completions(
            model,
            prompts_of(family),
            group_size=2,
            sampling=sampling,
            end_ids=(),
            seeds=[1, 2, 3, 4],
            share_prompts=share_prompts,
        )
        assert_same_tokens(ours, expected)
        assert {name: module.training for name, module in model.named_modules()} == modes
        assert model.model.rope_deltas.tolist() == [[5]]
        assert model.generation_config is proposed
        assert torch.get_rng_state().equal(state)
    assert all(parameter.grad is None for parameter in model.parameters())


@families
def test_the_tower_runs_once_per_prompt_or_not_at_all(family: str) -> None:
    model, prompts = copy.deepcopy(tiny_model(family)), prompts_of(family)
    model.model.visual.requires_grad_(False)
    patches: list[int] = []
    model.model.visual.register_forward_pre_hook(lambda _, a: patches.append(len(a[0])))
    options: dict[str, Any] = {"group_size": 3, "sampling": GREEDY, "end_ids": ENDS}
    expected = sample_completions(model, prompts, **options)
    pixels = ("pixel_values_videos", "pixel_values")
    assert sum(patches) == sum(len(one[name]) for one in prompts for name in pixels if name in one)
    known = [encode_media(model, inputs) for inputs in prompts]
    patches.clear()
    ours = sample_completions(model, prompts, features=known, **options)
    assert_same_tokens(ours, expected)
    assert not patches
    sample_completions(model, prompts, features=known, share_prompts=False, **options)
    assert patches, "the plain path is transformers' own in everything"


def with_adapters(family: str) -> Any:
    """Two kinds of layers with random adapters."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    return get_peft_model(copy.deepcopy(tiny_model(family)), lora).train()


@families
def test_adapters_take_part(family: str) -> None:
    wrapped = with_adapters(family)
    prompts = prompts_of(family)
    ours = sample_completions(wrapped, prompts, group_size=1, sampling=GREEDY, end_ids=ENDS)
    wrapped.eval()
    expected = [[generated(wrapped, inputs)] for inputs in prompts]
    assert_same_tokens(ours, expected)
    without = [[generated(tiny_model(family), inputs)] for inputs in prompts]
    assert [row.tolist() for row in without[0]] != [row.tolist() for row in ours[0]]


def test_adapters_on_a_narrow_base_stay_apart() -> None:
    """Half a step of bfloat16 is more than the first updates of an adapter."""
    wrapped = with_adapters("qwen2.5-vl").to(torch.bfloat16)
    products: list[int] = []
    for name, module in wrapped.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda *_: products.append(1))
    options: dict[str, Any] = {"group_size": 2, "end_ids": ENDS, "seeds": [1, 2, 3, 4]}
    prompts = prompts_of("qwen2.5-vl")
    sample_rollouts(wrapped, prompts, sampling=Sampling(2), **options)
    assert products
    products.clear()
    sample_rollouts(wrapped, prompts, sampling=Sampling(2), merge_adapters=True, **options)
    assert not products


@families
def test_adapters_are_merged_while_completions_grow(family: str) -> None:
    """No product with an adapter is made, the same tokens come, and no weight has changed."""
    wrapped = with_adapters(family)
    products: list[int] = []
    for name, module in wrapped.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda *_: products.append(1))
    before = {name: value.clone() for name, value in wrapped.state_dict().items()}
    options: dict[str, Any] = {"group_size": 2, "end_ids": ENDS, "seeds": [1, 2, 3, 4]}
    prompts, sampling = prompts_of(family), Sampling(12)
    merged = sample_rollouts(wrapped, prompts, sampling=sampling, **options)
    assert not products
    apart = sample_rollouts(wrapped, prompts, sampling=sampling, merge_adapters=False, **options)
    assert products
    assert_same_tokens(merged.tokens, apart.tokens)
    assert merged.logprobs is not None
    assert apart.logprobs is not None
    for ours, others in zip(merged.logprobs, apart.logprobs, strict=True):
        for own, other in zip(ours, others, strict=True):
            # float32: sums in another order, over some 20 layers and states
            assert (own - other).abs().max() < 2e-5
    assert all(value.equal(before[name]) for name, value in wrapped.state_dict().items())


@families
def test_fewer_groups_at_once_sample_the_same(family: str, forwarded_rows: list[int]) -> None:
    """4 prompts, 3 at a time: what grows, what is told, and what comes."""
    model, prompts = tiny_model(family), prompts_of(family)
    options: dict[str, Any] = {"group_size": 2, "sampling": Sampling(20), "end_ids": ()}
    options["seeds"] = [5, 6, 7, 8]
    together = sample_rollouts(model, prompts, **options)
    forwarded_rows.clear()
    told: list[tuple[int, Tensor]] = []
    ours = sample_rollouts(
        model,
        prompts,
        groups_at_once=3,
        progress=lambda tokens, first_row: told.append((first_row, tokens.clone())),
        **options,
    )
    assert_same_tokens(ours.tokens, together.tokens)
    assert forwarded_rows == [1, *[6] * 19, 1, *[2] * 19]
    rows = torch.stack([row for group in together.tokens for row in group])
    assert [first for first, _ in told] == [0, 6]
    assert told[0][1].equal(rows[:6, :17])
    assert told[1][1].equal(rows[6:, :17])
    assert ours.logprobs is not None
    assert [len(group) for group in ours.logprobs] == [2, 2, 2, 2]


@families
def test_half_precision_and_autocast_stay_near_float32(family: str) -> None:
    """Log-probs of greedy bfloat16 tokens under the float32 model: near its own best."""
    reference, prompts = tiny_model(family), prompts_of(family)
    half = copy.deepcopy(reference).to(torch.bfloat16)
    cast = [
        {name: value.bfloat16() if "pixel" in name else value for name, value in one.items()}
        for one in prompts
    ]
    drawn = [sample_completions(half, cast, group_size=2, sampling=GREEDY, end_ids=())]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        drawn.append(
            sample_completions(reference, prompts, group_size=2, sampling=GREEDY, end_ids=())
        )
    for groups in drawn:
        with torch.no_grad():
            scores = group_logprobs(
                reference,
                [PromptGroup(one, group) for one, group in zip(prompts, groups, strict=True)],
            )
        for score in scores:
            best = reference.lm_head(score.hidden_states).log_softmax(-1).amax(-1)
            # 0.3: logits of this model reach 10, whose bfloat16 steps are 0.06
            assert (best - score.logprobs).max() < 0.3


def test_it_says_why_prompts_are_copied(caplog: pytest.LogCaptureFixture) -> None:
    prompts = prompts_of("qwen2.5-vl")[:2]
    eager = copy.deepcopy(tiny_model("qwen2.5-vl"))
    eager.set_attn_implementation("eager")
    options: dict[str, Any] = {"group_size": 2, "sampling": GREEDY, "end_ids": ENDS}
    with caplog.at_level(logging.WARNING):
        ours = [sample_completions(eager, prompts, **options) for _ in range(2)]
    messages = [record.getMessage() for record in caplog.records]
    assert len([m for m in messages if "copies of their prompt" in m and "'eager'" in m]) == 1
    expected = sample_completions(tiny_model("qwen2.5-vl"), prompts, **options)
    for each in ours:
        assert_same_tokens(each, expected)
    # Dropout does not matter here: nothing is dropped in evaluation.
    dropping = build_model("qwen2.5-vl", attention_dropout=0.5).train()
    caplog.clear()
    sample_completions(dropping, prompts, **options)
    assert not caplog.records


def test_without_sharing_a_seed_decides_too() -> None:
    model, inputs = tiny_model("qwen2.5-vl"), prompt("qwen2.5-vl", 0)
    sampling = Sampling(6, temperature=1.3, top_k=30, top_p=0.9, min_p=0.01)
    drawn = [
        sample_completions(
            model,
            [inputs],
            group_size=3,
            sampling=sampling,
            end_ids=ENDS,
            seeds=[seed],
            share_prompts=False,
        )
        for seed in (1, 1, 2)
    ]
    assert_same_tokens(drawn[0], drawn[1])
    assert [row.tolist() for row in drawn[0][0]] != [row.tolist() for row in drawn[2][0]]


def test_wrong_input_is_refused_with_the_reason() -> None:
    model, inputs = tiny_model("qwen2.5-vl"), prompt("qwen2.5-vl", 0)
    right: dict[str, Any] = {"group_size": 2, "sampling": GREEDY, "end_ids": ENDS}
    twice = inputs["input_ids"].repeat(2, 1)
    cases: list[tuple[str, Any, dict[str, Any]]] = [
        ("at least one prompt", [], {}),
        ("group_size must be at least 1, got 0", [inputs], {"group_size": 0}),
        ("groups_at_once must be at least 1, got 0", [inputs], {"groups_at_once": 0}),
        ("seeds must be one for each of 1", [inputs], {"seeds": [1, 2]}),
        ("seeds must be 0 or above, got -1", [inputs], {"seeds": [-1]}),
        (r"prompt 0: input_ids must be \[1, P\]", [{**inputs, "input_ids": twice}], {}),
    ]
    for sentence, prompts, changes in cases:
        with pytest.raises(ValueError, match=sentence):
            sample_completions(model, prompts, **right | changes)


@pytest.mark.parametrize("share_prompts", [True, False], ids=["shared", "copies"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_are_the_learners_at_the_sampling_temperature(
    family: str, share_prompts: bool
) -> None:
    model, prompts = tiny_model(family), [prompt(family, seed) for seed in range(2)]
    drawn = sample_rollouts(
        model,
        prompts,
        group_size=2,
        sampling=Sampling(12, temperature=0.7),
        end_ids=ENDS,
        seeds=[1, 2],
        share_prompts=share_prompts,
    )
    groups = [PromptGroup(p, own) for p, own in zip(prompts, drawn.tokens, strict=True)]
    with torch.no_grad():
        scores = group_logprobs(model, groups, temperature=0.7)
    assert drawn.logprobs is not None
    for score, group in zip(scores, drawn.logprobs, strict=True):
        for row, own in enumerate(group):
            # float32, two ways through the model; states of 60 tokens carry rounding further
            limit = 2e-5 if family == "qwen3.5" else 1e-5
            assert (score.logprobs[row, : len(own)] - own).abs().max() < limit
