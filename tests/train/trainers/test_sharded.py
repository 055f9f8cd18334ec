"""The whole trainer with weights spread over two processes learns what one process learns."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.replays import RlWorld, rl_world
from helpers.rl_settings import settings
from helpers.sharded import assert_sharded, lift_accelerates_refusal, spawn, whole
from helpers.tiny_models import FAMILIES
from helpers.training_world import tiny_model_folder
from torch import Tensor

from cli.config import Config, UsageError
from train.algorithms.appo import AppoConfig
from train.algorithms.appo_weighting import AppoWeighting
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import AlgoSpec, parse_algo
from train.algorithms.token_weighting import TokenWeighting, TokenWeights, WeightingInputs
from train.modeling.families import QWEN2_5_VL
from train.modeling.lora import lora_config
from train.modeling.sharding import unwrapped
from train.trainers.grpo_trainer import VideoGRPOTrainer

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(900)]

SIZE = 3
FSDP = {
    "fsdp": True,
    "fsdp_config": {"fsdp_version": 2, "cpu_ram_efficient_loading": False},
}


@dataclass(frozen=True)
class Case:
    algo: str
    family: str = "qwen2.5-vl"
    tied: bool = True
    lora: bool = False
    freeze: bool = True
    reads_head: bool = False
    trl: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "grpo": Case("grpo"),
    "tower trains, gradients are clipped": Case(
        "pa-grpo", freeze=False, trl={"max_grad_norm": 0.05, "gradient_checkpointing": True}
    ),
    "weighted tokens": Case("pa-dapo+appo", trl={"num_iterations": 2}),
    "weighting that reads the head": Case("grpo", reads_head=True),
    "head of its own": Case("pa-dapo+appo", family="qwen3-vl", tied=False),
    "adapter against its base": Case("pa-grpo+appo", lora=True, trl={"beta": 0.04}),
    "reference": Case("grpo", trl={"beta": 0.04}),
    "accumulated": Case(
        "pa-grpo", family="qwen3-vl", trl={"gradient_accumulation_steps": 2, "max_grad_norm": 0.05}
    ),
}


class LargestProbability(TokenWeighting):
    """Tokens that were predicted with certainty learn more."""

    name = "largest"
    options = Config

    def weights(self, given: WeightingInputs) -> TokenWeights:
        scores = given.logprobs.hidden_states @ given.lm_head.weight.T
        return TokenWeights(1 + scores.softmax(dim=-1).amax(dim=-1))


def weighting_of(case: Case, spec: AlgoSpec) -> TokenWeighting | None:
    if case.reads_head:
        return LargestProbability(Config())
    return AppoWeighting.of(AppoConfig(tokens_per_frame=4)) if spec.weighting else None


def trainer(
    case: Case, world: RlWorld, folder: Path, *, processes: int, **more: Any
) -> VideoGRPOTrainer:
    spec = parse_algo(case.algo)
    if case.reads_head:
        spec = replace(spec, weighting=LargestProbability.name)
    torch.manual_seed(0)  # a fresh adapter
    model = world.model()
    if not case.tied:
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(1.5 * model.lm_head.weight.detach())
    model.model.visual.requires_grad_(not case.freeze)
    sharded = {**FSDP, "ddp_backend": "gloo"} if processes > 1 else {}
    options = {
        "per_device_train_batch_size": SIZE * 2 // processes,
        "max_steps": 2,
        "learning_rate": 1.0,
        "max_completion_length": 12,
        **sharded,
        **case.trl,
        **more,
    }
    return VideoGRPOTrainer(
        model,
        settings(folder, case.algo, **options),
        world.rows,
        processor=world.processor,
        template=world.template,
        credit=CreditAssignment(
            spec,
            scale=True,
            weighting=weighting_of(case, spec),
        ),
        rewarder=world.rewards(),
        peft_config=lora_config(4, QWEN2_5_VL) if case.lora else None,
    )


def weights(one: VideoGRPOTrainer) -> dict[str, Tensor]:
    return {name: whole(value) for name, value in one.model.state_dict().items()}


def learned(
    case: Case, world: RlWorld, folder: Path, *, processes: int, **more: Any
) -> dict[str, Any]:
    one = trainer(case, world, folder, processes=processes, **more)
    before = weights(one)
    one.train()
    if processes > 1:
        assert_sharded(one.model)
        assert one.accelerator.distributed_type == "FSDP"
    return {"before": before, "after": weights(one), "log": one.state.log_history}


def work(rank: int, root: Path) -> None:
    lift_accelerates_refusal()
    for family in FAMILIES:
        tiny_model_folder(family)  # only the first process of a group writes models
    for name, case in CASES.items():
        with (world := rl_world(root / "world", family=case.family)).loader:
            found = learned(case, world, root / "sharded" / name, processes=2)
            torch.save(found, root / f"{name}-{rank}.pt")


def test_every_kind_of_run_learns_the_same(tmp_path: Path) -> None:
    """Completions are drawn, and of other lengths in each process. 1e-6 beside changes of more than
    1e-3: float32, sums in another order."""
    rl_world(tmp_path / "world").loader.close()
    spawn(work, tmp_path)
    for name, case in CASES.items():
        with (world := rl_world(tmp_path / "world", family=case.family)).loader:
            alone = learned(case, world, tmp_path / "alone" / name, processes=1)
        changes = [alone["after"][n] - value for n, value in alone["before"].items()]
        assert max(float(change.abs().max()) for change in changes) > 1e-3, name
        for rank in (0, 1):
            part = torch.load(tmp_path / f"{name}-{rank}.pt")
            for weight, value in alone["after"].items():
                difference = float((part["after"][weight] - value).abs().max())
                assert difference < 1e-6, (name, weight, difference)
            for one, other in zip(part["log"], alone["log"], strict=True):
                for key in {"loss", "grad_norm", "kl"} & {*other}:
                    assert one[key] == pytest.approx(other[key], rel=1e-5, abs=1e-6), name


RESUMED = Case("pa-grpo+appo", trl={"optim": "adamw_torch", "learning_rate": 1e-2, "max_steps": 4})


def cut_off(rank: int, root: Path) -> None:
    """A run of four steps; then another one from its second checkpoint, in each format."""
    lift_accelerates_refusal()
    with (world := rl_world(root / "world")).loader:
        for kind in ("FULL_STATE_DICT", "SHARDED_STATE_DICT"):
            more = {
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
        one = trainer(case, world, root / "out", processes=2)
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
        adapted = trainer(case, world, root / "adapted", processes=2)
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
        with pytest.raises(UsageError, match=r"by text layer \(Qwen2_5_VLDecoderLayer\)"):
            trainer(Case("grpo"), world, root / "out", processes=2, fsdp_config=settings_of)


def test_layers_of_the_tower_are_not_gathered_one_by_one(tmp_path: Path) -> None:
    """A process with pictures and videos would wait for one that has videos alone."""
    rl_world(tmp_path / "world").loader.close()
    spawn(with_other_layers, tmp_path)
