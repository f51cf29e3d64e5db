"""`binary`: a mask a class and image, CLASS/ID.png, greyscale 0 or 255, where the image has any pixel of the class."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from excel_core.exports.label_maps import LabelMap, folder_names

__all__ = ["write_binary"]


def write_binary(folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap]) -> dict[str, Any]:
    """Fill folder/CLASS/ID.png; a class without any pixel has an empty folder → which folder is which class."""
    folders = folder_names(class_names)
    for name in folders:
        (folder / name).mkdir()
    for found in maps:
        labels = found.read(len(class_names))
        for value in np.unique(labels[labels > 0]).tolist():
            mask = np.where(labels == value, 255, 0).astype(np.uint8)
            Image.fromarray(mask).save(folder / folders[value - 1] / f"{found.id}.png")
    return {"folders": dict(zip(folders, class_names, strict=True))}
