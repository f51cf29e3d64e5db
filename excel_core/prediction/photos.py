"""Single photos of a user: their files, the names of their results, and label maps enlarged to the photo's size."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.errors import SettingError

__all__ = ["Photo", "enlarge_labels", "find_photos"]

MAX_STEM_BYTES = 200  # of a result's name
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}  # of the photos in a folder


@dataclass(frozen=True)
class Photo:
    """A photo's file, and the name of its results: the file's without suffix, with a number where several photos share it."""

    path: Path
    name: str


def find_photos(paths: Sequence[Path], endings: Sequence[str] = ("",)) -> list[Photo]:
    """Photos and folders of photos → the photos in order, each file once.

    No two results NAME+ending share a file, also where the file system ignores case: the second `dog` is `dog-2`.
    SettingError for a path that does not exist and a folder without a picture.
    """
    files_by_target: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise SettingError(f"{path}: no such photo or folder")
        for file in _pictures(path) if path.is_dir() else [path]:
            files_by_target.setdefault(file.resolve(), file)
    taken: set[str] = set()
    photos = []
    for file in files_by_target.values():
        # Room for the endings, in the 255 bytes that a file's name has.
        stem = os.fsencode(file.stem)[:MAX_STEM_BYTES].decode(errors="ignore")
        name, count = stem, 1
        while taken & (results := {f"{name}{ending}".casefold() for ending in endings}):
            count += 1
            name = f"{stem}-{count}"
        taken |= results
        photos.append(Photo(file, name))
    return photos


def _pictures(folder: Path) -> list[Path]:
    """The folder's pictures, by name."""
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not pictures:
        raise SettingError(f"{folder}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return pictures


def enlarge_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """labels (h, w) uint8 → (H, W) of `size`. Each label's area is enlarged bilinearly and the strongest wins: nearest values
    would turn outlines into stairs."""
    if labels.shape == size:
        return labels
    best = np.zeros(size, dtype=np.uint8)
    result = np.zeros(size, dtype=np.uint8)
    for value in np.unique(labels):
        area = Image.fromarray(np.where(labels == value, 255, 0).astype(np.uint8))
        share = np.asarray(area.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        wins = share > best
        result[wins], best[wins] = value, share[wins]
    return result
