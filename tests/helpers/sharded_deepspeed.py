"""Training processes whose weights DeepSpeed spreads over them on CPUs, in `.venv-engines`.

    .venv-engines/bin/python tests/helpers/sharded_deepspeed.py learn STAGE FOLDER CASE...
    .venv-engines/bin/python tests/helpers/sharded_deepspeed.py resume STAGE FOLDER
    .venv-engines/bin/python tests/helpers/sharded_deepspeed.py in_bfloat16 STAGE FOLDER
    .venv-engines/bin/accelerate launch ... tests/helpers/sharded_deepspeed.py rl OPTIONS

`learn`: two processes run each case, and the weights and logs of each are left in FOLDER. `resume`:
a run that is gone on from its second checkpoint must end in the same weights. `in_bfloat16`: what
is computed in which format. `rl` and `sft` are the commands; they fail where weights are not in
parts once they are prepared.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from helpers.process_groups import leave_process_group
from helpers.replays import rl_world
from helpers.sharded import free_port
from helpers.sharded_runs import CASES, Case, learned, trainer, weights
from helpers.training_world import FAMILIES, tiny_model_folder
from transformers import training_args

from cli.config import run_command
from train import rl, sft
from train.modeling.sharding import unwrapped
from train.modeling.vision_cache import vision_tower
from train.rollouts.vllm.weights import PolicyWeights
from train.trainers import grpo_trainer, sft_trainer
from train.trainers.checkpoint_files import damage_of

PROCESSES = 2
# Tiny tensors are in parts, too: by default those below 100,000 numbers stay whole.
ZERO_3 = {
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    **dict.fromkeys(
        (
            "gradient_accumulation_steps",
            "gradient_clipping",
            "train_batch_size",
            "train_micro_batch_size_per_gpu",
        ),
        "auto",
    ),
}
_ADAM = {"optim": "adamw_torch", "learning_rate": 1e-2, "max_steps": 4}
RESUMED = {
    "all weights": Case("pa-grpo+appo", trl=_ADAM),
    "adapter": Case("pa-grpo", lora=True, trl=_ADAM),
}


def use_gloo() -> None:
    """Before a process uses DeepSpeed: its own exchange on CPUs would be compiled for minutes."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def assert_spread(trainer: Any, stage: int) -> None:
    """Each process holds its part of what a ZeRO stage spreads, and no more."""
    assert trainer.accelerator.distributed_type == "DEEPSPEED"
    engine = trainer.model_wrapped
    assert engine.zero_optimization_stage() == stage
    tower = {*vision_tower(unwrapped(trainer.model)).parameters()}
    parameters = list(trainer.model.parameters())
    trained = sum(p.numel() if stage == 2 else p.ds_numel for p in parameters if p.requires_grad)
    groups = engine.optimizer.optimizer.param_groups
    mine = sum(p.numel() for group in groups for p in group["params"])
    assert mine < 0.6 * trained, "each has half of the optimizer's copies, and some padding"
    if stage == 3:
        assert all(p.ds_tensor.numel() < p.ds_numel for p in parameters)
        small = not any(name.endswith("CONFIG_FILE") for name in os.environ)  # as DeepSpeed has it
        assert all((p.numel() == 0) != small for p in parameters if p not in tower)
        offload = engine.optimizer.parameter_offload
        hooks = [offload.fwd_pre_hook, *offload.forward_hooks, *offload.backward_hooks]
        assert all(one.id in one.hooks_dict_ref() for one in hooks), "each is back at its module"


def spawn(task: Callable[..., None], stage: int, *arguments: Any) -> None:
    """`task(rank, stage, *arguments)` in processes that form a group by DeepSpeed."""
    torch.multiprocessing.spawn(
        _launched, args=(free_port(), stage, task, arguments), nprocs=PROCESSES
    )


def _launched(rank: int, port: int, stage: int, task: Any, arguments: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(PROCESSES),
        "LOCAL_WORLD_SIZE": str(PROCESSES),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
    }
    if stage == 3:
        file = Path(mkdtemp(prefix="p2r-")) / "zero3.json"
        file.write_text(json.dumps(ZERO_3))
        os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = str(file)
    use_gloo()
    task(rank, stage, *arguments)
    leave_process_group()


def learn(rank: int, stage: int, folder: Path, names: list[str]) -> None:
    for family in FAMILIES:
        tiny_model_folder(family)
    for name in names:
        case = CASES[name]
        with (world := rl_world(folder / "world", kind=case.kind, family=case.family)).loader:
            found = learned(
                case,
                world,
                folder / "spread" / name,
                processes=PROCESSES,
                check=lambda one: assert_spread(one, stage),
                use_cpu=False,
                ddp_backend="gloo",
            )
            torch.save(found, folder / f"{name}-{rank}.pt")


def resume(rank: int, stage: int, folder: Path) -> None:
    more = {
        "processes": PROCESSES,
        "use_cpu": False,
        "ddp_backend": "gloo",
        "save_strategy": "steps",
        "save_steps": 2,
    }
    with (world := rl_world(folder / "world")).loader:
        for name, case in RESUMED.items():
            one = trainer(case, world, folder / name, **more)
            one.train()
            assert_spread(one, stage)
            wanted = weights(one)
            again = trainer(case, world, folder / f"{name}-again", **more)
            again.train(resume_from_checkpoint=str(folder / name / "checkpoint-2"))
            assert again.state.global_step == 4
            refuse_other_weights(again, wanted)
            ended = trainer(case, world, folder / f"{name}-ended", **more)
            ended.load_checkpoint(folder / name / "checkpoint-4")
            refuse_other_weights(ended, wanted)
            if rank == 0:
                fault = damage_of(folder / name / "checkpoint-4")
                assert not fault, fault


def refuse_other_weights(one: Any, wanted: dict[str, torch.Tensor]) -> None:
    for name, value in weights(one).items():
        assert torch.equal(value, wanted[name]), name


BFLOAT16 = {"bf16": True, "beta": 0.04, "gradient_accumulation_steps": 2}


def in_bfloat16(rank: int, stage: int, folder: Path) -> None:
    """What a run in bfloat16 computes in. transformers takes bfloat16 without a GPU only where it
    is told to use CPUs, and DeepSpeed only where it is not."""
    training_args.is_torch_bf16_gpu_available = lambda: True
    with (world := rl_world(folder / "world")).loader:
        case = Case("pa-grpo+appo", trl={**BFLOAT16, **_ADAM, "max_steps": 2})
        one = trainer(case, world, folder, processes=2, use_cpu=False, ddp_backend="gloo")
        logprobs: list[torch.Tensor] = []
        inner = one._get_per_token_logps_and_entropies

        def seen(model: Any, *given: Any, **options: Any) -> Any:
            scores = inner(model, *given, **options)
            assert one._current is not None
            logprobs.extend([scores[0].detach(), one._current.tensors["ref_per_token_logps"]])
            return scores

        one._get_per_token_logps_and_entropies = seen
        one.train()
        for values in logprobs:
            assert values.dtype == torch.float32
            assert not torch.equal(values, values.bfloat16().float())
        for name, buffer in one.model.named_buffers():
            assert not name.endswith("inv_freq") or buffer.dtype == torch.float32, name
        assert_spread(one, stage)
        engine = one.model_wrapped
        parameters = list(one.model.parameters())
        assert all(parameter.dtype == torch.bfloat16 for parameter in parameters)
        groups = engine.optimizer.optimizer.param_groups
        masters = [parameter for group in groups for parameter in group["params"]]
        assert all(master.dtype == torch.float32 for master in masters)
        assert engine.optimizer.gradient_accumulation_dtype == torch.float32
        assert engine.communication_data_type == torch.float32
        source = PolicyWeights(one.model)
        sent = {name: tuple(tensor.shape) for name, tensor in source}
        assert sent == {each.name: each.shape for each in source.metadata()}
        assert all(sent.values())


def command(name: str) -> None:
    use_gloo()
    stage = int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3"))

    def checked(after_preparation: Any) -> Any:
        def check(trainer: Any) -> None:
            after_preparation(trainer)
            assert_spread(trainer, stage)

        return check

    for trainers in (grpo_trainer, sft_trainer):
        trainers.after_preparation = checked(trainers.after_preparation)
    chosen = {"rl": rl, "sft": sft}[name]
    run_command(chosen.PROG, chosen.main)


if __name__ == "__main__":
    if sys.argv[1] in ("rl", "sft"):
        command(sys.argv.pop(1))
    else:
        what, stage, folder, *names = sys.argv[1:]
        task = {"learn": learn, "resume": resume, "in_bfloat16": in_bfloat16}[what]
        spawn(task, int(stage), Path(folder), *([names] if names else []))
