"""Leaving a process group of torch.distributed without waiting for ever."""

import gc

import torch


def leave_process_group() -> None:
    """Destroys the default group; call it when nothing of the caller's holds a wrapped model.

    A DistributedDataParallel that outlives the group takes the last hold of it along: its
    destructor then joins gloo's thread with the interpreter lock held, which that thread may need.
    """
    gc.collect()  # trainers hold each other in circles
    torch.distributed.destroy_process_group()
