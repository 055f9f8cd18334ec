"""TRL: the only file of this room that imports it, and datasets, which it reads rows from.

Importing this file loads torch and more.
"""

from typing import Any

from datasets import Dataset as Dataset
from trl import GRPOConfig as GRPOConfig
from trl import GRPOTrainer as GRPOTrainer
from trl import SFTConfig as SFTConfig
from trl import SFTTrainer as SFTTrainer
from trl.models.utils import disable_gradient_checkpointing as disable_gradient_checkpointing
from trl.trainer.callbacks import TrainerCallback as TrainerCallback
from trl.trainer.utils import RepeatSampler as RepeatSampler
from trl.trainer.utils import use_adapter as use_adapter


def numbered_rows(num_rows: int, column: str) -> Any:
    """A dataset of the numbers 0 to `num_rows` - 1, for trainers that fetch their rows by index."""
    return Dataset.from_dict({column: list(range(num_rows))})
