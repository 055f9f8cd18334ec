"""TRL and what comes with it: the only file of this room that imports trl, datasets or peft.

Whoever subclasses or starts a trainer takes the names from here; `--help` does without this file.
Where transformers itself is needed, `train.models` is its door.
"""

from typing import Any

from datasets import Dataset, load_dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.models.utils import disable_gradient_checkpointing, use_adapter
from trl.trainer.utils import RepeatSampler

__all__ = [
    "Dataset",
    "GRPOConfig",
    "GRPOTrainer",
    "LoraConfig",
    "RepeatSampler",
    "SFTConfig",
    "SFTTrainer",
    "disable_gradient_checkpointing",
    "load_dataset",
    "numbered_rows",
    "use_adapter",
]


def numbered_rows(num_rows: int, column: str) -> Any:
    """A dataset of the numbers 0 to `num_rows` - 1, for trainers that fetch their rows by index."""
    return Dataset.from_dict({column: list(range(num_rows))})
