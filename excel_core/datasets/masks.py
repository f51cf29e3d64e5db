"""Segmentation masks: evaluation reads them, through these readers alone and outside the guard of mask_guard.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from excel_core.datasets.manifest import check_image_id
from excel_core.datasets.mask_guard import check_mask_access
from excel_core.datasets.palette import load_labels_png
from excel_core.datasets.published_voc import AUGMENTED
from excel_core.errors import DataError

__all__ = ["MaskReader", "TrueMask", "VocMaskReader", "require_masks", "voc_mask_reader"]


class MaskReader(Protocol):
    """The masks of one split, for evaluation only. Only `read` opens a mask, and never inside `forbid_mask_access`."""

    @property
    def where(self) -> str:
        """Where the masks are, in the words of a message."""
        ...

    def has(self, image_id: str) -> bool:
        """Whether there is a mask of this image of the split."""
        ...

    def version(self, image_id: str) -> Any:
        """Plain data that changes when the image's mask does: sizes and times of change."""
        ...

    def read(self, image_id: str, height: int, width: int) -> NDArray[np.uint8]:
        """The image's mask (height, width) uint8: 0 background, i + 1 for class i, 255 ignore."""
        ...


@dataclass(frozen=True)
class VocMaskReader:
    """The masks of a data set in VOC layout, for evaluation only: those in `folder`, else those in `fallback`."""

    root: Path
    folder: str = "SegmentationClass"
    fallback: str = ""

    @property
    def where(self) -> str:
        return f"{self.folder} or {self.fallback}" if self.fallback else self.folder

    def has(self, image_id: str) -> bool:
        return self._path(image_id).is_file()

    def version(self, image_id: str) -> Any:
        status = self._path(image_id).stat()
        return [status.st_size, status.st_mtime_ns]

    def read(self, image_id: str, height: int, width: int) -> NDArray[np.uint8]:
        """Mask of image_id → (height, width) uint8: 0 background, i + 1 for class i, 255 ignore.

        height and width are the size of what is scored against it. A PNG saved as RGB is decoded
        through the VOC palette. Raises DataError for a missing or damaged mask or another size, and
        MaskLeakError inside `forbid_mask_access`.
        """
        path = self._path(image_id)
        check_mask_access(path, "VocMaskReader.read")
        if not path.is_file():
            raise DataError(f"{path}: no mask for {image_id}; evaluate a split that has masks, or add it")
        mask = load_labels_png(path)
        if mask.shape != (height, width):
            raise DataError(
                f"{path}: the mask is {mask.shape[0]} high and {mask.shape[1]} wide, "
                f"expected {height} high and {width} wide as what is scored against it"
            )
        return mask

    def _path(self, image_id: str) -> Path:
        name = f"{check_image_id(image_id, 'truth')}.png"
        first = self.root / self.folder / name
        return self.root / self.fallback / name if self.fallback and not first.is_file() else first


def voc_mask_reader(root: Path, split: str, class_names: tuple[str, ...]) -> VocMaskReader:
    """The masks of a split in VOC layout. The augmented training set has SBD's masks (SegmentationClassAug) where VOC has
    none; other splits are scored against VOC's own masks alone."""
    return VocMaskReader(root, fallback="SegmentationClassAug" if split in AUGMENTED else "")


@dataclass(frozen=True)
class TrueMask:
    """One image's mask (height, width), not read yet: the target of the fully supervised mode."""

    reader: MaskReader
    image_id: str
    height: int
    width: int

    def read(self) -> NDArray[np.uint8]:
        """(height, width) uint8: 0 background, i + 1 for class i, 255 ignore; errors as of the reader."""
        return self.reader.read(self.image_id, self.height, self.width)


def require_masks(reader: MaskReader, split: str, ids: Sequence[str]) -> None:
    """DataError unless every image of `ids` has a mask; none is opened."""
    missing = [image for image in ids if not reader.has(image)]
    if missing:
        raise DataError(
            f"train.supervision=masks: {len(missing):,} of {len(ids):,} images of {split!r} have no mask in {reader.where}, "
            f"{missing[0]} first; add them, or train on a split that has masks: --set dataset.train_split=NAME"
        )
