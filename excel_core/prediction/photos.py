"""Photos of users' own, one by one: finding and naming them, and their label maps back at full size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.errors import SettingError

__all__ = ["Photo", "enlarge_labels", "find_photos"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}  # of the photos in a folder


@dataclass(frozen=True)
class Photo:
    """A photo's file, and the name its results get: the file's without suffix, told apart where several share it."""

    path: Path
    name: str


def find_photos(places: Sequence[Path], endings: Sequence[str] = ("",)) -> list[Photo]:
    """Files as they are given, and in place of a folder the pictures in it by name; each file once.

    No two results NAME+ending share a file, even where case is no difference: the second `dog` is `dog-2`. SettingError for a
    place that is not there and a folder without a picture.
    """
    paths: dict[Path, Path] = {}
    for place in places:
        if not place.exists():
            raise SettingError(f"{place}: no such photo or folder")
        inside = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES) if place.is_dir() else [place]
        if not inside:
            raise SettingError(f"{place}: holds no picture ({', '.join(sorted(SUFFIXES))})")
        for path in inside:
            paths.setdefault(path.resolve(), path)
    taken: set[str] = set()
    photos = []
    for path in paths.values():
        name, count = path.stem, 1
        while taken & (files := {f"{name}{ending}".casefold() for ending in endings}):
            count += 1
            name = f"{path.stem}-{count}"
        taken |= files
        photos.append(Photo(path, name))
    return photos


def enlarge_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """labels (h, w) → (H, W) of `size`: each label's area is enlarged bilinearly and the strongest wins, so that outlines
    stay smooth where nearest values would make stairs."""
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
