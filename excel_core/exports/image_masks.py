"""`fiftyone`: photos and masks beside each other, in FiftyOne's ImageSegmentationDirectory layout.

    data/ID.jpg          the photos
    labels/ID.png        greyscale, 0 background, i + 1 class i: the value is the class in every reader
    mask_targets.json    {value: class}, for `dataset.default_mask_targets`

Any training code that pairs files by name reads it too.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from excel_core.exports.label_maps import LabelMap

__all__ = ["write_image_masks"]


def write_image_masks(folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap]) -> dict[str, Any]:
    """Write labels/ and mask_targets.json beside data/ → the meaning of the values."""
    (folder / "labels").mkdir()
    for label_map in maps:
        # Not a palette PNG: OpenCV, with which FiftyOne reads, makes colours of it.
        Image.fromarray(label_map.read(len(class_names))).save(folder / "labels" / f"{label_map.id}.png")
    names = ["background", *class_names]
    targets = {str(value): name for value, name in enumerate(names)}
    (folder / "mask_targets.json").write_text(json.dumps(targets, indent=2, ensure_ascii=False), encoding="utf-8")
    return {"labels": names}
