"""The layouts a data folder can have: for each, how it is read, where its masks are, and what its reading depends on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from excel_core.datasets.manifest import Manifest
from excel_core.datasets.truth import Truth, TruthDoor
from excel_core.datasets.voc import read_voc

__all__ = ["LAYOUTS", "Layout"]


@dataclass(frozen=True)
class Layout:
    """`read(root, splits, class_names, unlabelled=…)` → the manifest; `truth(root, split, class_names)` → the split's masks;
    `sources`: files and folders under the root that `read` looks at; `class_names(root)`: the classes that the data folder
    itself tells, where it does."""

    read: Callable[..., Manifest]
    truth: Callable[[Path, str, tuple[str, ...]], Truth]
    sources: tuple[str, ...]
    class_names: Callable[[Path], tuple[str, ...]] | None = None


VOC = Layout(
    read_voc, lambda root, split, class_names: TruthDoor(root), ("JPEGImages", "Annotations", "ImageSets", "labels.csv")
)
LAYOUTS: dict[str, Layout] = {"voc": VOC, "world": VOC}
