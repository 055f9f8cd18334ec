"""The worker's side of weights over gloo: an engine of vLLM's weight-transfer API, for CPUs.

The life cycle and the HTTP calls are those of vLLM's own engines (0.31); GPUs use its `nccl`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from train.rollouts.vllm.gloo import broadcast, gloo_group


@dataclass
class GlooInit(WeightTransferInitInfo):  # type: ignore[misc]
    """Where trainer and workers meet."""

    master_address: str
    master_port: int
    rank_offset: int
    world_size: int


@dataclass
class GlooUpdate(WeightTransferUpdateInfo):  # type: ignore[misc]
    """The tensors that follow, in their order."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]


class GlooEngine(WeightTransferEngine):  # type: ignore[misc]
    """Receives whole tensors of checkpoint names, one after another."""

    init_info_cls = GlooInit
    update_info_cls = GlooUpdate
    _group: Any = None

    def init_transfer_engine(self, init_info: GlooInit) -> None:
        """Join the trainer's group; one of an earlier trainer is left."""
        parallel = self.parallel_config
        rank = parallel.data_parallel_index * parallel.world_size + parallel.rank
        self._group = gloo_group(
            init_info.master_address,
            init_info.master_port,
            rank=init_info.rank_offset + rank,
            size=init_info.world_size,
        )

    def start_weight_update(self) -> None:
        """Make the layers ready to be loaded anew."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: Any) -> None:
        """As the base class, which waits for an accelerator behind it."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: GlooUpdate) -> None:
        """Load the tensors as they come."""
        self.model.load_weights(self._received(update_info))

    def _received(self, update: GlooUpdate) -> Iterator[tuple[str, Tensor]]:
        for name, dtype, shape in zip(update.names, update.dtype_names, update.shapes, strict=True):
            tensor = torch.empty(shape, dtype=getattr(torch, dtype))
            broadcast(self._group, tensor)
            yield name, tensor

    def finish_weight_update(self) -> None:
        """Finish the layers; a packed copy of the LM head, which vLLM leaves old, is made anew."""
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        for module in self.model.modules():
            if isinstance(module, VocabParallelEmbedding) and hasattr(module, "cpu_linear"):
                dispatch_cpu_unquantized_gemm(module, remove_weight=False)

    def shutdown(self) -> None:
        """Leave the group."""
        self._group = None
