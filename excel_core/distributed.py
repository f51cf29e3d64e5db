"""The team: the processes that train together, each on its share of every batch. A process on its own is a team of one.

Whatever runs over the images of a batch (a loss' sums and counts, the mean of eq. 8) runs over the team's batch through
`global_sum`, so every process holds the same loss, that of the whole batch, and calls backward on it. The backward of
`global_sum` adds up what the team's losses send back, so each process is left with `world` times its own images' part of
the gradient; the mean that DistributedDataParallel takes over the team is then the gradient of the whole batch.
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
    """This process is number `rank` of `world`."""

    rank: int = 0
    world: int = 1

    def share(self, batch: int) -> slice:
        """Which of `batch` samples, in order, are this process'; SettingError where the team cannot share them evenly."""
        if batch % self.world:
            raise SettingError(f"train.batch_size={batch} must be a multiple of the {self.world} training processes")
        size = batch // self.world
        return slice(self.rank * size, (self.rank + 1) * size)


def process_group() -> ProcessGroup:
    """The team this process is in: torch.distributed's default group, or itself alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return ProcessGroup()
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


def global_sum(values: Tensor) -> Tensor:
    """values, any shape, equal on every process → their sum over the team, differentiably; alone, `values` itself."""
    if process_group().world == 1:
        return values
    return _GlobalSum.apply(values)  # type: ignore[no-any-return]


def wait_for_all() -> None:
    """Return once every process of the team has come here."""
    if process_group().world > 1:
        dist.barrier()


class _GlobalSum(torch.autograd.Function):
    """Adds up over the team forwards and backwards; torch.distributed.nn, which did both, is being retired."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _added_up(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _added_up(gradients[0])


def _added_up(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
