"""The whole trainer with weights spread over two processes learns what one process learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.replays import rl_world
from helpers.sharded import assert_sharded, lift_accelerates_refusal, spawn
from helpers.sharded_runs import CASES, Case, learned, refuse_other_learning, trainer, weights
from helpers.training_world import FAMILIES, tiny_model_folder
from torch import Tensor

from cli.config import UsageError
from train.modeling.sharding import unwrapped
from train.trainers.grpo_trainer import VideoGRPOTrainer

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(900)]

FSDP = {
    "fsdp": True,
    "fsdp_config": {"fsdp_version": 2, "cpu_ram_efficient_loading": False},
    "ddp_backend": "gloo",
}


def check(one: VideoGRPOTrainer) -> None:
    assert_sharded(one.model)
    assert one.accelerator.distributed_type == "FSDP"


def work(rank: int, root: Path) -> None:
    lift_accelerates_refusal()
    for family in FAMILIES:
        tiny_model_folder(family)  # only the first process of a group writes models
    for name, case in CASES.items():
        with (world := rl_world(root / "world", kind=case.kind, family=case.family)).loader:
            folder = root / "sharded" / name
            found = learned(case, world, folder, processes=2, check=check, **FSDP)
            torch.save(found, root / f"{name}-{rank}.pt")


def test_every_kind_of_run_learns_the_same(tmp_path: Path) -> None:
    """Completions are drawn, and of other lengths in each process."""
    rl_world(tmp_path / "world", kind="mixed").loader.close()
    spawn(work, tmp_path)
    for name, case in CASES.items():
        with (world := rl_world(tmp_path / "world", kind=case.kind, family=case.family)).loader:
            alone = learned(case, world, tmp_path / "alone" / name, processes=1)
        for rank in (0, 1):
            refuse_other_learning(torch.load(tmp_path / f"{name}-{rank}.pt"), alone, name)


RESUMED = Case("pa-grpo+appo", trl={"optim": "adamw_torch", "learning_rate": 1e-2, "max_steps": 4})


def cut_off(rank: int, root: Path) -> None:
    """A run of four steps; then another one from its second checkpoint, in each format."""
    lift_accelerates_refusal()
    with (world := rl_world(root / "world")).loader:
        for kind in ("FULL_STATE_DICT", "SHARDED_STATE_DICT"):
            more = {
                **FSDP,
                "save_strategy": "steps",
                "save_steps": 2,
                "fsdp_config": {"fsdp_version": 2, "state_dict_type": kind},
                "processes": 2,
            }
            whole_run = trainer(RESUMED, world, root / kind, **more)
            whole_run.train()
            wanted = weights(whole_run)
            resumed = trainer(RESUMED, world, root / f"{kind}-again", **more)
            resumed.train(resume_from_checkpoint=str(root / kind / "checkpoint-2"))
            assert resumed.state.global_step == 4
            for name, value in weights(resumed).items():
                assert torch.equal(value, wanted[name]), (kind, name)
            ended = trainer(RESUMED, world, root / f"{kind}-ended", **more)
            ended.load_checkpoint(root / kind / "checkpoint-4")
            assert_sharded(ended.model)
            for name, value in weights(ended).items():
                assert torch.equal(value, wanted[name]), (kind, name)


def test_a_resumed_run_ends_in_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    rl_world(tmp_path / "world").loader.close()
    spawn(cut_off, tmp_path)


BFLOAT16 = {"bf16": True, "beta": 0.04}


def in_bfloat16(rank: int, root: Path) -> None:
    lift_accelerates_refusal()
    with (world := rl_world(root / "world")).loader:
        case = Case("pa-grpo+appo", trl={**BFLOAT16, "gradient_accumulation_steps": 2})
        one = trainer(case, world, root / "out", processes=2, **FSDP)
        logprobs: list[Tensor] = []
        references: list[Tensor] = []
        inner = one._get_per_token_logps_and_entropies

        def seen(model: Any, *given: Any, **options: Any) -> Any:
            found = inner(model, *given, **options)
            layer = unwrapped(model).model.language_model.layers[0].mlp.up_proj
            assert layer.weight.dtype == torch.float32, "it has been given back"
            assert unwrapped(model).get_output_embeddings().weight.dtype == torch.bfloat16
            assert one._current is not None
            logprobs.append(found[0].detach())
            references.append(one._current.tensors["ref_per_token_logps"])
            return found

        one._get_per_token_logps_and_entropies = seen
        one.train()
        assert len(logprobs) == len(references) == 4
        for values in (*logprobs, *references):
            assert values.dtype == torch.float32
            assert not torch.equal(values, values.bfloat16().float())
        assert_sharded(one.model)
        assert one.accelerator.gradient_state.plugin_kwargs["sync_each_batch"]
        case = Case("pa-grpo", lora=True, trl=BFLOAT16)
        adapted = trainer(case, world, root / "adapted", processes=2, **FSDP)
        for name, parameter in adapted.model.named_parameters():
            if "lora" not in name:  # as train.rl loads the base on a GPU
                parameter.data = parameter.data.bfloat16()
        before = weights(adapted)
        adapted.train()
        assert_sharded(adapted.model)
        moved = {name for name, v in weights(adapted).items() if not torch.equal(v, before[name])}
        assert moved
        assert all("lora" in name for name in moved)


def test_in_mixed_precision_layers_are_given_back_and_log_probs_are_not_rounded(
    tmp_path: Path,
) -> None:
    rl_world(tmp_path / "world").loader.close()
    spawn(in_bfloat16, tmp_path)


def with_other_layers(rank: int, root: Path) -> None:
    lift_accelerates_refusal()
    with (world := rl_world(root / "world")).loader:
        settings_of = {"fsdp_version": 2, "transformer_layer_cls_to_wrap": "Qwen2_5_VLVisionBlock"}
        more = {**FSDP, "fsdp_config": settings_of}
        with pytest.raises(UsageError, match=r"by text layer \(Qwen2_5_VLDecoderLayer\)"):
            trainer(Case("grpo"), world, root / "out", processes=2, **more)


def test_layers_of_the_tower_are_not_gathered_one_by_one(tmp_path: Path) -> None:
    """A process with pictures and videos would wait for one that has videos alone."""
    rl_world(tmp_path / "world").loader.close()
    spawn(with_other_layers, tmp_path)
