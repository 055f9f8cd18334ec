"""A policy's weights on their way to a vLLM server: names and whole tensors, and who sends them.

vLLM's weight-transfer API (0.28 and later) has one life cycle for all transports. On GPUs its own
NCCL engine sends, the only place where a trainer imports vLLM; on CPUs the tensors go over gloo
(`train.rollouts.vllm.gloo`), to the engine that our plugin registers.
"""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from threading import Thread
from typing import Any, Protocol

import torch
from torch import Tensor

from cli.config import UsageError
from train.modeling.sharding import unwrapped, whole, whole_shape
from train.rollouts.streaming import RolloutServerError
from train.rollouts.vllm.client import VllmClient
from train.rollouts.vllm.gloo import broadcast, gloo_group


@dataclass(frozen=True)
class TensorMeta:
    """One tensor of a checkpoint, without its numbers."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class PolicyWeights:
    """The checkpoint's tensors of a model, also of one that is wrapped, sharded or adapted.

    LoRA adapters are added to copies, the base stays as it is. Parts (FSDP2, ZeRO-3) are gathered
    tensor by tensor: a collective, so every process iterates. `dtype` is what they are sent in;
    None is their own. The interface of vLLM's `WeightSource`.
    """

    def __init__(self, model: Any, dtype: torch.dtype | None = None) -> None:
        self._dtype = dtype
        self.take(model)

    def take(self, model: Any) -> None:
        """From now on give the tensors of this model."""
        self._model = unwrapped(model)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return torch.device(next(self._model.parameters()).device)

    def metadata(self) -> list[TensorMeta]:
        """What iteration yields, in its order; nothing is gathered."""
        return [
            TensorMeta(name, self._dtype or own.dtype, whole_shape(own))
            for name, own, _ in self._tensors()
        ]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        with torch.no_grad():
            for name, own, adapted in self._tensors():
                tensor = whole(own)
                for delta in () if adapted is None else _deltas(adapted):
                    tensor = tensor + delta.to(tensor)
                yield name, tensor.to(self._dtype or tensor.dtype).contiguous()

    def _tensors(self) -> Iterator[tuple[str, Tensor, Any]]:
        """Name, parameter, and the module whose adapters change it; a tied tensor comes once."""
        modules = dict(self._model.named_modules())
        for name, own in self._model.named_parameters():
            owner, _, last = name.rpartition(".")
            if ".lora_" in f".{name}":
                continue
            adapted = None
            if owner.endswith(".base_layer"):
                owner = owner.removesuffix(".base_layer")
                adapted = modules[owner] if last == "weight" else None
            yield f"{owner}.{last}" if owner else last, own, adapted


def _deltas(layer: Any) -> Iterator[Tensor]:
    """What the active adapters of a linear layer of peft add to its weight."""
    for name in layer.active_adapters:
        if name in layer.lora_A:
            first, second = (whole(each[name].weight) for each in (layer.lora_A, layer.lora_B))
            yield (second @ first) * layer.scaling[name]


class WeightSender(Protocol):
    """Sends all weights of its source to a server that is paused; called in every process."""

    def send_weights(self) -> None:
        """Returns when the server has them. Raises RolloutServerError."""


def open_sender(
    client: VllmClient, source: PolicyWeights, *, rank: int, trainer_host: str | None = None
) -> WeightSender:
    """The sender for the device that the source's weights are on; process 0 meets the server.

    `trainer_host` is the name under which the server reaches process 0; None finds it out. Raises
    RolloutServerError, and UsageError where vLLM is needed and not installed.
    """
    host = trainer_host or _own_address(client)
    size = 1
    if rank == 0:
        size += int(client.get("/get_world_size")["world_size"])
    if source.device.type == "cuda":
        return _nccl_sender(client, source, rank, host, size)
    return GlooSender(client, source, rank=rank, host=host, size=size)


class GlooSender:
    """Broadcasts tensor after tensor over gloo, from process 0."""

    def __init__(
        self, client: VllmClient, source: PolicyWeights, *, rank: int, host: str, size: int
    ) -> None:
        self._client, self._source, self._group = client, source, None
        if rank != 0:
            return
        port = _free_port()
        meeting = {
            "master_address": host,
            "master_port": port,
            "rank_offset": 1,
            "world_size": size,
        }
        joined = _in_background(lambda: client.init_weight_transfer_engine(meeting))
        group = _in_background(lambda: gloo_group(host, port, rank=0, size=size))
        for done in wait([joined, group], return_when=FIRST_EXCEPTION).done:
            done.result()
        self._group = group.result()

    def send_weights(self) -> None:
        """Every process iterates the source; process 0 sends, and the others only gather."""
        if self._group is None:
            for _ in self._source:
                pass
            return
        tensors = iter(self._source)
        try:
            self._send(tensors)
        finally:
            for _ in tensors:  # the other processes gather to the end, whatever failed here
                pass

    def _send(self, tensors: Iterator[tuple[str, Tensor]]) -> None:
        meta = self._source.metadata()
        update = {
            "names": [each.name for each in meta],
            "dtype_names": [str(each.dtype).removeprefix("torch.") for each in meta],
            "shapes": [list(each.shape) for each in meta],
        }
        self._client.start_weight_update()
        received = _in_background(lambda: self._client.update_weights(update))
        try:
            for _, tensor in tensors:
                if received.done():  # nobody listens any more: an error, which this raises
                    received.result()
                broadcast(self._group, tensor)
        except RuntimeError as error:
            raise RolloutServerError(
                f"the vLLM server {self._client.url} broke off while it received weights: {error}"
            ) from error
        received.result()
        self._client.finish_weight_update()


def _nccl_sender(
    client: VllmClient, source: PolicyWeights, rank: int, host: str, size: int
) -> WeightSender:
    try:
        from vllm.distributed.weight_transfer.nccl_engine import (
            NCCLTrainerInitInfo,
            NCCLTrainerWeightTransferEngine,
        )
    except ImportError as error:
        raise UsageError(
            f"--rollouts vllm on GPUs sends weights by vLLM's NCCL engine ({error}); install vLLM"
            " 0.31 beside this project"
        ) from error
    meeting = NCCLTrainerInitInfo(
        master_address=host, master_port=_free_port(), world_size=size, rank=rank
    )
    sender: WeightSender = NCCLTrainerWeightTransferEngine.trainer_init(
        meeting, client=client, source=source
    )
    return sender


def _own_address(client: VllmClient) -> str:
    """The address of this machine in the network in which the server is; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((client.host, client.port))
        except OSError as error:
            raise UsageError(
                f"--vllm-url {client.url} cannot be reached from here ({error})"
            ) from error
        return str(probe.getsockname()[0])


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _in_background(work: Callable[[], Any]) -> Future[Any]:
    """The work's result, from a thread that does not keep a process alive that gives up."""
    result: Future[Any] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except (RolloutServerError, RuntimeError, OSError) as error:
            result.set_exception(error)
        finally:
            if not result.done():
                result.cancel()

    Thread(target=run, name="vllm-weights", daemon=True).start()
    return result
