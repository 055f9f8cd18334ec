"""One prompt forwarded once for all of its completions: the numbers of the plain pass."""

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.tiny_models import FAMILIES, IMAGE, VIDEO, batch_of, build_model, group, tiny_model

from train.modeling.packed_forward import GroupLogprobs, PromptGroup, group_logprobs, why_not_shared
from train.modeling.prompt_tensors import (
    MEDIA,
    joined_media,
    prompt_positions,
    repeated_media,
)
from train.modeling.vision_cache import encode_media

pytestmark = pytest.mark.heavy

families = pytest.mark.parametrize("family", FAMILIES)


def groups_of(family: str) -> list[PromptGroup]:
    """Ragged completions; a video, two videos with an image, and text alone."""
    return [
        group(family, 0, (5, 1, 9)),
        group(family, 1, (4, 8), image=(1, 4, 6), videos=((2, 4, 4), (2, 4, 8))),
        group(family, 2, (3,), videos=()),
    ]


@pytest.fixture
def model(family: str) -> Iterator[Any]:
    model = tiny_model(family)
    yield model
    model.eval().gradient_checkpointing_disable()
    model.zero_grad()


def backward(scores: Sequence[GroupLogprobs], parameters: Any) -> dict[str, torch.Tensor]:
    """Gradients of a sum in which every token has its own factor."""
    loss = torch.zeros(())
    for number, score in enumerate(scores, 1):
        factors = torch.linspace(-1, 2, score.mask.numel()).view_as(score.logprobs)
        loss = loss + number * (factors * score.logprobs).sum()
    named = [(name, p) for name, p in parameters if p.requires_grad]
    return dict(
        zip([n for n, _ in named], torch.autograd.grad(loss, [p for _, p in named]), strict=True)
    )


NUMBERS = (
    "logprobs",
    "entropies",
    "hidden_states",
    "frame_attention",
    "log_normalisers",
    "all_logprobs",
)


# float32 through three layers in another order of sums. Gated delta nets read 64 tokens at a time
# and solve a system of equations for them: other cuts of a row round more.
VALUES = {"qwen3.5": 5e-5}
GRADIENTS = {"qwen3.5": 2e-4}


def assert_same(
    ours: Sequence[GroupLogprobs], plain: Sequence[GroupLogprobs], family: str = ""
) -> None:
    for one, other in zip(ours, plain, strict=True):
        assert one.mask.equal(other.mask)
        assert (one.logprobs[~one.mask] == 0).all()
        for name in NUMBERS:
            mine, theirs = getattr(one, name), getattr(other, name)
            if theirs is not None:
                atol = VALUES.get(family, 1e-5)
                torch.testing.assert_close(mine, theirs, rtol=0, atol=atol, msg=name)


def assert_same_gradients(ours: dict[str, Any], plain: dict[str, Any], family: str = "") -> None:
    assert ours.keys() == plain.keys()
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        largest = GRADIENTS.get(family, 1e-5) * gradient.abs().max()
        assert (ours[name] - gradient).abs().max() <= largest, name


@families
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "gradient checkpointing"])
def test_scores_and_gradients_equal_the_plain_pass(
    family: str, model: Any, checkpointing: bool
) -> None:
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    results = []
    for share_prompts in (True, False):
        scores = group_logprobs(
            model,
            groups_of(family),
            temperature=0.8,
            frame_layers=2,
            share_prompts=share_prompts,
        )
        results.append((scores, backward(scores, model.named_parameters())))
    (ours, our_gradients), (plain, plain_gradients) = results
    assert_same(ours, plain, family)
    assert_same_gradients(our_gradients, plain_gradients, family)
    assert any("visual" in name for name in plain_gradients)
    shapes = [tuple(score.frame_attention.shape) for score in ours]
    assert shapes == [(3, 9, 3), (2, 8, 4), (1, 3, 0)]
    assert ours[0].frame_attention[ours[0].mask].min() > 0


@families
def test_the_plain_pass_is_the_models_own_answer(family: str, model: Any) -> None:
    """What `share_prompts=False` gives is log_softmax of the model's logits, positions its own."""
    (one,) = groups_of(family)[1:2]
    inputs, (first,) = batch_of([replace(one, completions=one.completions[1:])])
    if family == "qwen2.5-vl":
        inputs["second_per_grid_ts"] = one.inputs["second_per_grid_ts"]
    with torch.no_grad():
        logprobs = model(**inputs).logits[0, first - 1 : -1].log_softmax(-1)
        for share_prompts in (True, False):
            (score,) = group_logprobs(model, [one], share_prompts=share_prompts)
            expected = logprobs.gather(-1, one.completions[1][:, None])[:, 0]
            torch.testing.assert_close(score.logprobs[1], expected, rtol=0, atol=1e-5)
            entropies = torch.distributions.Categorical(logits=logprobs).entropy()
            torch.testing.assert_close(score.entropies[1], entropies, rtol=0, atol=1e-5)


@families
def test_a_completion_knows_nothing_of_its_neighbours(family: str, model: Any) -> None:
    groups = groups_of(family)
    with torch.no_grad():
        before = group_logprobs(model, groups)
        other = torch.flip(groups[0].completions[0], [0])
        changed = replace(groups[0], completions=[other, *groups[0].completions[1:]])
        after = group_logprobs(model, [changed, *groups[1:]])
        alone = [group_logprobs(model, [each])[0] for each in groups]
    assert not before[0].logprobs[0].allclose(after[0].logprobs[0], atol=1e-3)
    assert before[0].logprobs[1:].equal(after[0].logprobs[1:])
    assert before[1].logprobs.equal(after[1].logprobs)
    assert_same(before, alone, family)


@families
def test_given_positions_are_used_and_continued(family: str, model: Any) -> None:
    """Cells half a second apart, which the model's own positions cannot say."""
    one = group(family, 0, (5, 3))
    length = one.inputs["input_ids"].shape[1]
    times = torch.arange(length) // 4
    positions = torch.stack([times, times + 1, times + 2])
    positions[:, -7:] = 40 + torch.arange(7)
    given = replace(one, inputs={**one.inputs, "position_ids": positions[:, None]})
    with torch.no_grad():
        ours, plain = (group_logprobs(model, [given], share_prompts=s) for s in (True, False))
        assert_same(ours, plain, family)
        (own,) = group_logprobs(model, [one])
    assert not ours[0].logprobs.allclose(own.logprobs, atol=1e-3)


@families
def test_a_completion_may_say_media_tokens(family: str, model: Any) -> None:
    """Drawn placeholders are words: scored as when they were drawn, one forward per token."""
    one = group(family, 1, (4, 6), image=(1, 4, 6))
    said = one.completions[1]
    said[torch.tensor([0, 2, 3, 5])] = torch.tensor([VIDEO, IMAGE, VIDEO, VIDEO])
    with torch.no_grad():
        inputs = {**one.inputs, "attention_mask": torch.ones_like(one.inputs["input_ids"])}
        output = model(**inputs, use_cache=True)
        logits = [output.logits[0, -1]]
        last = prompt_positions(model, one.inputs)[:, -1:, None]
        for number, token in enumerate(said[:-1], 1):
            ids, past = token[None, None], output.past_key_values
            output = model(input_ids=ids, past_key_values=past, position_ids=last + number)
            logits.append(output.logits[0, -1])
        expected = torch.stack(logits).log_softmax(-1).gather(-1, said[:, None])[:, 0]
    results = []
    for share_prompts in (True, False):
        scores = group_logprobs(model, [one], share_prompts=share_prompts, frame_layers=2)
        torch.testing.assert_close(scores[0].logprobs[1], expected, rtol=0, atol=1e-5)
        results.append((scores, backward(scores, model.named_parameters())))
    assert_same(results[0][0], results[1][0], family)
    assert_same_gradients(results[0][1], results[1][1], family)


@families
@pytest.mark.parametrize("way", ["bfloat16 weights", "autocast"])
def test_in_bfloat16_sharing_costs_no_precision(family: str, way: str) -> None:
    """Both passes lie as far from float32; the shared one at most half as far again."""
    reference = copy.deepcopy(tiny_model(family)).train()
    model, groups = copy.deepcopy(reference), groups_of(family)
    cast = groups
    if way == "bfloat16 weights":
        model.to(torch.bfloat16)
        cast = [
            replace(one, inputs={n: v.bfloat16() if "pixel" in n else v for n, v in pairs.items()})
            for one in groups
            for pairs in [one.inputs]
        ]
    exact = group_logprobs(reference, groups, share_prompts=False)
    exact_gradients = backward(exact, reference.named_parameters())
    errors = []
    for share_prompts in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            scores = group_logprobs(model, cast, share_prompts=share_prompts, frame_layers=2)
        assert all(score.logprobs.dtype == torch.float32 for score in scores)
        for score in scores:
            frames = score.frame_attention
            assert frames is not None
            assert frames.dtype == torch.float32
            # bfloat16 would leave 8 bits of each number: such as have no more are rounded
            assert not frames.numel() or not torch.equal(frames, frames.bfloat16().float())
        gradients = backward(scores, model.named_parameters())
        pairs = list(zip(scores, exact, strict=True))
        logprobs = sum(float((a.logprobs - b.logprobs).detach().abs().sum()) for a, b in pairs)
        relative = [
            float((gradients[name].float() - wanted).norm() / wanted.norm())
            for name, wanted in exact_gradients.items()
        ]
        errors.append((logprobs, sum(relative) / len(relative)))
    for ours, plain in zip(*errors, strict=True):
        assert ours < 1.5 * plain


@families
def test_lora_trains_as_in_the_plain_pass(family: str) -> None:
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "v_proj", "down_proj"]
    lora = LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    torch.manual_seed(0)
    wrapped = get_peft_model(copy.deepcopy(tiny_model(family)), lora).train()
    wrapped.gradient_checkpointing_enable()
    wrapped.enable_input_require_grads()
    results = []
    for share_prompts in (True, False):
        scores = group_logprobs(wrapped, groups_of(family), share_prompts=share_prompts)
        results.append((scores, backward(scores, wrapped.named_parameters())))
    assert_same(results[0][0], results[1][0], family)
    assert_same_gradients(results[0][1], results[1][1], family)


def test_the_tower_runs_once_per_prompt_and_the_head_on_completions_only() -> None:
    model = tiny_model("qwen3-vl")
    groups = groups_of("qwen3-vl")
    patches, head_rows = [], []
    hooks = [
        model.model.visual.register_forward_pre_hook(lambda _, a: patches.append(len(a[0]))),
        model.lm_head.register_forward_hook(
            lambda _, a, __: head_rows.append(a[0][..., 0].numel())
        ),
    ]
    with torch.no_grad():
        group_logprobs(model, groups)
    for hook in hooks:
        hook.remove()
    pixels = ("pixel_values_videos", "pixel_values")
    wanted = sum(len(g.inputs[name]) for g in groups for name in pixels if name in g.inputs)
    assert sum(patches) == wanted
    tokens = sum(len(completion) for g in groups for completion in g.completions)
    assert sum(head_rows) <= tokens + 2, "one row for the model's own call, one to learn V"


@families
def test_a_frozen_tower_runs_once_for_all_passes(family: str) -> None:
    model = copy.deepcopy(tiny_model(family))
    model.model.visual.requires_grad_(False)
    groups = groups_of(family)
    runs: list[int] = []
    model.model.visual.register_forward_hook(lambda *_: runs.append(1))
    known = [replace(one, features=encode_media(model, one.inputs)) for one in groups]
    assert len(runs) == 3, "two videos' worth of prompts and an image"
    results = []
    for of_pass in (known, known, groups):
        scores = group_logprobs(model, of_pass, frame_layers=2)
        results.append((scores, backward(scores, model.named_parameters())))
        assert len(runs) == 3 or of_pass is groups
    assert_same(results[0][0], results[2][0])
    assert_same_gradients(results[1][1], results[2][1])
    with pytest.raises(ValueError, match="all or none"):
        group_logprobs(model, [known[0], groups[1]])
    model.model.visual.requires_grad_(True)
    with pytest.raises(ValueError, match="the vision tower trains"):
        group_logprobs(model, known)


def test_media_of_prompts_are_joined_in_the_order_of_the_prompts() -> None:
    for family in FAMILIES:
        prompts = [one.inputs for one in groups_of(family)]
        joined = joined_media(prompts)
        media_names = {name for names in MEDIA.values() for name in names.all}
        assert joined.keys() == {name for one in prompts for name in one if name in media_names}
        for name, value in joined.items():
            parts = [one[name] for one in prompts if name in one]
            for part, own in zip(value.split([len(one) for one in parts]), parts, strict=True):
                assert part.equal(own), name
        twice = repeated_media(prompts[1], 2)
        assert twice.keys() == {name for name in prompts[1] if name in media_names}
        for name, value in twice.items():
            first, second = value.chunk(2)
            assert first.equal(prompts[1][name]), name
            assert second.equal(prompts[1][name]), name


def test_it_says_why_prompts_are_not_shared(caplog: pytest.LogCaptureFixture) -> None:
    one = group("qwen2.5-vl", 0, (3, 2))
    dropping = build_model("qwen2.5-vl", attention_dropout=0.1)
    assert why_not_shared(dropping) is None
    assert "attention dropout" in str(why_not_shared(dropping.train()))
    eager = copy.deepcopy(tiny_model("qwen2.5-vl"))
    eager.set_attn_implementation("eager")
    with caplog.at_level(logging.WARNING), torch.no_grad():
        (plain,) = group_logprobs(eager, [one])
        group_logprobs(eager, [one])
        assert_same([plain], group_logprobs(tiny_model("qwen2.5-vl"), [one]))
    messages = [record.getMessage() for record in caplog.records]
    assert len([m for m in messages if "attn_implementation='sdpa'" in m]) == 1
    noisy = copy.deepcopy(tiny_model("qwen2.5-vl")).train()
    noisy.model.visual.merger.mlp.append(torch.nn.Dropout(0.1))
    assert "dropout" in str(why_not_shared(noisy))


def test_wrong_input_is_refused_with_the_reason() -> None:
    model, one = tiny_model("qwen2.5-vl"), group("qwen2.5-vl", 0, (3, 2))

    def without(*names: str, **changes: Any) -> PromptGroup:
        kept = {name: value for name, value in one.inputs.items() if name not in names}
        return replace(one, inputs=kept | changes)

    cases = [
        ("at least one group", []),
        ("empty completion", [replace(one, completions=[torch.tensor([], dtype=torch.long)])]),
        ("empty completion or none", [replace(one, completions=[])]),
        (r"must be \[1, P\]", [without(input_ids=one.inputs["input_ids"].repeat(2, 1))]),
        ("needs mm_token_type_ids", [without("mm_token_type_ids")]),
        ("end in text", [without(position_ids=torch.arange(3)[:, None, None].expand(3, 1, 24))]),
    ]
    for sentence, groups in cases:
        with pytest.raises(ValueError, match=sentence):
            group_logprobs(model, groups)
    with pytest.raises(ValueError, match="temperature"):
        group_logprobs(model, [one], temperature=0.0)
