"""Training samples: random crops of photos, with labels where a rule chooses crops by them (method 5).

A sample depends on its position in the run and the seed alone: photo, scale, flip, padding and crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from excel_core.config import TrainSpec
from excel_core.datasets.images import AS_STORED, DecodeOptions
from excel_core.datasets.palette import IGNORE, load_labels_png

__all__ = ["Batches", "LabelFile", "LabelMap", "Sample", "TrainingImage", "augment", "plain_sample"]

CROP_DRAWS = 10  # at most; the last is taken as it is
LARGEST_SHARE = 0.75  # of a crop's labelled pixels: where one label covers as much, the crop is drawn again
Labels = NDArray[np.uint8]


class LabelMap(Protocol):
    """Labels of a training image."""

    def read(self) -> Labels:
        """(H, W) uint8 of the image's size: 0 background, c+1 class c, 255 ignored."""
        ...


@dataclass(frozen=True)
class LabelFile:
    """A pseudo label's palette PNG."""

    path: Path

    def read(self) -> Labels:
        """The file's labels."""
        return load_labels_png(self.path)


@dataclass(frozen=True)
class TrainingImage:
    """A training image: its file, the indices of its image-level classes, and how its pixels are seen. `labels`: the run's own
    pseudo labels for the crop rule, or in the fully supervised mode alone its true mask."""

    path: Path
    classes: tuple[int, ...]
    view: DecodeOptions = AS_STORED
    labels: LabelMap | None = None


@dataclass(frozen=True)
class Sample:
    """A crop: pixels (3, crop, crop) uint8 RGB, valid (crop, crop) bool, False in padding, the whole photo's classes, and
    labels (crop, crop) uint8, 255 in padding; all 255 for an image without labels."""

    pixels: Tensor
    valid: Tensor
    classes: tuple[int, ...]
    labels: Tensor

    def pin_memory(self) -> "Sample":
        """The same in page-locked memory, as DataLoader asks for it: copied to a GPU while that computes."""
        return Sample(self.pixels.pin_memory(), self.valid.pin_memory(), self.classes, self.labels.pin_memory())


def plain_sample(pixels: Tensor, classes: Sequence[int]) -> Sample:
    """pixels (3, S, S) uint8 that are no crop of anything → the Sample: all of them valid, none labelled."""
    valid = torch.ones(pixels.shape[-2:], dtype=torch.bool)
    return Sample(pixels, valid, tuple(classes), torch.full(pixels.shape[-2:], IGNORE, dtype=torch.uint8))


def augment(
    image: NDArray[np.uint8], classes: tuple[int, ...], labels: Labels | None, spec: TrainSpec, draw: np.random.Generator
) -> Sample:
    """image (H, W, 3) uint8, its labels (H, W) uint8 or None → a Sample.

    In this order: scale U(spec.scale) with sides int(scale * side), flip with probability 1/2, pad with 0 at a random offset up
    to the crop's size, crop at random. With `crop_rule="pseudo"` the crop is drawn again until no label covers 75 % of its
    labelled pixels, ten times at most. The published rule looks at true masks; here `labels` are the run's own.
    """
    scale = draw.uniform(*spec.scale)
    height, width = (max(1, int(scale * side)) for side in image.shape[:2])
    canvas = np.zeros((max(height, spec.crop), max(width, spec.crop), 3), dtype=np.uint8)
    valid = np.zeros(canvas.shape[:2], dtype=bool)
    marks = np.full(canvas.shape[:2], IGNORE, dtype=np.uint8)
    mirrored = draw.random() < 0.5
    top, left = (int(draw.integers(0, big - side + 1)) for big, side in zip(canvas.shape, (height, width), strict=False))
    inside = (slice(top, top + height), slice(left, left + width))
    canvas[inside] = _scaled(image, (width, height), mirrored, Image.Resampling.BILINEAR)
    valid[inside] = True
    if labels is not None:
        marks[inside] = _scaled(labels, (width, height), mirrored, Image.Resampling.NEAREST)
    window = _window(marks, spec, draw, ruled=labels is not None and spec.crop_rule == "pseudo")
    pixels = torch.from_numpy(canvas[window].transpose(2, 0, 1).copy())
    return Sample(pixels, torch.from_numpy(valid[window].copy()), classes, torch.from_numpy(marks[window].copy()))


def _scaled(values: NDArray[np.uint8], size: tuple[int, int], mirrored: bool, how: Image.Resampling) -> NDArray[np.uint8]:
    """values (H, W, ...) → of `size` (width, height), and mirrored or not."""
    resized = np.asarray(Image.fromarray(values).resize(size, how))
    return resized[:, ::-1] if mirrored else resized


def _window(marks: Labels, spec: TrainSpec, draw: np.random.Generator, ruled: bool) -> tuple[slice, slice]:
    """Where to crop the padded picture whose labels are `marks` (H, W); `ruled`: until the crop is varied, see `augment`."""
    for attempt in range(CROP_DRAWS):
        y, x = (int(draw.integers(0, big - spec.crop + 1)) for big in marks.shape)
        window = (slice(y, y + spec.crop), slice(x, x + spec.crop))
        if not ruled or attempt == CROP_DRAWS - 1 or is_varied(marks[window]):
            break
    return window


def is_varied(labels: Labels) -> bool:
    """Whether no label of labels (H, W) covers LARGEST_SHARE of the pixels that are not ignored."""
    counts = np.bincount(labels.ravel(), minlength=256)
    counts[IGNORE] = 0
    return bool(counts.max() < LARGEST_SHARE * counts.sum())


class Batches(Dataset[list[Sample]]):
    """Item t is one process' share of the batch of iteration t.

    As published, every epoch has the same order of the images, and their last incomplete batch is dropped; of fewer images than
    a batch, the order is repeated.
    """

    def __init__(self, images: Sequence[TrainingImage], spec: TrainSpec, share: slice) -> None:
        self.images, self.spec, self.share = images, spec, share
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(spec.order_seed)).tolist()
        whole = len(order) // spec.batch_size * spec.batch_size
        self.order: list[int] = order[:whole] or order

    def __len__(self) -> int:
        return self.spec.iterations

    def __getitem__(self, iteration: int) -> list[Sample]:
        start = iteration * self.spec.batch_size
        return [self.sample(position) for position in range(start, start + self.spec.batch_size)[self.share]]

    def sample(self, position: int) -> Sample:
        """The sample at a position of the whole run."""
        image = self.images[self.order[position % len(self.order)]]
        draw = np.random.default_rng([self.spec.seed, 1, position])
        labels = image.labels.read() if image.labels is not None else None
        return augment(image.view.read(image.path), image.classes, labels, self.spec, draw)
