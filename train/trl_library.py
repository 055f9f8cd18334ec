"""TRL: the only file of this room that imports it, and datasets, which it reads rows from.

Importing this file loads torch and more.
"""

from collections.abc import Callable, Sequence
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


def numbered_rows(
    num_rows: int, column: str, fetched: Callable[[Sequence[int]], None] | None = None
) -> Any:
    """A dataset of the numbers 0 to `num_rows` - 1, for trainers that fetch their rows by index.

    `fetched` is told which rows the trainer's data loader takes: one batch ahead of training.
    """
    rows = Dataset.from_dict({column: list(range(num_rows))})
    if fetched is None:
        return rows

    def tell(batch: dict[str, list[int]]) -> dict[str, list[int]]:
        fetched(batch[column])
        return batch

    return rows.with_transform(tell)
