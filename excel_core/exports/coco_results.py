"""`coco-results`: label maps as COCO results, one segment per class and image.

    results.json   [{image_id, category_id, segmentation: {size: [H, W], counts}, score: 1.0}]   run lengths
    dataset.json   {images: [{id, width, height, file_name}], categories: [{id, name}], annotations: []}: what the numbers mean

`COCO("dataset.json").loadRes("results.json")` of pycocotools reads the two. A label map has no confidence: every score is 1.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from excel_core.datasets.run_lengths import encode_mask
from excel_core.exports.coco_numbers import CocoIndex, CocoNumbers
from excel_core.exports.label_maps import LabelMap

__all__ = ["write_coco_results"]


def write_coco_results(
    folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap], numbers: CocoNumbers | None = None
) -> dict[str, Any]:
    """Write results.json and dataset.json. Without `numbers`, images and classes are counted from 1 in their order.

    SettingError for an image or class that `numbers` does not know.
    """
    index = CocoIndex(class_names, numbers)
    results: list[dict[str, Any]] = []
    for label_map in maps:
        number = index.add(label_map)
        for class_name, pixels in label_map.segments(class_names):
            ids = {"image_id": number, "category_id": index.class_numbers[class_name]}
            results.append(ids | {"segmentation": encode_mask(pixels), "score": 1.0})
    dataset = {
        "info": {"description": "label maps by excel; the results are in results.json"},
        "images": index.images,
        "categories": index.categories,
        "annotations": [],
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset, ensure_ascii=False), encoding="utf-8")
    return index.about | {"segments": len(results)}
