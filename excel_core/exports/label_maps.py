"""Label maps on disk, and the two formats that are plain PNGs of them.

palette   ID.png          VOC's colours: 0 background, i + 1 class i, as in VOC's own masks
binary    CLASS/ID.png    greyscale 0 or 255, where the image has any pixel of the class
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.datasets.palette import IGNORE, load_labels_png
from excel_core.errors import DataError

__all__ = ["LabelMap", "folder_names", "write_binary", "write_palette"]

# Names that Windows keeps for devices, whatever their case.
RESERVED_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class LabelMap:
    """An image's label map on disk: the image's id, the palette PNG, the image file's name where it is known, and the image
    file where it is taken along."""

    id: str
    path: Path
    file_name: str = ""
    photo: Path | None = None

    def read(self, classes: int) -> NDArray[np.uint8]:
        """Labels (H, W) uint8, 0 background, i + 1 class i of `classes`; IGNORE becomes 0. DataError for any other value."""
        labels = load_labels_png(self.path)
        labels = np.where(labels == IGNORE, 0, labels).astype(np.uint8)
        if labels.max() > classes:
            raise DataError(f"{self.path}: holds the label {labels.max()}, but there are {classes} classes")
        return labels

    def segments(self, class_names: Sequence[str]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Each class that the label map holds, in class order, with its pixels (H, W)."""
        labels = self.read(len(class_names))
        for value in np.unique(labels[labels > 0]).tolist():
            yield class_names[value - 1], labels == value


def write_palette(folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap]) -> dict[str, Any]:
    """Copy each label map to folder/ID.png → the meaning of their values."""
    for label_map in maps:
        label_map.read(len(class_names))  # raises for a damaged one, which is not handed on
        shutil.copyfile(label_map.path, folder / f"{label_map.id}.png")
    return {"labels": ["background", *class_names]}


def write_binary(folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap]) -> dict[str, Any]:
    """Fill folder/CLASS/ID.png; a class without any pixel has an empty folder → which folder is which class."""
    folders = folder_names(class_names)
    for name in folders:
        (folder / name).mkdir()
    for label_map in maps:
        labels = label_map.read(len(class_names))
        for value in np.unique(labels[labels > 0]).tolist():
            mask = np.where(labels == value, 255, 0).astype(np.uint8)
            Image.fromarray(mask).save(folder / folders[value - 1] / f"{label_map.id}.png")
    return {"folders": dict(zip(folders, class_names, strict=True))}


def folder_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Class names as names of folders on any file system, all different there: `Potted/Plant` → `Potted_Plant`."""
    used_names = set(RESERVED_NAMES)
    names = []
    for class_name in class_names:
        plain = re.sub(r"[^\w.+-]+", "_", class_name).strip("._") or "class"
        name, count = plain, 1
        while name.casefold() in used_names:
            count += 1
            name = f"{plain}_{count}"
        used_names.add(name.casefold())
        names.append(name)
    return tuple(names)
