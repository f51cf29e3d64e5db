"""The table of records that every stage reads: what it holds, which rows can be used.

id      str        the image's name without its suffix; the key in every later store
split   str        'train', 'val', …; an image that is in two splits has two rows
image   str        path relative to the data root, with '/'
height  int32      pixels, 0 where the image could not be decoded
width   int32      pixels, 0 where the image could not be decoded
labels  list[str]  image-level class names in class order
error   str        '' where the row can be used, else the reason
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import pandas as pd

from excel_core.errors import DataError, SettingError

__all__ = [
    "COLUMNS",
    "Manifest",
    "check_bad_share",
    "check_image_id",
    "check_manifest",
    "image_digest",
    "most_bad",
    "usable",
]

Manifest: TypeAlias = pd.DataFrame

COLUMNS = ("id", "split", "image", "height", "width", "labels", "error", "digest")
TEXT_COLUMNS = ("id", "split", "image", "error", "digest")
SIZE_COLUMNS = ("height", "width")
SHOWN = 5  # how many bad images an error names


def check_image_id(image_id: str, where: str) -> str:
    """Return image_id, or raise DataError where it is not one plain file name (no folder, no white space at its ends)."""
    odd = any(mark in image_id for mark in '/\\:"') or image_id != image_id.strip()
    if odd or not image_id or image_id.startswith(".") or not image_id.isprintable():
        raise DataError(
            f"{where}: an image id is one file name without folder and suffix, such as 2007_000032; got {image_id!r}"
        )
    return image_id


def check_manifest(manifest: Manifest) -> Manifest:
    """Return manifest, or raise DataError naming the column that does not fit the table above."""
    if tuple(manifest.columns) != COLUMNS:
        raise DataError(f"manifest: columns must be {COLUMNS}, got {tuple(manifest.columns)}; rerun dataset")
    for name in TEXT_COLUMNS:
        if not all(isinstance(value, str) for value in manifest[name]):
            raise DataError(f"manifest: {name!r} must be text, got {manifest[name].dtype}; rerun dataset")
    for name in SIZE_COLUMNS:
        if str(manifest[name].dtype) != "int32":
            raise DataError(f"manifest: {name!r} must be int32, got {manifest[name].dtype}; rerun dataset")
    for image_id, labels in zip(manifest["id"], manifest["labels"], strict=True):
        if isinstance(labels, str) or not isinstance(labels, Iterable):  # Parquet gives arrays back
            raise DataError(f"manifest: 'labels' of {image_id} must be a list of names, got {labels!r}")
    for image_id, image in zip(manifest["id"], manifest["image"], strict=True):
        if PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts:
            raise DataError(f"manifest: 'image' of {image_id} must be a path inside the root, got {image!r}")
    if manifest.duplicated(["id", "split"]).any():
        raise DataError("manifest: an id occurs twice in one split; rerun dataset")
    return manifest


def usable(manifest: Manifest, split: str) -> Manifest:
    """Rows of split whose error is empty, in their order, numbered from 0.

    Raises DataError for a split that the manifest does not hold, naming those it does.
    """
    splits = list(dict.fromkeys(manifest["split"]))
    if split not in splits:
        raise DataError(f"split {split!r} is not in the manifest; it holds: {', '.join(splits) or 'nothing'}")
    rows = manifest[(manifest["split"] == split) & (manifest["error"] == "")]
    return rows.reset_index(drop=True)


def most_bad(images: int, max_bad: float) -> float:
    """How many of so many images may be bad: a share, and always one."""
    return max(1.0, max_bad * images)


def check_bad_share(manifest: Manifest, max_bad: float) -> None:
    """Raise DataError where more than max_bad of the images are bad, or a split has no usable one.

    One bad image is always tolerated: in a set of 20 it is 5 %, and no reason to stop.
    """
    if not 0 <= max_bad <= 1:
        raise SettingError(f"max_bad must be a share in [0, 1], got {max_bad}")
    images = manifest.drop_duplicates("id")
    bad = images[images["error"] != ""]
    reasons = [f"  {row.id}: {row.error}" for row in bad.head(SHOWN).itertuples()]
    if len(bad) > SHOWN:
        reasons.append(f"  … and {len(bad) - SHOWN} more")
    if len(bad) > most_bad(len(images), max_bad):
        head = f"{len(bad)} of {len(images)} images are bad, {max_bad:.1%} are tolerated"
        raise DataError("\n".join([f"{head}; repair or unlist them:", *reasons]))
    for split, rows in manifest.groupby("split", sort=False):
        if (rows["error"] != "").all():
            raise DataError("\n".join([f"split {split!r} has no usable image:", *reasons]))


def image_digest(path: Path) -> str:
    """SHA-256 (hex) of an image file's bytes, '' where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
