"""Batches on their way to the training loop: decoded, cropped and put together by worker processes, ahead of the steps.

PyTorch passes tensors through shared memory, /dev/shm, of which a container often has little (64 MB in Docker). Where it is
full, a worker's batch is lost, and the loop would wait for ever. So batches go through a pipe, as bytes, where it might become
full: that takes the training process 1 ms more a batch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from excel_core.config import TrainSpec
from excel_core.datasets.mask_guard import inherited_guards
from excel_core.errors import ExcelError, WorkerError
from excel_core.training.batches import Batch, Batches

__all__ = ["has_shared_memory", "loaded", "worker_faults_named"]

MAX_WORKERS = 8
SHARED_MEMORY = "/dev/shm"  # noqa: S108  looked at, not written to
BATCHES_AHEAD = 4  # that each worker prepares
MAX_WAIT_SECONDS = 900.0  # for a batch; a second is much
DIED, LATE = "DataLoader worker", "DataLoader timed out"  # how the errors of PyTorch begin
ADVICE = "set it lower, or to 0: then the training process reads them itself"


@contextmanager
def worker_faults_named() -> Iterator[None]:
    """Around all that happens while workers run: WorkerError where one dies, which PyTorch notices wherever the loop is, or
    gives nothing for MAX_WAIT_SECONDS."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith((DIED, LATE)):
            raise
        fault = "gave no batch in time" if str(error).startswith(LATE) else "died, as when memory does not suffice"
        why = str(error).splitlines()[0].rstrip(".")
        raise WorkerError(f"train.workers: a process that reads photos {fault} ({why}); {ADVICE}") from None


@dataclass(frozen=True)
class _Sent:
    """A batch as arrays, which a pipe takes."""

    planes: NDArray[np.uint8]
    slots: NDArray[np.int64]

    def batch(self) -> Batch:
        """The same as tensors, which share its memory."""
        return Batch(torch.from_numpy(self.planes), torch.from_numpy(self.slots))

    def pin_memory(self) -> Batch:
        """The same in page-locked memory. DataLoader calls this on a thread."""
        return self.batch().pin_memory()


class _SentBatches(Dataset[_Sent]):
    """The batches as workers send them through a pipe."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, iteration: int) -> _Sent:
        batch = self._batches[iteration]
        return _Sent(batch.planes.numpy(), batch.slots.numpy())


def loaded(batches: Batches, start: int, device: torch.device) -> Iterator[tuple[int, Batch]]:
    """(iteration, batch) from `start` on; for a GPU in page-locked memory, where a thread of this process puts them. An
    unreadable photo or label map is an error of one line, whichever process reads it; WorkerError where no workers
    can be started. Use it inside `worker_faults_named`."""
    spec = batches.spec
    workers = spec.workers if spec.workers is not None else _default_workers(device)
    try:
        for iteration, item in enumerate(_items(batches, start, workers, pin=device.type == "cuda"), start):
            yield iteration, item.batch() if isinstance(item, _Sent) else item
    except ExcelError as error:
        # From a worker process, the message is that process' whole traceback; its last line is the error's own message.
        raise type(error)(str(error).strip().rpartition(f"{type(error).__name__}: ")[2]) from error


def _items(batches: Batches, start: int, workers: int, pin: bool) -> Iterator[_Sent | Batch]:
    loader: Any = DataLoader(
        batches if has_shared_memory(batches.spec, workers) else _SentBatches(batches),
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=workers,  # each on one thread: DataLoader sees to that
        worker_init_fn=inherited_guards(),  # workers are spawned, not forked, on some systems
        prefetch_factor=BATCHES_AHEAD if workers else None,
        persistent_workers=False,
        pin_memory=pin,
        timeout=MAX_WAIT_SECONDS if workers else 0,
    )
    try:
        batches_sent = iter(loader)
    except OSError as error:  # for want of processes, or of shared memory for semaphores
        raise WorkerError(
            f"train.workers={workers}: the processes that read photos cannot be started ({error.strerror or error}); {ADVICE}"
        ) from None
    yield from batches_sent


def has_shared_memory(spec: TrainSpec, workers: int) -> bool:
    """Whether /dev/shm has room for twice the batches that workers prepare ahead, those of all processes that train on this
    machine; on systems without that folder shared memory is not bounded by it."""
    try:
        disk = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return True
    batch = spec.batch_size * 5 * spec.crop**2  # bytes, of all processes together
    return disk.f_bavail * disk.f_frsize >= 2 * workers * (BATCHES_AHEAD + 2) * batch


def _default_workers(device: torch.device) -> int:
    """Decoding and cropping four photos takes a core about 50 ms: little beside a step on a CPU, much beside one on a GPU. Two
    cores stay free for the loop and the thread beside it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, cores - 2)) if device.type == "cuda" else 0
