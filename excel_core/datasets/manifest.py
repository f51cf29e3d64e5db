"""The table of images that every stage reads: its columns, its checks, and how a layout's images become its rows.

id      str        the image's name without its suffix; the key in every later store
split   str        'train', 'val', …; an image that is in two splits has two rows
image   str        path relative to the data root, with '/'
height  int32      pixels, 0 where the image could not be decoded
width   int32      pixels, 0 where the image could not be decoded
labels  list[str]  image-level class names in class order
error   str        '' where the row can be used, else the reason
digest  str        SHA-256 of the image file, hex; '' where it could not be read
"""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
import pandas as pd

from excel_core.datasets.images import AS_STORED, DecodeOptions, orientation_of
from excel_core.datasets.links import check_inside
from excel_core.datasets.photo_files import open_photo
from excel_core.errors import DataError, ImageError, SettingError, shown

__all__ = [
    "COLUMNS",
    "NO_LABELS",
    "ListedImage",
    "Manifest",
    "build_manifest",
    "check_bad_share",
    "check_image_id",
    "check_manifest",
    "check_split_names",
    "clashing_ids",
    "image_digest",
    "max_bad_images",
    "usable",
]

Manifest: TypeAlias = pd.DataFrame

COLUMNS = ("id", "split", "image", "height", "width", "labels", "error", "digest")
TEXT_COLUMNS = ("id", "split", "image", "error", "digest")
SIZE_COLUMNS = ("height", "width")
NO_LABELS = "no labels: the image has no object of any class"
MAX_ID_BYTES = 200  # a file system's names have 255, of which a file that is being written takes some for itself
MAX_REASONS = 5  # bad images that an error names


@dataclass(frozen=True)
class ListedImage:
    """One image of one split, before it was opened: its id, its path relative to the root with '/', its labels in class
    order, and why it cannot be used ("" for no reason so far)."""

    id: str
    split: str
    image: str
    labels: tuple[str, ...] = ()
    problem: str = ""


def build_manifest(
    root: Path, listed: Sequence[ListedImage], *, max_bad: float, threads: int, decode: DecodeOptions = AS_STORED
) -> Manifest:
    """Decode every image under root once, in `threads` threads → Manifest, rows in the order of `listed`, sizes as decoded
    with `decode`.

    An image keeps its row, with the reason in `error`, where it is missing, damaged or too small, or where a symbolic link
    leads out of the data folder. `attrs["turned"]`: the EXIF orientation of the images that have one and are decoded as they
    are stored, by id. Raises DataError where more than max_bad of the images are bad (a share in [0, 1]; one bad
    image is always tolerated), and for ids that differ only by case or by how accents are composed.
    """
    _check_case(listed)
    images = list(dict.fromkeys(row.image for row in listed))
    with ThreadPoolExecutor(threads) as pool:  # threads, since Pillow decodes without the interpreter's lock
        decoded = dict(zip(images, pool.map(lambda image: _decode(root, image, decode), images), strict=True))
    manifest = pd.DataFrame(
        {
            "id": [row.id for row in listed],
            "split": [row.split for row in listed],
            "image": [row.image for row in listed],
            "height": np.array([decoded[row.image].height for row in listed], dtype=np.int32),
            "width": np.array([decoded[row.image].width for row in listed], dtype=np.int32),
            "labels": [list(row.labels) for row in listed],
            "error": ["; ".join(filter(None, [decoded[row.image].problem, row.problem])) for row in listed],
            "digest": [decoded[row.image].digest for row in listed],
        }
    )
    check_bad_share(manifest, max_bad)
    manifest.attrs["turned"] = {row.id: decoded[row.image].orientation for row in listed if decoded[row.image].orientation > 1}
    return check_manifest(manifest)


def usable(manifest: Manifest, split: str) -> Manifest:
    """Rows of split whose error is empty, in their order, numbered from 0.

    Raises DataError for a split that the manifest does not hold, naming those it does.
    """
    splits = list(dict.fromkeys(manifest["split"]))
    if split not in splits:
        raise DataError(f"split {split!r} is not in the manifest; it holds: {', '.join(splits) or 'nothing'}")
    rows = manifest[(manifest["split"] == split) & (manifest["error"] == "")]
    return rows.reset_index(drop=True)


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


def check_bad_share(manifest: Manifest, max_bad: float) -> None:
    """Raise DataError where more than max_bad of the images are bad, or a split has no usable one."""
    if not 0 <= max_bad <= 1:
        raise SettingError(f"max_bad must be a share in [0, 1], got {max_bad}")
    images = manifest.drop_duplicates("id")
    bad = images[images["error"] != ""]
    reasons = [f"  {row.id}: {row.error}" for row in bad.head(MAX_REASONS).itertuples()]
    if len(bad) > MAX_REASONS:
        reasons.append(f"  … and {len(bad) - MAX_REASONS} more")
    if len(bad) > max_bad_images(len(images), max_bad):
        head = f"{len(bad)} of {len(images)} images are bad, {max_bad:.1%} are tolerated"
        raise DataError("\n".join([f"{head}; repair or unlist them:", *reasons]))
    for split, rows in manifest.groupby("split", sort=False):
        if (rows["error"] != "").all():
            raise DataError("\n".join([f"split {split!r} has no usable image:", *reasons]))


def max_bad_images(images: int, max_bad: float) -> float:
    """How many of `images` images may be bad: the share max_bad, but always one. In a set of 20 images one bad image is 5 %,
    and no reason to stop."""
    return max(1.0, max_bad * images)


def check_image_id(image_id: str, where: str) -> str:
    """Return image_id, or raise DataError where it is not one plain file name (no folder, no white space at its ends)."""
    odd = any(mark in image_id for mark in '/\\:"') or image_id != image_id.strip()
    if odd or not image_id or image_id.startswith(".") or not image_id.isprintable():
        raise DataError(
            f"{where}: an image id is one file name without folder and suffix, such as 2007_000032; got {shown(image_id)}"
        )
    if len(os.fsencode(image_id)) > MAX_ID_BYTES:
        raise DataError(f"{where}: an image id has at most {MAX_ID_BYTES} bytes, got {shown(image_id)}; rename the file")
    return image_id


def check_split_names(splits: Sequence[str]) -> None:
    """SettingError unless `splits` is a list of distinct names."""
    if isinstance(splits, str) or not splits or len(set(splits)) != len(splits):
        raise SettingError(f"splits must be a list of distinct names, got {splits!r}")


def image_digest(path: Path) -> str:
    """SHA-256 (hex) of an image file's bytes, '' where it cannot be read."""
    try:
        with open_photo(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


@dataclass(frozen=True)
class _Decoded:
    """What decoding one image file told: its size in pixels, its digest, or why it cannot be used; and how a viewer turns it,
    which `decode` did not."""

    height: int = 0
    width: int = 0
    problem: str = ""
    digest: str = ""
    orientation: int = 1


def _decode(root: Path, image: str, decode: DecodeOptions) -> _Decoded:
    path = root / image
    try:
        check_inside(root, path)
    except ImageError as error:
        return _Decoded(problem=str(error))
    try:
        height, width, _ = decode.read(path).shape
    except ImageError as error:
        return _Decoded(problem=str(error), digest=image_digest(path))
    return _Decoded(height, width, digest=image_digest(path), orientation=1 if decode.upright else orientation_of(path))


def _check_case(listed: Sequence[ListedImage]) -> None:
    for first, second in clashing_ids(row.id for row in listed):
        raise DataError(f"images {first!r} and {second!r} differ only by case or by how accents are composed; rename one")


def clashing_ids(ids: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of ids (the first of its kind, another) that differ only by case or by how accents are composed. On file systems
    that ignore either, what is written for one would overwrite what is written for the other."""
    first_spelling: dict[str, str] = {}
    pairs = []
    for image_id in ids:
        first = first_spelling.setdefault(unicodedata.normalize("NFC", image_id.casefold()), image_id)
        if first != image_id:
            pairs.append((first, image_id))
    return pairs
