"""Batches of training: which samples each iteration takes, and how they lie in memory (method 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from excel_core.cams.pseudo_labels import class_slots
from excel_core.config import TrainSpec
from excel_core.training.samples import Sample, TrainingExample, augment

__all__ = ["Batch", "Batches"]


@dataclass(frozen=True)
class Batch:
    """Samples side by side, in two tensors, so that a batch travels in two copies.

    planes (B, 5, S, S) uint8: red, green, blue, whether a pixel is valid (0 in padding), label (255 ignored). slots (B, K)
    int64: the classes of each photo, -1 after its last.
    """

    planes: Tensor
    slots: Tensor

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Batch":
        """Samples of one size, in order."""
        planes = [torch.cat([sample.pixels, sample.valid[None].byte(), sample.labels[None]]) for sample in samples]
        return cls(torch.stack(planes), class_slots([sample.classes for sample in samples]))

    @property
    def pixels(self) -> Tensor:
        """(B, 3, S, S) uint8 RGB."""
        return self.planes[:, :3]

    @property
    def valid(self) -> Tensor:
        """(B, S, S) bool, False in padding."""
        return self.planes[:, 3] > 0

    @property
    def labels(self) -> Tensor:
        """(B, S, S) uint8, 255 where a pixel takes no part."""
        return self.planes[:, 4]

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory, which is copied to a GPU while that computes. DataLoader calls this on a thread."""
        return Batch(self.planes.pin_memory(), self.slots.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """The same on a device; nothing waits for the copies."""
        return Batch(self.planes.to(device, non_blocking=True), self.slots.to(device, non_blocking=True))


class Batches(Dataset[Batch]):
    """Item t is one rank's share of the batch of iteration t.

    As published, one shuffled order of the images is repeated each epoch, without its last incomplete batch. Where there are
    fewer images than a batch has, the order is repeated within it.
    """

    def __init__(self, images: Sequence[TrainingExample], spec: TrainSpec, share: slice) -> None:
        self.images, self.spec, self.share = images, spec, share
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(spec.order_seed)).tolist()
        in_full_batches = len(order) // spec.batch_size * spec.batch_size
        self.order: list[int] = order[:in_full_batches] or order

    def __len__(self) -> int:
        return self.spec.iterations

    def __getitem__(self, iteration: int) -> Batch:
        start = iteration * self.spec.batch_size
        return Batch.of([self.sample(position) for position in range(start, start + self.spec.batch_size)[self.share]])

    def sample(self, position: int) -> Sample:
        """The sample at a position of the whole run."""
        image = self.images[self.order[position % len(self.order)]]
        draw = np.random.default_rng([self.spec.seed, 1, position])
        labels = image.labels.read() if image.labels is not None else None
        return augment(image.read(), image.classes, labels, self.spec, draw)
