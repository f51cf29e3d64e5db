"""The masks of a COCO split, for evaluation only: painted image by image from its annotation file, which is parsed once."""

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from excel_core.datasets.coco_files import annotation_file
from excel_core.datasets.coco_json import LABEL_FIELDS, Photo, as_it_is, read_entries
from excel_core.datasets.coco_masks import Packed, Region, pack, paint, problem_of
from excel_core.datasets.masks import check_allowed
from excel_core.errors import DataError

__all__ = ["CocoMaskReader", "CocoMasks", "coco_mask_reader", "read_masks"]

MASK_FIELDS = {**LABEL_FIELDS, **dict.fromkeys(("iscrowd", "size", "counts"), as_it_is), "segmentation": pack}
SHOWN = 5  # how many broken annotations the log names


@dataclass(frozen=True)
class CocoMasks:
    """A parsed annotation file: each image's entry and regions by its id, and by annotation number what is wrong with its
    segmentation."""

    photos: dict[str, Photo]
    regions: dict[str, tuple[Region, ...]]
    problems: dict[int, str]


@dataclass(frozen=True)
class CocoMaskReader:
    """The masks of the images in an annotation file. What is broken in an annotation is left out, and logged once."""

    path: Path
    class_names: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"annotations/{self.path.name}"

    def has(self, image_id: str) -> bool:
        return self.path.is_file()  # every image that is listed is in it

    def version(self, image_id: str) -> Any:
        status = self.path.stat()
        return [status.st_size, status.st_mtime_ns]

    def read(self, image_id: str, height: int, width: int) -> NDArray[np.uint8]:
        """Mask of image_id → (height, width) uint8: 0 where no annotation is, i + 1 for class i.

        height and width are the size of what is scored against it. Raises DataError for an image that the file does not
        list or of another size, for a category that is no class, and as `read_entries`; MaskLeakError inside
        `forbid_mask_access`.
        """
        check_allowed(self.path, "CocoMaskReader.read")
        masks = _parsed_once(self.path, self.version(image_id), self.class_names)
        if image_id not in masks.photos:
            raise DataError(f"{self.path}: 'images' does not list {image_id}")
        photo = masks.photos[image_id]
        if (photo.height, photo.width) != (height, width):
            raise DataError(
                f"{self.path}: the masks of {image_id} are {photo.height} high and {photo.width} wide, "
                f"expected {height} high and {width} wide as what is scored against them"
            )
        return paint(masks.regions.get(image_id, ()), height, width)


def coco_mask_reader(root: Path, split: str, class_names: tuple[str, ...]) -> CocoMaskReader:
    """The masks of a split of the folder; of none where its annotation file is not there."""
    try:
        path = annotation_file(root, split)
    except DataError:
        path = root / "annotations" / f"instances_{split}.json"
    return CocoMaskReader(path, class_names)


def read_masks(path: Path, class_names: tuple[str, ...]) -> CocoMasks:
    """Parse an annotation file with its segmentations. Raises DataError as `read_entries` does, and for an annotation whose
    category is no class."""
    entries = read_entries(path, MASK_FIELDS)
    label_of = {name: index + 1 for index, name in enumerate(class_names)}
    regions: dict[int, list[Region]] = {}
    problems: dict[int, str] = {}
    for entry in entries.annotations:
        number, image, name = entry["id"], entry["image_id"], entries.categories[entry["category_id"]]
        if name not in label_of:
            raise DataError(f"{path}: annotation {number} is of the category {name!r}; valid: {', '.join(class_names)}")
        region = Region(number, label_of[name], bool(entry.get("iscrowd")), entry.get("segmentation", Packed()))
        regions.setdefault(image, []).append(region)
        problem = problem_of(region.packed, entries.photos[image].height, entries.photos[image].width)
        if problem:
            problems[number] = problem
    photos = {photo.id: photo for photo in entries.photos.values()}
    return CocoMasks(photos, {entries.photos[image].id: tuple(found) for image, found in regions.items()}, problems)


_lock = Lock()


def _parsed_once(path: Path, version: list[int], class_names: tuple[str, ...]) -> CocoMasks:
    with _lock:  # threads that want the same file wait for one of them to parse it
        return _parsed(path, tuple(version), class_names)


@lru_cache(maxsize=2)  # a training and a validation split
def _parsed(path: Path, version: tuple[int, ...], class_names: tuple[str, ...]) -> CocoMasks:
    """`version` is there for the cache alone."""
    masks = read_masks(path, class_names)
    if masks.problems:
        some = "; ".join(f"annotation {number}: {problem}" for number, problem in list(masks.problems.items())[:SHOWN])
        logging.getLogger(__name__).warning(
            "%s: %d annotations are broken; what is broken is left out of the masks (%s)", path.name, len(masks.problems), some
        )
    return masks
