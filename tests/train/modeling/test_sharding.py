"""The passes over weights that FSDP2 spreads over two processes, against one process."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.sharded import assert_sharded, shard, spawn, whole
from helpers.tiny_models import FAMILIES, build_model, group
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy

from train.modeling.packed_forward import GroupLogprobs, PromptGroup, group_logprobs
from train.modeling.sharding import is_sharded, whole_head, whole_weights
from train.modeling.vision_cache import encode_media, vision_tower
from train.rollouts.sampler import Sampling, sample_completions

CASES = tuple(
    (family, tied, share)
    for family in FAMILIES
    for tied in (True, False)
    for share in (True, False)
)
LENGTHS = ((5, 1, 9), (4, 8))
DRAWN = (4, 17)


def trained(family: str, tied: bool) -> Any:
    model = build_model(family, tied=tied).train()
    model.gradient_checkpointing_enable()
    return model


def own_group(family: str, rank: int) -> PromptGroup:
    return group(family, rank, LENGTHS[rank])


def loss_of(scores: list[GroupLogprobs]) -> Tensor:
    terms = [score.logprobs.sum() + 0.1 * score.entropies.sum() for score in scores]
    return torch.stack(terms).sum() / 2


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: whole(parameter.grad) for name, parameter in model.named_parameters()}


def scored(model: Any, groups: list[PromptGroup], share: bool) -> list[GroupLogprobs]:
    """In chunks of few tokens, which the backward pass computes again."""
    return group_logprobs(
        model,
        groups,
        frame_layers=2,
        share_prompts=share,
        entropy_gradient=True,
        logits_at_once=300,
    )


def drawn(model: Any, family: str, rank: int, share: bool) -> list[Tensor]:
    (rows,) = sample_completions(
        model,
        [group(family, 10 + rank, (1,)).inputs],
        group_size=3,
        sampling=Sampling(DRAWN[rank], temperature=1.0),
        end_ids=[159],
        seeds=[3],
        share_prompts=share,
    )
    return rows


def work(rank: int, folder: Path) -> None:
    for number, (family, tied, share) in enumerate(CASES):
        model = shard(trained(family, tied))
        (score,) = scores = scored(model, [own_group(family, rank)], share)
        (2 * loss_of(scores)).backward()
        before = gradients(model)
        rows = drawn(model, family, rank, share)
        assert_sharded(model)
        model.zero_grad()
        (2 * loss_of(scored(model, [own_group(family, rank)], share))).backward()
        again = gradients(model)
        assert all(torch.equal(again[name], value) for name, value in before.items())
        found = {
            "logprobs": score.logprobs.detach(),
            "frames": score.frame_attention,
            "gradients": before,
            "rows": rows,
            "head": whole_head(model).weight,
        }
        torch.save(found, folder / f"{number}-{rank}.pt")


@pytest.mark.heavy
@pytest.mark.slow
def test_two_processes_with_parts_of_the_weights_are_as_one_with_all(tmp_path: Path) -> None:
    """Both families, tied and untied heads, both passes: log-probs, attention, gradients, drawing
    of different lengths in each process. 1e-6: float32, sums in another order."""
    spawn(work, tmp_path)
    for number, (family, tied, share) in enumerate(CASES):
        model = trained(family, tied)
        scores = scored(model, [own_group(family, rank) for rank in (0, 1)], share)
        loss_of(scores).backward()
        wanted = gradients(model)
        for rank, score in enumerate(scores):
            found = torch.load(tmp_path / f"{number}-{rank}.pt")
            assert (found["logprobs"] - score.logprobs).abs().max() < 2e-6
            assert (found["frames"] - score.frame_attention).abs().max() < 1e-6
            assert torch.equal(found["head"], model.get_output_embeddings().weight)
            for name, gradient in wanted.items():
                largest = gradient.abs().max()
                difference = (found["gradients"][name] - gradient).abs().max()
                assert difference <= 2e-6 * largest, (number, name)
            rows = drawn(model, family, rank, share)
            assert [len(row) for row in rows] == [len(row) for row in found["rows"]]
            for row, other in zip(rows, found["rows"], strict=True):
                assert torch.equal(row, other)


def in_parts(rank: int, folder: Path) -> None:
    """The tower alone is gathered; in bfloat16 log-probs come out in float32 and unrounded."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for family in FAMILIES:
        model = shard(build_model(family).train(), policy=policy)
        layer = model.model.language_model.layers[0].mlp.up_proj
        own = own_group(family, rank)
        with whole_weights(model, vision_tower(model)):
            assert layer.weight.to_local().shape[0] < layer.weight.shape[0]
            encode_media(model, own.inputs)
            with whole_weights(model):
                assert layer.weight.dtype == torch.bfloat16
            encode_media(model, own.inputs)  # blocks inside of it end without taking it away
        assert_sharded(model)
        (score,) = group_logprobs(model, [own], frame_layers=2)
        values = score.logprobs[score.mask]
        assert values.dtype == torch.float32
        assert not torch.equal(values, values.bfloat16().float())
        rows = drawn(model, family, rank, share=True)
        plain = build_model(family)
        for parameter in plain.parameters():
            parameter.data = parameter.data.bfloat16()
        assert all(map(torch.equal, rows, drawn(plain, family, rank, share=True)))
        assert is_sharded(model)


@pytest.mark.heavy
@pytest.mark.slow
def test_parts_are_gathered_alone_and_bfloat16_rounds_no_log_probs(tmp_path: Path) -> None:
    spawn(in_parts, tmp_path)


def test_without_sharding_nothing_is_gathered() -> None:
    model = build_model("qwen3-vl")
    with whole_weights(model, vision_tower(model)):
        assert not is_sharded(model)
    assert whole_head(model).weight.data_ptr() == model.lm_head.weight.data_ptr()
    assert not whole_head(model).weight.requires_grad
