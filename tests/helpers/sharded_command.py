"""`train.sft` or `train.rl` as a program that accelerate shards on CPUs.

    accelerate launch tests/helpers/sharded_command.py rl --algo ...

It fails where weights are not in parts once they are prepared.
"""

import sys
from typing import Any

from helpers.sharded import assert_sharded, lift_accelerates_refusal

from cli.config import run_command
from train import rl, sft
from train.trainers import grpo_trainer, sft_trainer


def _checked(after_preparation: Any) -> Any:
    def check(trainer: Any) -> None:
        after_preparation(trainer)
        assert_sharded(trainer.model)

    return check


if __name__ == "__main__":
    lift_accelerates_refusal()
    for trainers in (grpo_trainer, sft_trainer):
        trainers.after_preparation = _checked(trainers.after_preparation)
    command = {"rl": rl, "sft": sft}[sys.argv.pop(1)]
    run_command(command.PROG, command.main)
