"""`coco`: label maps as COCO results, one segment per class and image.

    results.json   [{image_id, category_id, segmentation: {size: [H, W], counts}, score: 1.0}]   run lengths by pycocotools
    dataset.json   {images: [{id, width, height, file_name}], categories: [{id, name}], annotations: []}: what the numbers mean

`COCO("dataset.json").loadRes("results.json")` of pycocotools reads the two. A label map has no confidence: every score is 1.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from excel_core.config import DatasetSpec
from excel_core.datasets.coco import annotation_file, unlabelled_source
from excel_core.datasets.coco_json import read_entries
from excel_core.errors import DataError, SettingError
from excel_core.exports.label_maps import LabelMap

__all__ = ["CocoNumbers", "coco_numbers", "write_coco"]


@dataclass(frozen=True)
class CocoNumbers:
    """The numbers that a data set gives to its images, by id, and to its categories, by name."""

    images: dict[str, int]
    categories: dict[str, int]


def coco_numbers(root: Path, spec: DatasetSpec, split: str) -> CocoNumbers | None:
    """The numbers that the annotation files under root give to the images of `split` and to the training split's categories.

    None for another layout than coco, and where no annotation file lists the images. DataError where root is not there.
    """
    if spec.layout != "coco":
        return None
    if not root.is_dir():
        raise DataError(f"{root}: the run's data, whose annotation files hold the official numbers, are not there any more")
    source = unlabelled_source(root, split) if split in spec.test_splits else annotation_file(root, split)
    if source.is_dir():
        return None
    photos = read_entries(source, annotated=False).photos
    categories = read_entries(annotation_file(root, spec.train_split)).categories
    images = {photo.id: number for number, photo in photos.items()}
    return CocoNumbers(images, {name: number for number, name in categories.items()})


def write_coco(
    folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap], numbers: CocoNumbers | None = None
) -> dict[str, Any]:
    """Write results.json and dataset.json. Without `numbers`, images and classes are counted from 1 in their order.

    SettingError for an image or class that `numbers` does not know.
    """
    categories = _categories(class_names, numbers)
    results: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for position, label_map in enumerate(maps):
        number = position + 1 if numbers is None else _number_of(label_map.id, numbers.images, "image")
        labels = label_map.read(len(class_names))
        height, width = labels.shape
        name = label_map.file_name or f"{label_map.id}.png"
        images.append({"id": number, "width": width, "height": height, "file_name": name})
        for value in np.unique(labels[labels > 0]).tolist():
            segment = {"size": [height, width], "counts": run_lengths(labels == value)}
            category = categories[class_names[value - 1]]
            results.append({"image_id": number, "category_id": category, "segmentation": segment, "score": 1.0})
    dataset = {
        "info": {"description": "label maps by excel; the results are in results.json"},
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": [],
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset, ensure_ascii=False), encoding="utf-8")
    return {"numbers": "the data set's own" if numbers else "counted from 1", "segments": len(results)}


def run_lengths(mask: NDArray[np.bool_]) -> str:
    """mask (H, W) → COCO's compressed run lengths, column by column."""
    try:
        from pycocotools import mask as coder
    except ImportError:
        raise SettingError("COCO's run lengths need pycocotools, which is not installed: pip install pycocotools") from None
    counts: bytes = coder.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts.decode("ascii")


def _categories(class_names: Sequence[str], numbers: CocoNumbers | None) -> dict[str, int]:
    if numbers is None:
        return {name: position + 1 for position, name in enumerate(class_names)}
    return {name: _number_of(name, numbers.categories, "class") for name in class_names}


def _number_of(name: str, numbers: dict[str, int], kind: str) -> int:
    if name not in numbers:
        raise SettingError(f"the {kind} {name!r} has no number in the data's annotation file; is it still the run's data?")
    return numbers[name]
