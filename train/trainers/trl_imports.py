"""TRL: the only file of this room that imports it, and datasets, which it reads rows from.

Importing this file loads torch and more.
"""

from datasets import Dataset as Dataset
from trl import GRPOConfig as GRPOConfig
from trl import GRPOTrainer as GRPOTrainer
from trl import SFTConfig as SFTConfig
from trl import SFTTrainer as SFTTrainer
from trl.models.utils import disable_gradient_checkpointing as disable_gradient_checkpointing
from trl.trainer.callbacks import TrainerCallback as TrainerCallback
from trl.trainer.utils import RepeatSampler as RepeatSampler
from trl.trainer.utils import use_adapter as use_adapter
