"""Values on their way between host and GPU, so that whoever sent them need not wait."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["HostCopy", "to_device"]


class HostCopy:
    """A copy of `values` in pinned memory, begun when this is made and taken by any thread; on a CPU, `values` itself."""

    def __init__(self, values: Tensor) -> None:
        self._ready: torch.cuda.Event | None = None
        self._values = values
        self.shape = values.shape
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._ready = torch.cuda.Event(blocking=True)  # a thread that waits leaves its core to others
            self._ready.record()

    def numpy(self) -> NDArray[Any]:
        """The values in their own shape and dtype; waits until they are there."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._values.numpy()


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """values → the same on the device: to a GPU from pinned memory, by a copy that nobody waits for."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
