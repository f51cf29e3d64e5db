"""`yolo`: label maps as YOLO segmentation labels, as ultralytics reads them, with the photos.

    data.yaml         train and val (both `images`), names by number
    images/ID.jpg     the photos
    labels/ID.txt     a line for each connected region: class x y x y …, in parts of width and height

A class is counted from 0. A region is one polygon; a bridge without width leads to each of its holes. A photo without any class
has an empty file: YOLO learns it as background.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from excel_core.exports.label_maps import LabelMap
from excel_core.exports.outlines import one_ring, regions

__all__ = ["write_yolo"]

DATA = "# Both splits are the exported photos. For scores during training, export another split and name its folder as `val`.\n"


def write_yolo(folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap]) -> dict[str, Any]:
    """Write data.yaml and labels/ beside images/ → how many polygons."""
    (folder / "labels").mkdir()
    count = 0
    for label_map in maps:
        height, width = label_map.read(len(class_names)).shape
        lines = []
        for name, pixels in label_map.segments(class_names):
            for region in regions(pixels):
                numbers = (one_ring(region) / np.array([width, height])).ravel().tolist()
                lines.append(f"{class_names.index(name)} {' '.join(f'{number:.6g}' for number in numbers)}\n")
        (folder / "labels" / f"{label_map.id}.txt").write_text("".join(lines), encoding="utf-8")
        count += len(lines)
    names = "".join(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in enumerate(class_names))
    (folder / "data.yaml").write_text(f"{DATA}train: images\nval: images\nnames:\n{names}", encoding="utf-8")
    return {"polygons": count}
