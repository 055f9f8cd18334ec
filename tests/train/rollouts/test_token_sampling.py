"""How the next token is drawn, and the attention of rows that share their prompts."""

import copy
import math
from typing import Any

import pytest
import torch
import transformers
from helpers.tiny_models import VOCABULARY, prompt, tiny_model
from helpers.training_world import question
from torch import Tensor

from train.modeling.numerics import NotFiniteError
from train.rollouts.kv_cache import PromptCache, SharedCache
from train.rollouts.sampler import sample_completions
from train.rollouts.token_sampling import (
    Sampling,
    are_finite,
    group_seed,
    next_tokens,
    restricted,
    row_draws,
)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1, temperature=0.7),
        Sampling(1, top_k=5),
        Sampling(1, top_p=0.8),
        Sampling(1, min_p=0.1),
        Sampling(1, temperature=1.5, top_k=40, top_p=0.9, min_p=0.02, repetition_penalty=1.2),
    ],
    ids=["temperature", "top-k", "top-p", "min-p", "all"],
)
def test_the_distribution_is_that_of_transformers_rules(sampling: Sampling) -> None:
    """Shares of evenly spaced draws: exact up to one draw in 5,000 per border."""
    rules = transformers.generation.logits_process
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, VOCABULARY, generator=draw)
    history = torch.randint(VOCABULARY, (4, 30), generator=draw)
    scores = logits
    seen = None
    if sampling.repetition_penalty != 1:
        scores = rules.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(
            history, scores
        )
        seen = torch.zeros(4, VOCABULARY, dtype=torch.bool).scatter(1, history, True)
    scores = rules.TemperatureLogitsWarper(float(sampling.temperature))(history, scores)
    before = scores
    if sampling.top_k:
        scores = rules.TopKLogitsWarper(sampling.top_k)(history, scores)
    if sampling.top_p < 1:
        scores = rules.TopPLogitsWarper(sampling.top_p)(history, scores)
    if sampling.min_p:
        scores = rules.MinPLogitsWarper(sampling.min_p)(history, scores)
    assert restricted(before, sampling).equal(scores)
    expected = scores.softmax(-1)
    num_draws = 5000
    draws = (torch.arange(num_draws, dtype=torch.float64) + 0.5) / num_draws
    for row, shares in enumerate(expected):
        chosen = next_tokens(
            logits[row].expand(num_draws, -1),
            sampling,
            draws=draws,
            seen=None if seen is None else seen[row].expand(num_draws, -1),
        )
        counted = chosen.bincount(minlength=VOCABULARY) / num_draws
        assert (counted - shares).abs().max() <= 1.01 / num_draws
        assert not counted[shares == 0].any()


def test_extreme_draws_never_pick_what_is_excluded() -> None:
    logits = torch.tensor([[-30.0, 2.0, 1.0, -30.0]]).expand(3, -1)
    draws = torch.tensor([0.0, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    sampling = Sampling(1, top_k=2)
    assert next_tokens(logits, sampling, draws=draws, seen=None).tolist() == [1, 1, 2]
    drawn = row_draws([3, 4], 2, 1000)
    assert drawn.shape == (4, 1000)
    assert drawn.unique().numel() == 4000
    assert drawn.min() >= 0
    assert drawn.max() < 1


def test_attention_of_ragged_rows_equals_softmax_over_all_keys() -> None:
    """Rows leave, groups become uneven, a prompt goes; float32 and bfloat16 against float64."""
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.bfloat16, 2e-2)):
        draw = torch.Generator().manual_seed(0)

        def states(*shape: int, draw: Any = draw, dtype: Any = dtype) -> Tensor:
            return torch.randn(*shape, generator=draw).to(dtype)

        lengths, heads, kv_heads, width = [5, 9, 3], 4, 2, 8
        prompt_keys, prompt_values = (states(1, kv_heads, 17, width) for _ in range(2))
        prompts = PromptCache()
        prompts.begin_row(lengths)
        prompts.update(prompt_keys, prompt_values, 0)
        cache = SharedCache(prompts, [0], group_size=3)
        rows = list(range(9))
        own: dict[int, list[tuple[Tensor, Tensor]]] = {row: [] for row in rows}
        for step, leaving in enumerate(([], [1], [3, 4, 5], [0, 6], [7])):
            kept = [place for place, row in enumerate(rows) if row not in leaving]
            rows = [rows[place] for place in kept]
            if leaving:
                cache.keep(kept)
            query = 3 * states(len(rows), heads, 1, width)
            key, value = (states(len(rows), kv_heads, 1, width) for _ in range(2))
            cache.update(key, value, 0)
            output = cache.attend(0, query, 0.4)
            assert output.dtype == dtype
            for place, row in enumerate(rows):
                own[row].append((key[place], value[place]))
                first = sum(lengths[: row // 3])
                of_prompt = slice(first, first + lengths[row // 3])
                keys, values = (
                    torch.cat([part[0, :, of_prompt], *[pair[kind] for pair in own[row]]], dim=1)
                    for kind, part in enumerate((prompt_keys, prompt_values))
                )
                expected = torch.nn.functional.scaled_dot_product_attention(
                    query[place].double(),
                    keys.double().repeat_interleave(heads // kv_heads, dim=0),
                    values.double().repeat_interleave(heads // kv_heads, dim=0),
                    scale=0.4,
                )
                error = (output[place, 0] - expected[:, 0]).abs().max()
                assert error <= tolerance * values.abs().max(), (dtype, step, row)


def test_settings_without_a_meaning_are_refused() -> None:
    for name, value in (
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("top_p", 0.0),
        ("top_k", -1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
    ):
        with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
            Sampling(**{"max_new_tokens": 4} | {name: value})


def test_scores_that_are_not_finite_choose_a_token_that_exists_and_are_noticed() -> None:
    """On a GPU a token outside of the vocabulary ends the process; there nobody looks each step."""
    rows = torch.tensor([[0.0, 1.0, -torch.inf], [0.0, math.nan, 1.0], [math.inf, 0.0, 1.0]])
    draws = torch.full((3,), 0.999, dtype=torch.float64)
    chosen = next_tokens(rows, Sampling(1), draws=draws, seen=None)
    assert chosen[0] == 1
    assert int(chosen.max()) <= 2
    assert bool(are_finite(rows[:1]))
    assert not bool(are_finite(rows[:2]))
    assert not bool(are_finite(rows[2:]))
    assert not bool(are_finite(torch.full((1, 3), -torch.inf)))


@pytest.mark.parametrize("share_prompts", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_is_sampled_from_a_model_of_nan(share_prompts: bool, temperature: float) -> None:
    model = copy.deepcopy(tiny_model("qwen2.5-vl"))
    model.get_output_embeddings().weight.data.view(-1)[0] = math.nan
    with pytest.raises(NotFiniteError, match="scores of the next token are not finite"):
        sample_completions(
            model,
            [prompt("qwen2.5-vl", 0)],
            group_size=2,
            sampling=Sampling(3, temperature=temperature),
            end_ids=[5],
            seeds=[1],
            share_prompts=share_prompts,
        )


def test_a_question_that_stands_in_is_drawn_apart_from_its_own_group() -> None:
    """With one seed for both, the same completions came twice into a step."""
    asked = question("clip.mp4")
    own = group_seed(3, 7, asked)
    assert group_seed(3, 7, asked) == own
    seeds = {own, *(group_seed(3, 7, asked, instead_of=row) for row in (0, 1, 12))}
    assert len(seeds) == 4
