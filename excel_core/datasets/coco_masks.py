"""COCO's masks, for evaluation only: the segmentations of an annotation file, painted into one semantic mask per image.

A pixel of several regions is the smallest's, and crowds lie below all others (docs/method.md, section 6). An annotation file
is parsed once; what is broken in a segmentation is left out of the masks and logged. Where an object has no segmentation at
all, as in exports of boxes alone, or none of which anything is sound, nobody knows its pixels: the whole image is 255, which
no score counts.
"""

import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from excel_core.datasets.coco import annotation_file
from excel_core.datasets.coco_json import LABEL_FIELDS, Photo, read_entries, unchanged
from excel_core.datasets.mask_guard import check_mask_access
from excel_core.datasets.palette import IGNORE
from excel_core.datasets.run_lengths import Runs, counts_of, inside, read_runs, runs_problem
from excel_core.errors import DataError

__all__ = [
    "MISSING",
    "CocoMaskReader",
    "CocoMasks",
    "Region",
    "coco_mask_reader",
    "pack",
    "paint",
    "problem_of",
    "read_masks",
]

MAX_COORDINATE = 1e5  # pixels; rasterising walks along edges, so that a wild coordinate would take for ever
MAX_OUTLINE = 1e6  # pixels along the edges of a polygon; pycocotools takes 40 bytes for each, and asks nobody
MIN_POINTS = 3  # of a polygon
MAX_BROKEN = 5  # annotations that the log names


@dataclass(frozen=True, slots=True)
class PackedSegmentation:
    """A segmentation as it is kept: polygons (float64 x, y, x, y … in pixels, as bytes) or runs, as far as they are sound,
    and what is wrong with the rest."""

    shape: tuple[bytes, ...] | Runs = ()
    problem: str = ""


MISSING = PackedSegmentation(problem="no segmentation")


@dataclass(frozen=True, slots=True)
class Region:
    """An annotation of an image: its number, the label of its pixels, whether it is a crowd, and its segmentation."""

    number: int
    label: int
    crowd: bool
    packed: PackedSegmentation


@dataclass(frozen=True)
class CocoMasks:
    """A parsed annotation file: each image's entry and regions by its id, by annotation number what is wrong with its
    segmentation, and the images of which some object has none, or none that can be drawn."""

    photos: dict[str, Photo]
    regions: dict[str, tuple[Region, ...]]
    problems: dict[int, str]
    unknown: frozenset[str]


@dataclass(frozen=True)
class CocoMaskReader:
    """The masks of the images in an annotation file. A polygon that is broken is left out, and logged once."""

    path: Path
    class_names: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"annotations/{self.path.name}"

    def has(self, image_id: str) -> bool:
        return self.path.is_file()  # it lists every image of its split

    def version(self, image_id: str) -> Any:
        status = self.path.stat()
        return [status.st_size, status.st_mtime_ns]

    def read(self, image_id: str, height: int, width: int) -> NDArray[np.uint8]:
        """Mask of image_id → (height, width) uint8: 0 where no annotation is, i + 1 for class i; 255 throughout where an
        annotation has no segmentation, or none that can be drawn.

        height and width are the size of what is scored against it. Raises DataError for an image that the file does not
        list or of another size, for a category that is no class, and as `read_entries`; MaskLeakError inside
        `forbid_mask_access`.
        """
        masks = self._masks("read")
        if image_id not in masks.photos:
            raise DataError(f"{self.path}: 'images' does not list {image_id}")
        photo = masks.photos[image_id]
        if (photo.height, photo.width) != (height, width):
            raise DataError(
                f"{self.path}: the masks of {image_id} are {photo.height} high and {photo.width} wide, "
                f"expected {height} high and {width} wide as what is scored against them"
            )
        if image_id in masks.unknown:
            return np.full((height, width), IGNORE, dtype=np.uint8)
        return paint(masks.regions.get(image_id, ()), height, width)

    def unsegmented(self, image_ids: Sequence[str]) -> list[str]:
        """Those of the images that have an annotation without a segmentation that can be drawn. Errors as of `read`."""
        unknown = self._masks("unsegmented").unknown
        return [image_id for image_id in image_ids if image_id in unknown]

    def _masks(self, caller: str) -> CocoMasks:
        check_mask_access(self.path, f"CocoMaskReader.{caller}")
        return _parsed_once(self.path, self.version(""), self.class_names)


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
    # Packed while the file is parsed: polygons as Python lists of floats need four times the memory.
    mask_fields = {**LABEL_FIELDS, **dict.fromkeys(("iscrowd", "size", "counts"), unchanged), "segmentation": pack}
    entries = read_entries(path, mask_fields)
    label_of = {name: index + 1 for index, name in enumerate(class_names)}
    regions: dict[int, list[Region]] = {}
    problems: dict[int, str] = {}
    unknown: set[int] = set()
    for entry in entries.annotations:
        number, image, name = entry["id"], entry["image_id"], entries.categories[entry["category_id"]]
        if name not in label_of:
            raise DataError(f"{path}: annotation {number} is of the category {name!r}; valid: {', '.join(class_names)}")
        region = Region(number, label_of[name], bool(entry.get("iscrowd")), entry.get("segmentation", MISSING))
        regions.setdefault(image, []).append(region)
        problem = problem_of(region.packed, entries.photos[image].height, entries.photos[image].width)
        if problem:
            problems[number] = problem
        if not _has_sound_part(region.packed, problem):
            unknown.add(image)
    photos = {photo.id: photo for photo in entries.photos.values()}
    regions_by_id = {entries.photos[image].id: tuple(of_image) for image, of_image in regions.items()}
    return CocoMasks(photos, regions_by_id, problems, frozenset(entries.photos[image].id for image in unknown))


def _has_sound_part(packed: PackedSegmentation, problem: str) -> bool:
    """Whether anything of a segmentation can be drawn, given its problem: some of its polygons, or all of its runs."""
    return not problem if isinstance(packed.shape, Runs) else bool(packed.shape)


_parsing = Lock()


def _parsed_once(path: Path, version: list[int], class_names: tuple[str, ...]) -> CocoMasks:
    with _parsing:  # several threads want the same file: one parses it, the others wait
        return _parsed(path, tuple(version), class_names)


@lru_cache(maxsize=2)  # a training and a validation split
def _parsed(path: Path, version: tuple[int, ...], class_names: tuple[str, ...]) -> CocoMasks:
    """`version` is part of the cache's key alone, so that a changed file is parsed again."""
    masks = read_masks(path, class_names)
    if masks.problems:
        examples = [f"annotation {number}: {problem}" for number, problem in masks.problems.items()][:MAX_BROKEN]
        logging.getLogger(__name__).warning(
            "%s: %d annotations are broken; what is broken is left out of the masks (%s)",
            path.name, len(masks.problems), "; ".join(examples),
        )  # fmt: skip
    return masks


def pack(segmentation: Any) -> PackedSegmentation:
    """A parsed segmentation (list of polygons, or RLE) → what is sound of it. Raises nothing."""
    if not segmentation:
        return MISSING
    if isinstance(segmentation, dict):
        runs = read_runs(segmentation)
        return PackedSegmentation(problem=runs) if isinstance(runs, str) else PackedSegmentation(runs)
    if not isinstance(segmentation, list):
        return PackedSegmentation(problem="a segmentation that is neither polygons nor RLE")
    sound, problems = [], []
    for polygon in segmentation:
        problem = _polygon_problem(polygon)
        if problem:
            problems.append(problem)
        else:
            sound.append(array("d", polygon).tobytes())
    return PackedSegmentation(tuple(sound), ", ".join(dict.fromkeys(problems)))


def problem_of(packed: PackedSegmentation, height: int, width: int) -> str:
    """What is wrong with a segmentation of an image of this size; "" for nothing."""
    runs = packed.shape
    if packed.problem or not isinstance(runs, Runs):
        return packed.problem
    return runs_problem(runs, height, width)


def rle_of(packed: PackedSegmentation, height: int, width: int) -> dict[str, Any] | None:
    """A segmentation rasterised: COCO's compressed RLE; None where nothing of it is sound."""
    from pycocotools import mask as pycoco  # needed for masks alone: labels are read without

    if isinstance(packed.shape, Runs):
        if problem_of(packed, height, width):
            return None
        plain = {"size": [height, width], "counts": list(counts_of(packed.shape) or ())}
        return dict(pycoco.frPyObjects(plain, height, width))
    polygons = [np.frombuffer(polygon).tolist() for polygon in packed.shape]
    return dict(pycoco.merge(pycoco.frPyObjects(polygons, height, width))) if polygons else None


def paint(regions: Sequence[Region], height: int, width: int) -> NDArray[np.uint8]:
    """Regions → their labels (height, width) uint8, 0 elsewhere; crowds lie below, and smaller regions above larger ones."""
    from pycocotools import mask as pycoco

    rasterised = [(region, rle_of(region.packed, height, width)) for region in regions]
    drawable = [(region, rle) for region, rle in rasterised if rle is not None]
    # Painted from back to front: crowds, then from large to small; of equal ones the later number lies above.
    drawable.sort(key=lambda pair: (not pair[0].crowd, -int(pycoco.area(pair[1])), pair[0].number))
    mask = np.zeros((height, width), dtype=np.uint8)
    for region, rle in drawable:
        mask[inside(Runs(height, width, rle["counts"].decode("ascii")))] = region.label
    return mask


def _polygon_problem(polygon: Any) -> str:
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {float, int}:
        return "a polygon that is no list of numbers"
    if len(polygon) % 2:
        return "a polygon with an x without a y"
    if len(polygon) < 2 * MIN_POINTS:
        return f"a polygon of fewer than {MIN_POINTS} points"
    if not all(-MAX_COORDINATE <= value <= MAX_COORDINATE for value in polygon):  # NaN is not
        return "a polygon with a coordinate that is not finite or far outside"
    # First what the outline is at most, since of millions of polygons nearly all are small.
    if len(polygon) * (max(polygon) - min(polygon)) > MAX_OUTLINE and _outline(polygon) > MAX_OUTLINE:
        return f"a polygon with an outline of more than {MAX_OUTLINE:,.0f} pixels"
    return ""


def _outline(polygon: list[float]) -> float:
    """Length along the closed polygon's edges, each by its longer side."""
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
