"""What tensors a piece of code makes: the largest, and the most bytes alive at once."""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class TensorMemory(TorchDispatchMode):
    """Counts the storages that operations make, not views of the given `inputs`.

    Exact and repeatable, but blind to what an operation uses inside.
    """

    def __init__(self, *inputs: Tensor) -> None:
        super().__init__()
        self._inputs = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        self._holders: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self.largest_bytes = 0
        self.peak_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor) and value.numel():
                self._hold(value)
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        pointer, size = storage.data_ptr(), storage.nbytes()
        if pointer in self._inputs:
            return
        self._holders[pointer] = self._holders.get(pointer, 0) + 1
        self._sizes[pointer] = size
        self.largest_bytes = max(self.largest_bytes, size)
        self.peak_bytes = max(self.peak_bytes, sum(self._sizes.values()))
        weakref.finalize(tensor, self._release, pointer)

    def _release(self, pointer: int) -> None:
        self._holders[pointer] -= 1
        if not self._holders[pointer]:
            del self._holders[pointer], self._sizes[pointer]
