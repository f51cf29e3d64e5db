"""The training loader alone: batches a second that arrive on the device."""

import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from bench.training_subject import TrainingSubject
from excel_core.training.batches import Batch, Batches
from excel_core.training.loading import loaded
from excel_core.training.samples import Sample

__all__ = ["loader"]

SECONDS = 1.0  # that each is measured for


def loader(subject: TrainingSubject) -> Iterator[dict[str, Any]]:
    """Batches a second that arrive on the device, by workers."""
    for workers in (4, 8, 14):
        spec, device = subject.spec(workers=workers), subject.device
        batches = Batches(subject.images, spec, slice(0, spec.batch_size))
        row: dict[str, Any] = {"what": f"loader alone, {workers} workers", "unit": "batches/s"}
        row["ours"] = _rate(batch.to(device) for _, batch in loaded(batches, 0, device))
        if workers == 4:  # others are no faster: the main thread is what they wait for
            apart: Any = DataLoader(_Apart(batches), batch_size=None, sampler=range(len(batches)), num_workers=workers)
            row["before"] = _rate(Batch.of(samples).to(device) for samples in apart)
        yield row


class _Apart(Dataset[list[Sample]]):
    """Batches as lists of samples, each of which travels on its own."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, iteration: int) -> list[Sample]:
        size = self.batches.spec.batch_size
        return [self.batches.sample(position) for position in range(iteration * size, (iteration + 1) * size)]


def _rate(batches: Iterator[Batch]) -> float:
    """Batches a second, from the tenth on."""
    for _ in range(10):
        next(batches)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        next(batches)
        count += 1
    return count / (time.perf_counter() - started)
