"""Batches on their way to the training loop: decoded, cropped and put together by worker processes, ahead of the steps."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from excel_core.datasets.mask_guard import inherited_guards
from excel_core.errors import ExcelError
from excel_core.training.batches import Batch, Batches

__all__ = ["loaded"]

MAX_WORKERS = 8
BATCHES_AHEAD = 4  # that each worker prepares


def loaded(batches: Batches, start: int, device: torch.device) -> Iterator[tuple[int, Batch]]:
    """(iteration, batch) from `start` on; for a GPU in page-locked memory, where a thread of this process puts them. An
    unreadable photo or label map is an error of one line, whichever process reads it."""
    spec = batches.spec
    workers = spec.workers if spec.workers is not None else _default_workers(device)
    loader: Any = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=workers,  # each on one thread: DataLoader sees to that
        worker_init_fn=inherited_guards(),  # workers are spawned, not forked, on some systems
        prefetch_factor=BATCHES_AHEAD if workers else None,
        persistent_workers=False,
        pin_memory=device.type == "cuda",
    )
    try:
        yield from enumerate(loader, start)
    except ExcelError as error:
        # From a worker process, the message is that process' whole traceback; its last line is the error's own message.
        raise type(error)(str(error).strip().rpartition(f"{type(error).__name__}: ")[2]) from error


def _default_workers(device: torch.device) -> int:
    """Decoding and cropping four photos takes a core about 50 ms: little beside a step on a CPU, much beside one on a GPU. Two
    cores stay free for the loop and the thread beside it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, cores - 2)) if device.type == "cuda" else 0
