"""The process group: the processes that train together, each on its share of every batch. One process alone is a group of one.

A sum over the images of a batch (a loss' sums and counts, the mean of eq. 8) is taken over the batch of the whole group by
`global_sum`. So every rank holds the same loss, that of the whole batch, and calls backward on it. The backward of `global_sum`
adds up the gradients of all ranks, which gives each rank `world_size` times its own images' part of the gradient.
DistributedDataParallel then takes the mean over the ranks: the gradient of the whole batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from excel_core.errors import SettingError

__all__ = ["ProcessGroup", "global_sum", "process_group", "wait_for_all"]


@dataclass(frozen=True)
class ProcessGroup:
    """This process is `rank` of `world_size` processes."""

    rank: int = 0
    world_size: int = 1

    def share(self, batch: int) -> slice:
        """This rank's part of `batch` samples in order; SettingError where the ranks cannot share them evenly."""
        if batch % self.world_size:
            raise SettingError(f"train.batch_size={batch} must be a multiple of the {self.world_size} training processes")
        size = batch // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)


def process_group() -> ProcessGroup:
    """torch.distributed's default group; without one, a group of this process alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return ProcessGroup()
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


def global_sum(values: Tensor) -> Tensor:
    """Sum `values`, of any shape, equal on every rank, over the process group; differentiable. Alone, `values` itself."""
    if process_group().world_size == 1:
        return values
    return _GlobalSum.apply(values)  # type: ignore[no-any-return]


def wait_for_all() -> None:
    """Return once every rank has called this."""
    if process_group().world_size > 1:
        dist.barrier()


class _GlobalSum(torch.autograd.Function):
    """Sums over the process group forwards and backwards. torch.distributed.nn, which did both, is being retired."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _all_reduced(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _all_reduced(gradients[0])


def _all_reduced(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
