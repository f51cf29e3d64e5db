"""Batches on their way to the training loop: decoded, cropped and put together by worker processes, ahead of the steps.

A batch comes from its worker through a pipe (batches.py). PyTorch would pass tensors through /dev/shm, which a container often
has too little of: the worker's batch is lost then, and the loop waits for ever.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from excel_core.datasets.mask_guard import inherited_guards
from excel_core.errors import ExcelError, WorkerError
from excel_core.training.batches import Batch, Batches

__all__ = ["loaded", "worker_faults_named"]

MAX_WORKERS = 8
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
        what = "gave no batch in time" if str(error).startswith(LATE) else "died, as when memory does not suffice"
        why = str(error).splitlines()[0].rstrip(".")
        raise WorkerError(f"train.workers: a process that reads photos {what} ({why}); {ADVICE}") from None


def loaded(batches: Batches, start: int, device: torch.device) -> Iterator[tuple[int, Batch]]:
    """(iteration, batch) from `start` on; for a GPU in page-locked memory, where a thread of this process puts them. An
    unreadable photo or label map is an error of one line, whichever process reads it; WorkerError where no workers
    can be started. Use it inside `worker_faults_named`."""
    spec = batches.spec
    workers = spec.workers if spec.workers is not None else _default_workers(device)
    try:
        yield from enumerate(_items(batches, start, workers, pin=device.type == "cuda"), start)
    except ExcelError as error:
        # From a worker process, the message is that process' whole traceback; its last line is the error's own message.
        raise type(error)(str(error).strip().rpartition(f"{type(error).__name__}: ")[2]) from error


def _items(batches: Batches, start: int, workers: int, pin: bool) -> Iterator[Batch]:
    loader: Any = DataLoader(
        batches,
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
        items = iter(loader)
    except OSError as error:  # for want of processes, or of shared memory for semaphores
        raise WorkerError(
            f"train.workers={workers}: the processes that read photos cannot be started ({error.strerror or error}); {ADVICE}"
        ) from None
    yield from items


def _default_workers(device: torch.device) -> int:
    """Decoding and cropping four photos takes a core about 50 ms: little beside a step on a CPU, much beside one on a GPU. Two
    cores stay free for the loop and the thread beside it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, cores - 2)) if device.type == "cuda" else 0
