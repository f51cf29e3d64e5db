"""Segmentation masks: the mask readers of evaluation, and a guard that stops everyone else from opening a mask.

Evaluation runs outside the guard and reads masks through a `MaskReader`; every other stage runs inside
`forbid_mask_access`. No permission is handed around: the two never overlap in one process. There is one explicit
exemption: COCO keeps labels and masks in one file. The stage that reads labels may open that file, and its reader
(coco_json.py) keeps no mask.

What the guard sees: every file that Python opens (open, Path, os.open, Pillow, np.load, np.fromfile,
np.memmap), in any thread and in forked workers. What it does not: C code that opens files by itself
(cv2.imread, torchvision.io, pyarrow), spawned processes that did not enter the guard themselves, and a
hard link or copy of a mask elsewhere. excel reads every picture through a file that Python opened.
"""

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from excel_core.datasets.manifest import check_image_id
from excel_core.datasets.palette import load_labels_png
from excel_core.datasets.published_voc import AUGMENTED
from excel_core.errors import DataError, MaskLeakError

__all__ = [
    "LABELS_IN_MASK_FILES",
    "MASK_FILES",
    "MASK_FOLDERS",
    "MaskReader",
    "TrueMask",
    "VocMaskReader",
    "check_mask_access",
    "forbid_mask_access",
    "require_masks",
    "voc_mask_reader",
]

# Names under which VOC and its augmented set keep masks; protected wherever they are.
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug", "SegmentationObject")
_NAMES = frozenset(name.casefold() for name in MASK_FOLDERS)  # some file systems ignore case
MASK_FILES = ("instances_*.json", "person_keypoints_*.json", "panoptic_*.json", "stuff_*.json")  # COCO's
LABELS_IN_MASK_FILES = ("instances_*.json",)  # those of MASK_FILES that hold the image-level labels as well


class MaskReader(Protocol):
    """The masks of one split, for evaluation only. Only `read` opens a mask, and never inside `forbid_mask_access`."""

    @property
    def where(self) -> str:
        """Where the masks are, in the words of a message."""
        ...

    def has(self, image_id: str) -> bool:
        """Whether there is a mask of this image of the split."""
        ...

    def version(self, image_id: str) -> Any:
        """Plain data that changes when the image's mask does: sizes and times of change."""
        ...

    def read(self, image_id: str, height: int, width: int) -> NDArray[np.uint8]:
        """The image's mask (height, width) uint8: 0 background, i + 1 for class i, 255 ignore."""
        ...


@dataclass(frozen=True)
class VocMaskReader:
    """The masks of a data set in VOC layout, for evaluation only: those in `folder`, else those in `fallback`."""

    root: Path
    folder: str = "SegmentationClass"
    fallback: str = ""

    @property
    def where(self) -> str:
        return f"{self.folder} or {self.fallback}" if self.fallback else self.folder

    def has(self, image_id: str) -> bool:
        return self._path(image_id).is_file()

    def version(self, image_id: str) -> Any:
        status = self._path(image_id).stat()
        return [status.st_size, status.st_mtime_ns]

    def read(self, image_id: str, height: int, width: int) -> NDArray[np.uint8]:
        """Mask of image_id → (height, width) uint8: 0 background, i + 1 for class i, 255 ignore.

        height and width are the size of what is scored against it. A PNG saved as RGB is decoded
        through the VOC palette. Raises DataError for a missing or damaged mask or another size, and
        MaskLeakError inside `forbid_mask_access`.
        """
        path = self._path(image_id)
        check_mask_access(path, "VocMaskReader.read")
        if not path.is_file():
            raise DataError(f"{path}: no mask for {image_id}; evaluate a split that has masks, or add it")
        mask = load_labels_png(path)
        if mask.shape != (height, width):
            raise DataError(
                f"{path}: the mask is {mask.shape[0]} high and {mask.shape[1]} wide, "
                f"expected {height} high and {width} wide as what is scored against it"
            )
        return mask

    def _path(self, image_id: str) -> Path:
        name = f"{check_image_id(image_id, 'truth')}.png"
        first = self.root / self.folder / name
        return self.root / self.fallback / name if self.fallback and not first.is_file() else first


def voc_mask_reader(root: Path, split: str, class_names: tuple[str, ...]) -> VocMaskReader:
    """The masks of a split in VOC layout. The augmented training set has SBD's masks (SegmentationClassAug) where VOC has
    none; other splits are scored against VOC's own masks alone."""
    return VocMaskReader(root, fallback="SegmentationClassAug" if split in AUGMENTED else "")


@dataclass(frozen=True)
class TrueMask:
    """One image's mask (height, width), not read yet: the target of the fully supervised mode."""

    reader: MaskReader
    image_id: str
    height: int
    width: int

    def read(self) -> NDArray[np.uint8]:
        """(height, width) uint8: 0 background, i + 1 for class i, 255 ignore; errors as of the reader."""
        return self.reader.read(self.image_id, self.height, self.width)


def require_masks(reader: MaskReader, split: str, ids: Sequence[str]) -> None:
    """DataError unless every image of `ids` has a mask; none is opened."""
    missing = [image for image in ids if not reader.has(image)]
    if missing:
        raise DataError(
            f"train.supervision=masks: {len(missing):,} of {len(ids):,} images of {split!r} have no mask in {reader.where}, "
            f"{missing[0]} first; add them, or train on a split that has masks: --set dataset.train_split=NAME"
        )


def check_mask_access(path: Path, how: str) -> None:
    """Raise MaskLeakError inside `forbid_mask_access`, whatever it exempts; `how` names the caller that reads `path`. A mask
    reader calls this first: what it has in memory opens no file, so that the hook would not see it."""
    for guard in _snapshot():
        raise MaskLeakError(_message(guard, str(path), how))


@contextmanager
def forbid_mask_access(*mask_folders: Path, stage: str = "this stage", exempt: Collection[str] = ()) -> Iterator[None]:
    """While active, opening a mask anywhere in the process raises MaskLeakError.

    Protected are the folders named in MASK_FOLDERS and mask_folders, and the files named in MASK_FILES but for the
    patterns in `exempt`; each under its own name and under the path that its symbolic links lead to. The error names
    `stage`. Guards may be nested, where the strictest counts, and may be active in several threads at once.
    A folder of pseudo labels needs another name.
    """
    _install()
    folders = {path for folder in mask_folders for path in _absolute_paths(os.fspath(folder))}
    files = tuple(pattern for pattern in MASK_FILES if pattern not in exempt)
    token = object()  # the same guard may be entered twice
    _active[token] = _Guard(stage, tuple(sorted(folders)), files)
    try:
        yield
    finally:
        del _active[token]


@dataclass(frozen=True)
class _Guard:
    stage: str
    folders: tuple[str, ...]  # absolute, as named and as resolved
    files: tuple[str, ...]  # patterns of file names

    def protects(self, path: str) -> bool:
        """Whether the absolute path is a mask folder, lies in one, or is a file of masks."""
        if any(path == folder or path.startswith(folder + os.sep) for folder in self.folders):
            return True
        names = path.casefold().split(os.sep)
        return not _NAMES.isdisjoint(names) or any(fnmatchcase(names[-1], pattern) for pattern in self.files)


# Insertion, deletion and list(values()) are atomic, so no lock: the hook runs inside every open, and a
# lock that another thread holds at a fork would stay locked in the worker for ever.
_active: dict[object, _Guard] = {}
_installed: list[bool] = []


def _snapshot() -> list[_Guard]:
    return list(_active.values())


def _install() -> None:
    """Add the audit hook once; a hook cannot be removed, so it is idle while no guard is active."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_watch)


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: raising here stops the open before it happens."""
    if event != "open" or not _active:
        return
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return  # a file descriptor: whoever opened it went through here
    for absolute in _absolute_paths(os.fsdecode(path)):
        for guard in _snapshot():
            if guard.protects(absolute):
                raise MaskLeakError(_message(guard, absolute, "open"))


def _absolute_paths(path: str) -> tuple[str, str]:
    """The absolute path as it is written, and where its symbolic links lead."""
    return os.path.abspath(path), os.path.realpath(path)


def _message(guard: _Guard, path: str, how: str) -> str:
    return (
        f"{guard.stage}: {how} of the segmentation mask {path}, but only evaluation may see masks; "
        "take labels from labels.csv, Annotations or read_coco, and score in the evaluate stage, outside forbid_mask_access"
    )
