"""A small COCO folder made here: images, and an annotation file that a test can spoil."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

CLASSES = ("person", "traffic light", "dog")
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 10, "name": "traffic light"}, {"id": 18, "name": "dog"}]
SIZE = (24, 32)  # height, width


def square(x: float, y: float, side: float) -> list[list[float]]:
    """A segmentation of one square polygon."""
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def annotation(number: int, image: int, category: int, segmentation: Any = None, **more: Any) -> dict[str, Any]:
    found = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, "area": 1.0, "bbox": [0, 0, 1, 1]}
    return found | {"segmentation": square(2, 3, 8) if segmentation is None else segmentation} | more


def document(count: int = 4, prefix: str = "a") -> dict[str, Any]:
    """`count` images; the first has a person and a dog, the last nothing, the others a traffic light."""
    images = [{"id": 10 * i, "file_name": f"{prefix}{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in range(count)]
    annotations = [annotation(1, 0, 18), annotation(2, 0, 1, square(4, 4, 4))]
    annotations += [annotation(10 + i, 10 * i, 10) for i in range(1, count - 1)]
    return {"info": {"year": 2014}, "images": images, "categories": CATEGORIES, "annotations": annotations}


def write(root: Path, name: str, content: dict[str, Any], folder: str = "") -> Path:
    """Write instances_NAME.json, and its images into NAME/ or `folder`."""
    file = root / "annotations" / f"instances_{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    for entry in content["images"]:
        path = root / (folder or name) / entry["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIZE[1], SIZE[0]), (entry["id"] % 256, 0, 0)).save(path)
    return file
