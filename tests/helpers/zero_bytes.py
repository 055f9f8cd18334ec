"""What each process of a run under ZeRO holds, as a program for `.venv-engines`.

    .venv-engines/bin/python tests/helpers/zero_bytes.py STAGE FOLDER NAME...

Two processes train a tiny model for two steps, in each of the named settings, and leave the bytes
of each part in FOLDER.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from helpers.replays import rl_world
from helpers.sharded_deepspeed import spawn
from helpers.sharded_runs import Case, trainer
from torch import Tensor
from transformers import TrainerCallback, training_args

from train.modeling.sharding import whole_weights

BUCKET = 60_000
"""Numbers in a bucket of gradients: a step of a tiny model fills some of them."""
SUMS = ("reduce_ipg_grads", "_DeepSpeedZeroOptimizer_Stage3__reduce_and_partition_ipg_grads")
"""Methods of DeepSpeed's optimizers that sum a bucket over processes."""
_TRL = {"optim": "adamw_torch", "learning_rate": 1e-3, "beta": 0.04}
_MIXED = {**_TRL, "bf16": True}
CASES = {
    "bfloat16": Case("grpo", trl=_MIXED),
    "bfloat16, tower": Case("grpo", freeze=False, trl=_MIXED),
    "bfloat16, adapter": Case("grpo", lora=True, trl=_MIXED),
    "float32": Case("grpo", trl=_TRL),
}


def hold(rank: int, stage: int, folder: Path, names: list[str]) -> None:
    """Bytes of each setting. transformers takes bfloat16 without a GPU only where it is told to."""
    training_args.is_torch_bf16_gpu_available = lambda: True
    found = {}
    with (world := rl_world(folder / "world")).loader:
        for name in names:
            _use_settings(folder / f"zero-{rank}.json", stage)
            more = {"use_cpu": False, "ddp_backend": "gloo"}
            one = trainer(CASES[name], world, folder / name, processes=2, **more)
            watch = Watch(one)
            one.add_callback(watch)
            one.train()
            found[name] = watch.found()
    torch.save(found, folder / f"{rank}.pt")


def _use_settings(file: Path, stage: int) -> None:
    zero = {
        "stage": stage,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
        "stage3_param_persistence_threshold": 0,
    }
    by_options = (
        "gradient_accumulation_steps",
        "gradient_clipping",
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
    )
    file.write_text(json.dumps({"zero_optimization": zero, **dict.fromkeys(by_options, "auto")}))
    os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = str(file)


def num_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Of storages, each once."""
    storages = [tensor.untyped_storage() for tensor in tensors if tensor is not None]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def weights_of(engine: Any) -> list[Tensor]:
    """What a process has of an engine's weights: whole ones, and its parts of the others."""
    parameters = list(engine.module.parameters())
    parts = [parameter.ds_tensor for parameter in parameters if hasattr(parameter, "ds_tensor")]
    return [parameter.data for parameter in parameters if parameter.numel()] + parts


class Watch(TrainerCallback):  # type: ignore[misc]
    """Sees the gradients of a run as they are summed, and what is there at its end."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._gradients = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        optimizer = self._trainer.model_wrapped.optimizer
        for name in filter(lambda each: hasattr(optimizer, each), SUMS):
            setattr(optimizer, name, self._and_look(getattr(optimizer, name)))

    def _and_look(self, sum_gradients: Callable[..., None]) -> Callable[..., None]:
        def summed(*given: Any, **options: Any) -> None:
            sum_gradients(*given, **options)
            self._gradients = max(self._gradients, num_bytes(self._kept()))

        return summed

    def _kept(self) -> list[Tensor]:
        """Gradients that were summed over processes, of the numbers that this one updates, and
        the buckets in which they are put together."""
        optimizer = self._trainer.model_wrapped.optimizer
        buffers = [bucket.buffer for bucket in optimizer.ipg_buckets.values()]
        buckets = [own for each in buffers for own in (each if isinstance(each, list) else [each])]
        if hasattr(optimizer, "grad_partitions_flat_buffer"):
            return [*buckets, optimizer.grad_partitions_flat_buffer]
        groups = [group for group in optimizer.averaged_gradients.values() if group is not None]
        return [*buckets, *(tensor for group in groups for tensor in group)]

    def found(self) -> dict[str, int]:
        """Bytes by part."""
        engine, reference = self._trainer.model_wrapped, self._trainer.ref_model
        inner = engine.optimizer.optimizer
        masters = [each for group in inner.param_groups for each in group["params"]]
        masters += list(getattr(engine.optimizer, "fp32_partitioned_groups_flat", []))
        own = num_bytes([*weights_of(engine), *masters])
        parts = {
            "weights": own,
            "gradients": self._gradients,
            "optimizer": num_bytes(s for one in inner.state.values() for s in one.values()),
            "reference": num_bytes(weights_of(reference)) if reference is not None else 0,
        }
        with torch.no_grad(), whole_weights(self._trainer.model):
            parts["gathered"] = num_bytes([*weights_of(engine), *masters]) - own
        return parts


if __name__ == "__main__":
    stage, folder, *names = sys.argv[1:]
    spawn(hold, int(stage), Path(folder), names)
