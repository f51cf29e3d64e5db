"""`coco`: label maps as a COCO annotation file, one annotation for each connected region of a class.

    annotations.json   {images: [{id, width, height, file_name}], categories: [{id, name}],
                        annotations: [{id, image_id, category_id, segmentation: [[x, y, …]], area, bbox, iscrowd: 0}]}

A segmentation is one polygon along the edges of the pixels; a bridge without width leads to each hole. pycocotools fills it
with the label map's pixels, and no others. `area` counts pixels; `bbox` is x, y, width, height.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from excel_core.exports.coco_numbers import CocoIndex, CocoNumbers
from excel_core.exports.label_maps import LabelMap
from excel_core.exports.outlines import Region, one_ring, regions

__all__ = ["write_coco"]


def write_coco(
    folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap], numbers: CocoNumbers | None = None
) -> dict[str, Any]:
    """Write annotations.json. Without `numbers`, images and classes are counted from 1 in their order.

    SettingError for an image or class that `numbers` does not know.
    """
    index, count = CocoIndex(class_names, numbers), 0
    with (folder / "annotations.json").open("w", encoding="utf-8") as file:
        # Written as it goes: the annotations of a large data set take gigabytes in memory.
        file.write('{"info": {"description": "label maps by excel; a connected region of a class is an annotation"},\n')
        file.write(f'"categories": {json.dumps(index.categories, ensure_ascii=False)},\n"annotations": [')
        for label_map in maps:
            number = index.add(label_map)
            for class_name, region in _regions(label_map, class_names):
                count += 1
                ids = {"id": count, "image_id": number, "category_id": index.class_numbers[class_name]}
                file.write(",\n" if count > 1 else "\n")
                file.write(json.dumps(ids | _shape(region)))
        file.write(f'],\n"images": {json.dumps(index.images, ensure_ascii=False)}}}\n')
    return index.about | {"annotations": count}


def _regions(label_map: LabelMap, class_names: Sequence[str]) -> Iterator[tuple[str, Region]]:
    return ((name, region) for name, pixels in label_map.segments(class_names) for region in regions(pixels))


def _shape(region: Region) -> dict[str, Any]:
    polygon = one_ring(region).ravel().tolist()
    return {"segmentation": [polygon], "area": region.area, "bbox": list(region.box), "iscrowd": 0}
