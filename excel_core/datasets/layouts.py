"""The layouts a data folder can have: for each, how it is read, where its masks are, and what its reading depends on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from excel_core.config import DatasetSpec
from excel_core.datasets.coco import read_coco
from excel_core.datasets.coco_files import SOURCES, check_coco_layout, check_coco_splits
from excel_core.datasets.coco_mask_reader import coco_mask_reader
from excel_core.datasets.folder import check_folder, check_folder_splits, folder_class_names, folder_sources, read_folder
from excel_core.datasets.manifest import Manifest
from excel_core.datasets.masks import MaskReader, voc_mask_reader
from excel_core.datasets.voc import check_voc_layout, read_voc
from excel_core.datasets.voc_lists import check_voc_splits

__all__ = ["LAYOUTS", "Layout"]


@dataclass(frozen=True)
class Layout:
    """`read(root, splits, class_names, unlabelled=…)` → the manifest; `truth(root, split, class_names)` → the split's masks;
    `sources(root)`: files and folders under the root that `read` looks at; `check(root)`: DataError, in
    a moment, for a folder of another layout; `check_splits(root, spec, class_names)`: the same for a split that is not there;
    `class_names(root)`: the classes that the data folder itself tells."""

    read: Callable[..., Manifest]
    truth: Callable[[Path, str, tuple[str, ...]], MaskReader]
    sources: Callable[[Path], Sequence[str]]
    check: Callable[[Path], None]
    check_splits: Callable[[Path, DatasetSpec, Sequence[str]], None]
    class_names: Callable[[Path], tuple[str, ...]] | None = None


VOC = Layout(
    read_voc,
    voc_mask_reader,
    lambda root: ("JPEGImages", "Annotations", "ImageSets", "labels.csv"),
    lambda root: check_voc_layout(root, labels_needed=False),  # check_voc_splits knows which images need some
    check_voc_splits,
)
COCO = Layout(read_coco, coco_mask_reader, lambda root: SOURCES, check_coco_layout, check_coco_splits)
FOLDER = Layout(read_folder, voc_mask_reader, folder_sources, check_folder, check_folder_splits, folder_class_names)
LAYOUTS: dict[str, Layout] = {"voc": VOC, "world": VOC, "coco": COCO, "folder": FOLDER}
