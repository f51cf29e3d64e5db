"""Training samples: random crops of photos, with their labels where a rule chooses crops by them (method 5).

A sample follows from its position in the run and the seed alone: photo, scale, flip, padding and crop.
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

from excel_core.config import TrainSpec
from excel_core.datasets.images import AS_STORED, DecodeOptions
from excel_core.datasets.palette import IGNORE, load_labels_png

__all__ = [
    "LabelFile", "LabelMap", "Sample", "TrainingArray", "TrainingExample", "TrainingImage", "augment", "plain_sample",
]  # fmt: skip

MAX_CROP_DRAWS = 10  # as published; the last is taken as it is
MAX_LABEL_SHARE = 0.75  # of a crop's labelled pixels, as published: a crop of which one label covers as much is drawn again
Labels = NDArray[np.uint8]


class LabelMap(Protocol):
    """Labels of a training image."""

    def read(self) -> Labels:
        """(H, W) uint8 of the image's size: 0 background, c+1 class c, 255 ignored."""
        ...


@dataclass(frozen=True)
class LabelFile:
    """Labels in a palette PNG."""

    path: Path

    def read(self) -> Labels:
        """(H, W) uint8. DataError for a damaged file."""
        return load_labels_png(self.path)


class TrainingExample(Protocol):
    """A photo to train on: the indices of its image-level classes, its labels where the crop rule needs them, and its
    pixels."""

    @property
    def classes(self) -> tuple[int, ...]:
        """0-based class indices."""
        ...

    @property
    def labels(self) -> LabelMap | None:
        """Labels of the photo's size, or None."""
        ...

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        ...


@dataclass(frozen=True)
class TrainingImage:
    """A training image: its file, the indices of its image-level classes, and how its pixels are decoded. `labels`: the run's
    own pseudo labels, for the crop rule; its true mask in the fully supervised mode alone."""

    path: Path
    classes: tuple[int, ...]
    decode: DecodeOptions = AS_STORED
    labels: LabelMap | None = None

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. ImageError for a damaged file."""
        return self.decode.read(self.path)


@dataclass(frozen=True, eq=False)
class TrainingArray:
    """A training image (H, W, 3) uint8 RGB that is in memory already; else as TrainingImage."""

    pixels: NDArray[np.uint8]
    classes: tuple[int, ...]
    labels: LabelMap | None = None

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return self.pixels


@dataclass(frozen=True)
class Sample:
    """A crop: pixels (3, crop, crop) uint8 RGB; valid (crop, crop) bool, False in padding; the classes of the whole photo;
    labels (crop, crop) uint8, 255 in padding, all 255 for an image without labels."""

    pixels: Tensor
    valid: Tensor
    classes: tuple[int, ...]
    labels: Tensor


def plain_sample(pixels: Tensor, classes: Sequence[int]) -> Sample:
    """pixels (3, S, S) uint8 without padding → a Sample: all pixels valid, none labelled."""
    valid = torch.ones(pixels.shape[-2:], dtype=torch.bool)
    return Sample(pixels, valid, tuple(classes), torch.full(pixels.shape[-2:], IGNORE, dtype=torch.uint8))


def augment(
    image: NDArray[np.uint8], classes: tuple[int, ...], labels: Labels | None, spec: TrainSpec, draw: np.random.Generator
) -> Sample:
    """image (H, W, 3) uint8, its labels (H, W) uint8 or None → a Sample, of draws from the generator `draw`.

    In this order: scale U(spec.scale) with sides int(scale * side), flip with probability 1/2, pad with 0 at a random offset to
    the crop's size at least, crop at random. With `crop_rule="pseudo"` the crop is drawn again until no label covers 75 % of
    its labelled pixels, ten times at most.
    """
    scale = draw.uniform(*spec.scale)
    height, width = (max(1, int(scale * side)) for side in image.shape[:2])
    mirrored = draw.random() < 0.5
    canvas_height, canvas_width = max(height, spec.crop), max(width, spec.crop)
    top = int(draw.integers(0, canvas_height - height + 1))
    left = int(draw.integers(0, canvas_width - width + 1))
    inside = (slice(top, top + height), slice(left, left + width))

    # Padding is 0 before normalising, as published.
    canvas = np.zeros((canvas_height, canvas_width, 3), dtype=np.uint8)
    canvas[inside] = _resized(image, (width, height), mirrored, Image.Resampling.BILINEAR)
    valid = np.zeros((canvas_height, canvas_width), dtype=bool)
    valid[inside] = True
    label_canvas = np.full((canvas_height, canvas_width), IGNORE, dtype=np.uint8)
    if labels is not None:
        label_canvas[inside] = _resized(labels, (width, height), mirrored, Image.Resampling.NEAREST)

    # The published rule looks at ground-truth masks. Here `labels` are the run's own pseudo labels.
    by_rule = labels is not None and spec.crop_rule == "pseudo"
    window = _crop_window(label_canvas, spec.crop, draw, by_rule)
    pixels = torch.from_numpy(canvas[window].transpose(2, 0, 1).copy())
    return Sample(pixels, torch.from_numpy(valid[window].copy()), classes, torch.from_numpy(label_canvas[window].copy()))


def _resized(
    values: NDArray[np.uint8], size: tuple[int, int], mirrored: bool, resampling: Image.Resampling
) -> NDArray[np.uint8]:
    """values (H, W, ...) → `size` (width, height), mirrored or not."""
    resized = np.asarray(Image.fromarray(values).resize(size, resampling))
    return resized[:, ::-1] if mirrored else resized


def _crop_window(labels: Labels, side: int, draw: np.random.Generator, by_rule: bool) -> tuple[slice, slice]:
    """Rows and columns of a crop of the padded picture with labels (H, W); `by_rule`: drawn again until it is varied."""
    for attempt in range(MAX_CROP_DRAWS):
        y, x = (int(draw.integers(0, length - side + 1)) for length in labels.shape)
        window = (slice(y, y + side), slice(x, x + side))
        if not by_rule or attempt == MAX_CROP_DRAWS - 1 or is_varied(labels[window]):
            break
    return window


def is_varied(labels: Labels) -> bool:
    """Whether every label of labels (H, W) covers less than MAX_LABEL_SHARE of the pixels that are not ignored."""
    counts = np.bincount(labels.ravel(), minlength=256)
    counts[IGNORE] = 0
    return bool(counts.max() < MAX_LABEL_SHARE * counts.sum())
