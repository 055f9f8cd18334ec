"""How many bytes of tensors are alive while code runs, what autograd keeps included."""

from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Counts each storage that an operation makes in this block for as long as it lives.

    Unlike `tensor_memory.TensorMemory` it follows storages, not Python's tensors: an output that
    autograd keeps is still counted when nobody else holds it. What existed before is not counted.
    """

    def __init__(self, *existing: Tensor) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage().data_ptr() for tensor in existing}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor) and value.numel():
                storage = value.untyped_storage()
                if storage.data_ptr() not in self._known:
                    self._alive[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, self.now())
        return result

    def now(self) -> int:
        """Bytes alive at this moment."""
        self._alive = {
            pointer: held for pointer, held in self._alive.items() if not held[0].expired()
        }
        return sum(size for _, size in self._alive.values())

    def forget_peak(self) -> None:
        """Count the peak from here on."""
        self.peak = self.now()
