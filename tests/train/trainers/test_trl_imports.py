"""What our trainer relies on in TRL and transformers: an upgrade that moves it fails here first.

Behaviour is held by the tests that compare with TRL's own trainer; here are names and signatures.
"""

import ast
import inspect
import textwrap
from typing import Any

import pytest
import transformers
import trl
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from train.trainers.checkpoints import CommonOverrides
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.policy_passes import PolicyPasses

# As of TRL 1.16.0 on transformers 5.17 to 5.24: each overridden method, with its parameters.
OVERRIDDEN = {
    "create_accelerator_and_postprocess": ["self"],
    "_prepare_for_training": [
        "self",
        "max_steps",
        "train_dataloader",
        "resume_from_checkpoint",
    ],
    "_get_train_sampler": ["self", "dataset"],
    "_prepare_inputs": ["self", "generation_batch"],
    "_generate_and_score_completions": ["self", "inputs"],
    "training_step": ["self", "model", "inputs", "num_items_in_batch"],
    "_get_grad_norm": ["self", "model", "grad_norm"],
    "_maybe_log_save_evaluate": [
        "self",
        "tr_loss",
        "grad_norm",
        "model",
        "trial",
        "epoch",
        "ignore_keys_for_eval",
        "start_time",
        "learning_rate",
    ],
    "_save_checkpoint": ["self", "model", "trial"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_send_telemetry": ["self"],
    "_save": ["self", "output_dir", "state_dict"],
    "_compute_loss": ["self", "model", "inputs"],
    "create_model_card": ["self", "model_name", "dataset_name", "tags"],
    "_get_per_token_logps_and_entropies": [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
        "compute_aux_loss",
        "pixel_values",
        "image_grid_thw",
        "num_images",
        "pixel_attention_mask",
        "spatial_shapes",
        "num_tiles",
        "image_sizes",
        "token_type_ids",
        "mm_token_type_ids",
        "image_position_ids",
    ],
}
# What TRL's loss reads of a micro-batch, in 1.16.0. Anything new must be given or refused.
READ_BY_THE_LOSS = {
    "prompt_ids",
    "prompt_mask",
    "completion_ids",
    "completion_mask",
    "advantages",
    "num_items_in_batch",
    "old_per_token_logps",
    "ref_per_token_logps",
}
NOT_GIVEN = {
    "tool_mask",
    "importance_sampling_ratio",
    "sampling_per_token_logps",
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
}


def source(method: str) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(getattr(GRPOTrainer, method))))


def test_the_versions_are_those_that_were_read() -> None:
    assert trl.__version__ == "1.16.0"
    major, minor = map(int, transformers.__version__.split(".")[:2])
    assert (5, 17) <= (major, minor) <= (5, 24)  # constraints.txt, and `make newest`


@pytest.mark.parametrize("method", OVERRIDDEN)
def test_signatures_of_overridden_methods(method: str) -> None:
    assert list(inspect.signature(getattr(GRPOTrainer, method)).parameters) == OVERRIDDEN[method]


def test_nothing_else_of_trl_is_overridden() -> None:
    own = {
        name
        for each in (PolicyPasses, CommonOverrides, VideoGRPOTrainer)
        for name, value in vars(each).items()
        if callable(value) or isinstance(value, property)
    }
    of_trl = {name for name in dir(GRPOTrainer) if not name.startswith("__")}
    assert own & of_trl == set(OVERRIDDEN)


def test_the_loss_reads_nothing_that_is_not_given() -> None:
    keys = set()
    for node in ast.walk(source("_compute_loss")):
        key: Any = None
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "inputs":
            key = node.slice
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "inputs.get":
            key = node.args[0]
        if isinstance(key, ast.Constant):
            keys.add(key.value)
    assert keys == READ_BY_THE_LOSS | (NOT_GIVEN & keys)
    assert keys >= READ_BY_THE_LOSS


def test_advantages_are_read_after_the_policy_pass() -> None:
    """So they may be computed inside of it."""
    text = inspect.getsource(GRPOTrainer._compute_loss)
    assert text.index("self._get_per_token_logps_and_entropies(") < text.index('["advantages"]')
    assert "if advantages.dim() == 1:" in text


def test_a_step_is_counted_after_its_micro_batch() -> None:
    """The boundary of a generation is read from this counter."""
    text = inspect.getsource(GRPOTrainer.training_step)
    assert text.index("super().training_step") < text.index("self._step += 1")


def test_the_sampler_draws_one_permutation_per_epoch_from_its_generator() -> None:
    text = inspect.getsource(RepeatSampler.__iter__)
    assert text.count("torch.randperm(self.num_samples, generator=self.generator)") == 1
