"""Segmentation masks: evaluation reads them, through these readers alone and outside the guard of mask_guard.py."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.datasets.images import shrunk_size
from excel_core.datasets.label_files import label_file
from excel_core.datasets.manifest import check_image_id
from excel_core.datasets.mask_guard import check_mask_access
from excel_core.datasets.palette import IGNORE, load_labels_png, values_used
from excel_core.datasets.published_voc import AUGMENTED
from excel_core.errors import DataError

__all__ = [
    "NO_CLASS",
    "MaskReader",
    "TrueMask",
    "VocMaskReader",
    "folder_mask_reader",
    "holds_no_class",
    "require_masks",
    "require_segmentations",
    "voc_mask_reader",
]

# Of a mask of which `holds_no_class` is true: what it holds.
NO_CLASS = "the values 0 and 255 alone: 255 is ignored, so no object is scored; write the class's number in place of 255"
# Of a mask that lies on its side: what to do.
TURNED = "one of the two is turned by 90°: where the photo has an EXIF orientation, turn its pixels and remove the mark"


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

    def unsegmented(self, image_ids: Sequence[str]) -> list[str]:
        """Those of the images of which it is known that objects have no mask; their masks are 255 throughout. May open them."""
        ...


@dataclass(frozen=True)
class VocMaskReader:
    """The masks of a data set in VOC layout, for evaluation only: those in `folder`, else those in `fallback`. `classes` as in
    `read_label_map`. `shrinks`: a mask of the photo's own size is shrunk to the size at which the run reads the photo."""

    root: Path
    folder: str = "SegmentationClass"
    fallback: str = ""
    classes: int | None = None
    shrinks: bool = False

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

        height and width are the size of what is scored against it. The PNG is read as `read_label_map` does. Raises DataError
        for a missing or damaged mask or another size, and MaskLeakError inside `forbid_mask_access`.
        """
        path = self._path(image_id)
        check_mask_access(path, "VocMaskReader.read")
        if not path.is_file():
            raise DataError(f"{path}: no mask for {image_id}; evaluate a split that has masks, or add it")
        mask = load_labels_png(path, self.classes)
        shrunk = shrunk_size(mask.shape[0], mask.shape[1], max(height, width))
        if self.shrinks and mask.shape != (height, width) == shrunk:
            mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
        if mask.shape != (height, width):
            raise DataError(
                f"{path}: the mask is {mask.shape[0]} high and {mask.shape[1]} wide, "
                f"expected {height} high and {width} wide as what is scored against it"
                + (f"; {TURNED}" if mask.shape == (width, height) else "")
            )
        return mask

    def unsegmented(self, image_ids: Sequence[str]) -> list[str]:
        """None: a mask of VOC does not tell."""
        return []

    def _path(self, image_id: str) -> Path:
        first = label_file(self.root / self.folder, check_image_id(image_id, "truth"))
        return label_file(self.root / self.fallback, image_id) if self.fallback and not first.is_file() else first


def voc_mask_reader(root: Path, split: str, class_names: tuple[str, ...]) -> VocMaskReader:
    """The masks of a split in VOC layout. The augmented training set has SBD's masks (SegmentationClassAug) where VOC has
    none; other splits are scored against VOC's own masks alone."""
    return VocMaskReader(root, fallback="SegmentationClassAug" if split in AUGMENTED else "", classes=len(class_names))


def folder_mask_reader(root: Path, split: str, class_names: tuple[str, ...]) -> VocMaskReader:
    """The masks beside a folder of photos, which may be of the photos' own size where a run shrinks these."""
    return replace(voc_mask_reader(root, split, class_names), shrinks=True)


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


def holds_no_class(mask: NDArray[np.uint8]) -> bool:
    """Whether a mask (H, W) holds 255 and no class: probably one of two values, whose objects are 255."""
    used = values_used(mask)
    return IGNORE in used and not ((used > 0) & (used < IGNORE)).any()


def require_masks(reader: MaskReader, split: str, ids: Sequence[str]) -> None:
    """DataError unless every image of `ids` has a mask; none is opened."""
    missing = [image for image in ids if not reader.has(image)]
    if missing:
        raise DataError(
            f"train.supervision=masks: {len(missing):,} of {len(ids):,} images of {split!r} have no mask in {reader.where}, "
            f"{missing[0]} first; add them, or train on a split that has masks: --set dataset.train_split=NAME"
        )


def require_segmentations(reader: MaskReader, split: str, ids: Sequence[str]) -> None:
    """DataError where objects of some image of `ids` have no mask: nothing could be learnt from it. May open the masks."""
    missing = reader.unsegmented(ids)
    if missing:
        raise DataError(
            f"train.supervision=masks: {len(missing):,} of {len(ids):,} images of {split!r} have objects without a "
            f"segmentation in {reader.where}, {missing[0]} first; add the segmentations, or leave train.supervision=masks out"
        )
