"""TRL and what comes with it: the only file of this room that imports trl, accelerate or datasets.

Whoever subclasses or starts a trainer takes the names from here; `--help` does without this file.
Where transformers itself is needed, `train.models` is its door.
"""

from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset, load_dataset
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.callbacks import TrainerCallback
from trl.trainer.utils import RepeatSampler, use_adapter

__all__ = [
    "Dataset",
    "GRPOConfig",
    "GRPOTrainer",
    "RepeatSampler",
    "SFTConfig",
    "SFTTrainer",
    "TrainerCallback",
    "disable_gradient_checkpointing",
    "gather_object",
    "load_dataset",
    "numbered_rows",
    "use_adapter",
]


def numbered_rows(num_rows: int, column: str) -> Any:
    """A dataset of the numbers 0 to `num_rows` - 1, for trainers that fetch their rows by index."""
    return Dataset.from_dict({column: list(range(num_rows))})
