"""Names and whole tensors of plain, adapted and sharded policies; and a server that fails."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.rollout_wire import rollout_wire
from helpers.sharded import shard, spawn
from helpers.tiny_models import build_model
from peft import get_peft_model

from train.modeling.families import QWEN2_5_VL
from train.modeling.lora import lora_config
from train.rollouts.streaming import RolloutServerError
from train.rollouts.vllm.client import VllmClient
from train.rollouts.vllm.weights import PolicyWeights, open_sender

FAMILIES = ("qwen2.5-vl", "qwen3-vl")


def adapted(family: str) -> Any:
    model = get_peft_model(build_model(family), lora_config(4, QWEN2_5_VL))
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, own in model.named_parameters():
            if "lora_B" in name:
                own.copy_(torch.randn(own.shape, generator=noise))
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_model_sends_its_checkpoint_a_tied_head_once(family: str, tied: bool) -> None:
    model = build_model(family, tied=tied)
    sent = dict(PolicyWeights(model))
    saved = model.state_dict()
    assert ("lm_head.weight" in sent) != tied
    assert {*saved} - {*sent} == ({"lm_head.weight"} if tied else set())
    assert all(torch.equal(own, saved[name]) for name, own in sent.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_added_to_copies(family: str) -> None:
    model = adapted(family)
    before = {name: own.detach().clone() for name, own in model.named_parameters()}
    sent = {name: own.clone() for name, own in PolicyWeights(model)}  # merging writes into the base
    assert all(torch.equal(own, before[name]) for name, own in model.named_parameters())
    merged = dict(model.merge_and_unload().named_parameters())
    assert {*sent} == {*merged}
    for name, own in sent.items():
        assert torch.allclose(own, merged[name], atol=1e-6), name
    changed = [name for name in sent if not torch.equal(sent[name], build_of(family)[name])]
    assert len(changed) == 3 * 7  # seven linear layers of three blocks


def build_of(family: str) -> dict[str, torch.Tensor]:
    return dict(build_model(family).named_parameters())


def test_what_is_announced_is_what_comes_also_in_another_number_format() -> None:
    source = PolicyWeights(build_model("qwen2.5-vl"), torch.bfloat16)
    announced = [(each.name, each.dtype, each.shape) for each in source.metadata()]
    sent = [(name, own.dtype, tuple(own.shape)) for name, own in source]
    assert announced == sent
    assert {dtype for _, dtype, _ in sent} == {torch.bfloat16}


def gather(rank: int, folder: Path) -> None:
    """Every process iterates; each must come by the whole tensors."""
    for family in FAMILIES:
        sent = dict(PolicyWeights(shard(build_model(family))))
        torch.save(sent, folder / f"{family}-{rank}.pt")


@pytest.mark.slow
@pytest.mark.heavy
def test_shards_of_two_processes_are_sent_whole(tmp_path: Path) -> None:
    spawn(gather, tmp_path)
    for family in FAMILIES:
        whole = dict(PolicyWeights(build_model(family)))
        for rank in range(2):
            sent = torch.load(tmp_path / f"{family}-{rank}.pt")
            assert [*sent] == [*whole]
            assert all(torch.equal(sent[name], whole[name]) for name in whole)


def test_a_server_that_refuses_the_meeting_is_not_waited_for() -> None:
    """The group waits minutes for its other members; the refusal must come first."""
    with rollout_wire() as wire:
        wire.says("/get_world_size", {"world_size": 1})
        wire.says("/init_weight_transfer_engine", b"no such engine", status=500)
        source = PolicyWeights(build_model("qwen2.5-vl"))
        with pytest.raises(RolloutServerError, match="status 500: no such engine"):
            open_sender(VllmClient(wire.url), source, rank=0)
    assert wire.asked[1][1]["init_info"]["world_size"] == 2


def test_other_processes_gather_and_ask_the_server_for_nothing() -> None:
    with rollout_wire() as wire:
        source = PolicyWeights(build_model("qwen2.5-vl"))
        open_sender(VllmClient(wire.url), source, rank=1).send_weights()
    assert wire.asked == []
