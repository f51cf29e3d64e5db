"""Single photos of a user: their files, the names of their results, and label maps enlarged to the photo's size."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.datasets.images import MIN_SIDE, shrink_image
from excel_core.datasets.photo_files import (
    is_hidden,
    is_own_result,
    is_own_store,
    is_photo,
    photo_suffixes,
    printable,
    unread_format,
    unread_picture,
)
from excel_core.errors import SettingError

__all__ = ["Photo", "enlarge_labels", "find_photos", "photos_in_sub_folders", "shrink_photo"]

MAX_STEM_BYTES = 200  # of a result's name


@dataclass(frozen=True)
class Photo:
    """A photo's file, and the name of its results: the file's without suffix, with a number where several photos share it.
    `problem`: why it is not read, "" where its name does not tell."""

    path: Path
    name: str
    problem: str = ""


def find_photos(paths: Sequence[Path], endings: Sequence[str] = ("",)) -> list[Photo]:
    """Photos and folders of photos → the photos in order, each file once; of a folder also pictures without a usual suffix.

    No two results NAME+ending share a file, also where the file system ignores case: the second `dog` is `dog-2`.
    SettingError for a path that does not exist and a folder without a picture.
    """
    files_by_target: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise SettingError(f"{printable(path)}: no such photo or folder")
        for file in _pictures(path) if path.is_dir() else [path]:
            files_by_target.setdefault(os.path.realpath(file), file)  # unlike resolve(), it bears links that lead in a circle
    used_names: set[str] = set()
    photos = []
    for file in files_by_target.values():
        # Room for the endings, in the 255 bytes that a file's name has.
        stem = os.fsencode(file.stem)[:MAX_STEM_BYTES].decode(errors="ignore") or "photo"
        name, count = stem, 1
        while used_names & (result_names := {f"{name}{ending}".casefold() for ending in endings}):
            count += 1
            name = f"{stem}-{count}"
        used_names |= result_names
        photos.append(Photo(file, name, unread_format(file)))
    return photos


def photos_in_sub_folders(paths: Sequence[Path]) -> list[Path]:
    """The pictures below folders that `find_photos` does not look into, but for hidden ones and what excel wrote."""
    listed = {os.path.realpath(path) for path in paths}
    below = []
    for top in (path for path in paths if path.is_dir()):
        for place, folders, files in os.walk(top):
            folder = Path(place)
            folders[:] = [name for name in sorted(folders) if not _is_passed_over(folder / name)]
            if os.path.realpath(folder) not in listed:
                below += [folder / name for name in sorted(files) if _is_picture(folder / name)]
    return below


def _is_passed_over(folder: Path) -> bool:
    return is_hidden(folder.name) or is_own_result(folder) or is_own_store(folder)


def _is_picture(path: Path) -> bool:
    return not path.is_dir() and (is_photo(path) or bool(unread_picture(path)))


def _pictures(folder: Path) -> list[Path]:
    """The folder's pictures, by name."""
    try:
        pictures = sorted(path for path in folder.iterdir() if _is_picture(path))
    except OSError as error:
        raise SettingError(f"{printable(folder)}: cannot be read ({error.strerror})") from error
    if not pictures:
        raise SettingError(f"{printable(folder)}: holds no picture ({', '.join(sorted(photo_suffixes()))})")
    return pictures


def shrink_photo(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """image (H, W, 3) → `shrink_image` to `side`; of one that is so long that it would have less than MIN_SIDE pixels across,
    the shorter side keeps these. Label maps are enlarged to the photo's own shape."""
    small = shrink_image(image, side)
    if min(small.shape[:2]) >= MIN_SIDE:
        return small
    height, width = (max(MIN_SIDE, length) for length in small.shape[:2])
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def enlarge_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """labels (h, w) uint8 → (H, W) of `size`. Each label's area is enlarged bilinearly and the strongest wins: nearest values
    would turn outlines into stairs."""
    if labels.shape == size:
        return labels
    best = np.zeros(size, dtype=np.uint8)
    enlarged = np.zeros(size, dtype=np.uint8)
    for value in np.unique(labels):
        area = Image.fromarray(np.where(labels == value, 255, 0).astype(np.uint8))
        share = np.asarray(area.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        wins = share > best
        enlarged[wins], best[wins] = value, share[wins]
    return enlarged
