"""`coco`: label maps as COCO results, one segment a class and image.

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

from excel_core.errors import SettingError
from excel_core.exports.label_maps import LabelMap

__all__ = ["CocoNumbers", "write_coco"]


@dataclass(frozen=True)
class CocoNumbers:
    """The numbers that a data set gives to its images, by id, and to its categories, by name."""

    images: dict[str, int]
    categories: dict[str, int]


def write_coco(
    folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap], numbers: CocoNumbers | None = None
) -> dict[str, Any]:
    """Write results.json and dataset.json. Without `numbers`, images and classes are counted from 1 in their order.

    SettingError for an image or class that `numbers` does not know.
    """
    categories = _categories(class_names, numbers)
    results: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for position, found in enumerate(maps):
        number = position + 1 if numbers is None else _known(numbers.images, found.id, "image")
        labels = found.read(len(class_names))
        height, width = labels.shape
        name = found.file_name or f"{found.id}.png"
        images.append({"id": number, "width": width, "height": height, "file_name": name})
        for value in np.unique(labels[labels > 0]).tolist():
            segment = {"size": [height, width], "counts": run_lengths(labels == value)}
            category = categories[class_names[value - 1]]
            results.append({"image_id": number, "category_id": category, "segmentation": segment, "score": 1.0})
    listed = [{"id": number, "name": name} for name, number in categories.items()]
    about = "label maps by excel; the results are in results.json"
    dataset = {"info": {"description": about}, "images": images, "categories": listed, "annotations": []}
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
    return {name: _known(numbers.categories, name, "class") for name in class_names}


def _known(numbers: dict[str, int], name: str, what: str) -> int:
    if name not in numbers:
        raise SettingError(f"the {what} {name!r} has no number in the data's annotation file; is it still the run's data?")
    return numbers[name]
