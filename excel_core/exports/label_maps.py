"""What the formats of label maps are written from, and the names they give to classes and images."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from excel_core.datasets.palette import IGNORE, load_labels_png
from excel_core.errors import DataError

__all__ = ["LabelMap", "folder_names"]

# Names that Windows keeps for devices, whatever their case.
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class LabelMap:
    """An image's label map on disk: the image's id, the palette PNG, and the image file's name where it is known."""

    id: str
    path: Path
    file_name: str = ""

    def read(self, classes: int) -> NDArray[np.uint8]:
        """Labels (H, W) uint8, 0 background, i + 1 class i of `classes`; IGNORE becomes 0. DataError for any other value."""
        labels = load_labels_png(self.path)
        labels = np.where(labels == IGNORE, 0, labels).astype(np.uint8)
        if labels.max() > classes:
            raise DataError(f"{self.path}: holds the label {labels.max()}, but there are {classes} classes")
        return labels


def folder_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Class names as names of folders on any file system, all different there: `Potted/Plant` → `Potted_Plant`."""
    return _distinct(re.sub(r"[^\w.+-]+", "_", name).strip("._") or "class" for name in class_names)


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    taken: set[str] = set()
    found = []
    for name in names:
        wanted, count = name, 1
        while wanted.casefold() in taken | RESERVED:
            count += 1
            wanted = f"{name}_{count}"
        taken.add(wanted.casefold())
        found.append(wanted)
    return tuple(found)
