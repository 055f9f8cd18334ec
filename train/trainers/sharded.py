"""FSDP2 and ZeRO in a trainer: how weights are spread, and how they are put together again.

Under FSDP2 accelerate's own choices would round log-probs to the format that layers compute in,
gather layers of the vision tower one by one (a process with pictures and videos would wait for one
with videos alone), and keep whole gradients between the micro-batches of a step.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from cli.config import UsageError
from train.modeling.families import family_of
from train.modeling.loading import load_policy, read_models_whole, training_dtype
from train.modeling.lora import merged_adapter
from train.modeling.sharding import gathers_by, reshard_after_forward, unwrapped, whole_state
from train.modeling.vision_cache import vision_tower

_READS_ONCE = "FSDP_CPU_RAM_EFFICIENT_LOADING"


def read_weights_in_every_process(arguments: Any) -> None:
    """Not in the first one alone, which accelerate would then copy to the others.

    TRL's reference model is not copied: other processes would compare with random numbers. Call it
    before the policy is loaded.
    """
    os.environ[_READS_ONCE] = "false"
    if arguments.fsdp_plugin_args:
        arguments.fsdp_plugin_args["cpu_ram_efficient_loading"] = False


def is_spread(trainer: Any) -> bool:
    """Whether FSDP2 or DeepSpeed trains."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def prepare_deepspeed(arguments: Any) -> None:
    """Where DeepSpeed is to train, its settings agree with the options, and models are read whole.

    Call it before any model is loaded. Raises UsageError.
    """
    plugin = arguments.deepspeed_plugin
    if plugin is None:
        return
    read_models_whole()
    rows, steps = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    options = {
        "gradient_accumulation_steps": steps,
        "gradient_clipping": arguments.max_grad_norm,
        "train_batch_size": rows * steps * arguments.world_size,
        "train_micro_batch_size_per_gpu": rows,
    }
    for name, wanted in options.items():
        given = plugin.deepspeed_config.setdefault(name, "auto")
        if given not in ("auto", wanted):
            raise UsageError(
                f"{name} is {given} in DeepSpeed's settings, and {wanted} by the options of this"
                ' command; write "auto" there, or leave it out of accelerate launch'
            )


def plan_sharding(trainer: Any) -> None:
    """Tell accelerate how to spread the weights of a trainer, before it or TRL spreads any.

    Each text layer is gathered by itself, what remains (embedding, norm, tower) with the model.
    Layers compute in the format of mixed precision, gradients are summed in float32, and outputs
    keep their precision. Raises UsageError where that cannot be had.
    """
    asked = trainer.args.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if asked and not trainer.is_fsdp_enabled:
        kind = trainer.accelerator.distributed_type.value
        raise UsageError(
            f"FSDP was asked for, but accelerate made {kind} of it, in which every process has all"
            " weights: it spreads them over several GPUs only; leave FSDP out here"
        )
    if trainer.is_deepspeed_enabled:
        _plan_zero(trainer)
    if not trainer.is_fsdp_enabled:
        return
    plugin = trainer.accelerator.state.fsdp_plugin
    model = unwrapped(trainer.model)
    layers = {type(layer).__name__ for layer in family_of(model.config).text_layers(model)}
    given = plugin.transformer_cls_names_to_wrap
    if given and {*given} != layers:
        raise UsageError(
            f"fsdp_transformer_layer_cls_to_wrap {','.join(given)}: weights are gathered by text"
            f" layer ({', '.join(layers)}), those of the vision tower with the whole model; leave"
            " it out"
        )
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = sorted(layers)
    if (precision := plugin.mixed_precision_policy) is not None:
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=precision.param_dtype, reduce_dtype=torch.float32
        )
    # Whole gradients of several micro-batches would be kept otherwise: 30 GB of a 7B model.
    trainer.accelerator.gradient_state.plugin_kwargs["sync_each_batch"] = True


def _plan_zero(trainer: Any) -> None:
    read_models_whole()  # transformers has heard of ZeRO-3 again; TRL's reference comes next
    config = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
    config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True  # checkpoints
    # DeepSpeed would sum the gradients of processes and micro-batches in bfloat16.
    config.setdefault("communication_data_type", "fp32")
    config.setdefault("data_types", {}).setdefault("grad_accum_dtype", "fp32")


def after_preparation(trainer: Any) -> None:
    """What is set once accelerate has spread the weights."""
    if trainer.is_deepspeed_enabled:
        for engine in (trainer.model_wrapped, getattr(trainer, "ref_model", None)):
            if engine is not None:
                gathers_by(engine, vision_tower(unwrapped(engine)))
    if trainer.is_fsdp_enabled:
        plugin = trainer.accelerator.state.fsdp_plugin
        reshard_after_forward(trainer.model, layers=bool(plugin.reshard_after_forward))


def prepared_without_training(trainer: Any) -> None:
    """Spread the weights of a trainer that is to load a checkpoint, but not to train."""
    if trainer.is_fsdp_enabled:
        trainer.create_optimizer()
        model, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        trainer.model = trainer.model_wrapped = model
        after_preparation(trainer)


def save_whole_model(trainer: Any, folder: Path, dtype: torch.dtype | None) -> None:
    """Save a sharded trainer's model or adapter as an ordinary one. Every process calls this.

    The first process gathers the weights in its memory. `dtype` (of whole models) None is the
    format of training.
    """
    weights: dict[str, Tensor]
    if trainer.is_deepspeed_enabled:
        weights = whole_state(trainer.model, trained_only=hasattr(trainer.model, "peft_config"))
    else:
        weights = trainer.accelerator.get_state_dict(trainer.model)
    if not trainer.args.should_save:
        return
    if dtype is not None:
        weights = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in weights.items()
        }
    trainer._save(str(folder), state_dict=weights)
    if dtype is not None:
        config = unwrapped(trainer.model).config
        config.dtype = dtype
        config.save_pretrained(str(folder))


def merged_again(trained: Any, base: str, dtype: str, adapter: Path) -> Any:
    """A sharded model's base, which no step has changed, read again because it is in parts, with
    the adapter that was saved in a folder. `dtype` is the option of that name."""
    wanted = training_dtype(dtype, has_adapter=True)
    merged = merged_adapter(load_policy(base, dtype=wanted, device="cpu"), adapter)
    own = unwrapped(trained)
    merged.config, merged.generation_config = own.config, own.generation_config
    return merged
