"""Photos of users' own: the right way up, at a size that can be refined, and their label maps back at full size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.datasets.images import read_image
from excel_core.errors import SettingError

__all__ = ["Photo", "enlarge_labels", "find_photos", "read_upright", "shrink_image"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}  # of the photos in a folder
ORIENTATION = 0x0112  # the EXIF tag
# Orientation -> how the stored pixels come upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


def read_upright(path: Path) -> NDArray[np.uint8]:
    """Decode a photo → (H, W, 3) uint8 RGB as a viewer shows it; ImageError as `read_image` raises it.

    Unlike `read_image`, which sees data sets' pixels as they are stored, it obeys the EXIF orientation: cameras store a
    portrait lying on its side, and a mask would not fit the picture that its owner knows.
    """
    image = read_image(path)
    turn = TURNS.get(_orientation(path))
    return image if turn is None else np.array(Image.fromarray(image).transpose(turn))


def _orientation(path: Path) -> int:
    try:
        with path.open("rb") as file, Image.open(file) as image:
            return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF may raise almost anything; the pixels were read
        return 1


def shrink_image(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """image (H, W, 3) → the same where no side is longer than `side`, else shrunk to that longer side."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= side:
        return image
    size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


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
